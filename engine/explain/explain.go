package explain

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailrace/engine/config"
	"mailrace/proto/maildir"
	"mailrace/proto/tlsrpt"
	"mailrace/router"
	"mailrace/router/mx"
	"mailrace/router/pool"
)

// siteWait bounds how long the loop of a site may take to describe it.
const siteWait = 2 * time.Second

// Explainer knows what delivery knows. It is immutable; Explain may be called by any goroutine that may wait.
type Explainer struct {
	Config   *config.Config
	Table    *router.Table // of Config, its routes in their order
	Resolver *mx.Resolver
	Policed  Policed                                                                                 // nil = domains demand nothing
	View     func(route *router.Route, answer *mx.Answer, domain string, done func(router.SiteView)) // as router.Router.View; nil = no node runs
	Now      func() time.Time
}

// Policed finds what the domains of MX routes demand of their hosts, as router.Options.Policed does.
type Policed interface {
	Find(ctx context.Context, q mx.Query) (*mx.Answer, error)
}

// Explain tells which way mail for an address would go. It waits for DNS, as long as ctx lets it, and then for the loop of the site. Its only error
// is ErrAddress.
func (e *Explainer) Explain(ctx context.Context, address string) (*Report, error) {
	a, err := parseAddress(address, e.Config.Hostname)
	if err != nil {
		return nil, err
	}
	r := &Report{Time: e.Now().UTC(), Node: e.View != nil, Address: a, Policies: []Setting{}, Limits: []Setting{}, Egress: []Setting{}}
	route := e.Table.Match(a.Domain)
	if route == nil {
		r.Verdict = Verdict{Would: Wait, Text: "451 4.3.5 no route is configured for this domain: add one to [[route]]"}
		e.schedule(r, nil, nil)
		return r, nil
	}
	way := e.way(route)
	r.Route = way.describe(route, a.Domain)
	if route.Kind == router.Discard {
		r.Verdict = Verdict{Would: Discard, Text: "the route counts it as delivered, and it is gone"}
		return r, nil
	}
	e.settings(r, way)
	if e.Config.TLSReport.Contact != "" && route.Kind == router.MX && route.TLS != router.TLSOff {
		r.Policies = append(r.Policies, way.setting("TLS reports", e.reports(ctx, a.Domain), "tls_report.contact"))
	}
	q, answer, ask := route.Question(a.Domain)
	if ask {
		if answer, r.DNS = e.resolve(ctx, q); answer == nil || answer.Class != mx.OK {
			r.Verdict = unreached(r.DNS)
			e.schedule(r, route, nil)
			return r, nil
		}
		if e.Policed != nil && route.Kind == router.MX && route.TLS != router.TLSOff {
			if answer = e.police(ctx, q, answer, r.DNS); answer.Class != mx.OK {
				r.Verdict = Verdict{Would: Wait, Text: replyOf(answer) + "; it is tried again later"}
				e.schedule(r, route, nil)
				return r, nil
			}
		}
	}
	e.schedule(r, route, answer)
	view := e.site(ctx, r, route, answer)
	e.provider(r, way, answer)
	if r.DNS != nil {
		r.DNS.judge(view.Addresses)
	}
	r.Verdict = r.Site.verdict(r.DNS)
	if r.Pool != nil {
		r.Pool.judge(view.Sources)
		if v, kept := r.Pool.verdict(r.Time); kept {
			r.Verdict = v
		}
	}
	if way.to.Kind == config.ToMaildir {
		e.mailbox(r, way)
	}
	return r, nil
}

// resolve looks q up.
func (e *Explainer) resolve(ctx context.Context, q mx.Query) (*mx.Answer, *DNS) {
	before := e.Resolver.Snapshot(q)
	answer, err := e.Resolver.Find(ctx, q)
	d := &DNS{Question: "mx", Name: q.Name, From: Asked, Hosts: []Host{}}
	if q.Kind == mx.Addresses {
		d.Question = "addresses"
	}
	if err != nil {
		d.From, d.Class, d.Reply = Unknown, mx.Temporary.String(), "451 4.4.3 name service: "+err.Error()
		return nil, d
	}
	after := e.Resolver.Snapshot(q)
	if after.Answer == nil { // the cache is small, and has lost it
		after = mx.Snapshot{Answer: answer, TTL: max(answer.Expires.Sub(e.Now()), 0)}
	}
	_, isAddress := netip.ParseAddr(q.Name)
	switch {
	case isAddress == nil, strings.HasPrefix(q.Name, "["):
		d.From, after.TTL = Literal, 0
	case answer.Stale:
		d.From, d.Age = Stale, seconds(after.Age)
	case before.Answer != nil && before.TTL > 0:
		d.From = Cache
	}
	d.Class, d.Validated, d.TTL, d.MXTTL = answer.Class.String(), answer.Validated, seconds(after.TTL), seconds(after.MXTTL)
	if answer.Class != mx.OK {
		d.Reply = replyOf(answer)
	}
	d.list(answer, after)
	if d.From == Literal { // nobody vouches for what nobody was asked
		d.Validated, d.Hosts = false, unvouched(d.Hosts)
	}
	return answer, d
}

// reports says where a domain wants its TLS reports. RFC 8460 §3
func (e *Explainer) reports(ctx context.Context, domain string) string {
	a, err := e.Resolver.Find(ctx, mx.TextsOf(tlsrpt.Name(domain)))
	switch {
	case err != nil:
		return "not known whether the domain asks for them: " + err.Error()
	case a.Class != mx.OK:
		return "not known whether the domain asks for them: " + a.Text
	case a.Records == nil:
		return "the domain does not ask for them"
	}
	var to []string
	for _, d := range tlsrpt.ParseRecord(a.Records.Texts) {
		to = append(to, d.String())
	}
	if len(to) == 0 {
		return "the domain does not ask for them"
	}
	return "the domain asks for them: " + strings.Join(to, ", ")
}

func replyOf(a *mx.Answer) string { return fmt.Sprintf("%d %s %s", a.Code, a.Enhanced, a.Text) }

// police notes what the domain demands of each host, and which may not get its mail, and returns the answer that delivery goes by.
func (e *Explainer) police(ctx context.Context, q mx.Query, answer *mx.Answer, d *DNS) *mx.Answer {
	judged, err := e.Policed.Find(ctx, q)
	if err != nil {
		return &mx.Answer{Query: q, Class: mx.Temporary, Code: 451, Enhanced: "4.4.3", Text: "what the domain demands: " + err.Error()}
	}
	for _, h := range answer.Hosts {
		i := slices.IndexFunc(d.Hosts, func(known Host) bool { return known.Name == h.Name })
		kept := judged.Class == mx.OK && slices.ContainsFunc(judged.Hosts, func(known mx.Host) bool { return known.Name == h.Name })
		switch demand := judged.DemandOf(h.Name); {
		case i < 0 || d.Hosts[i].Dropped != "":
		case !kept:
			d.Hosts[i].Dropped = "DANE or the MTA-STS policy of the domain keeps its mail from it"
		case demand != nil:
			d.Hosts[i].Demand = demand.Kind.String()
		}
	}
	return judged
}

func unvouched(hosts []Host) []Host {
	for i := range hosts {
		hosts[i].Validated = false
	}
	return hosts
}

// list takes the hosts of an answer, with those that it leaves out as far as they are known.
func (d *DNS) list(answer *mx.Answer, s mx.Snapshot) {
	if len(s.Hosts) == 0 {
		for _, h := range answer.Hosts {
			s.Hosts = append(s.Hosts, mx.HostSnapshot{Host: h, TTL: s.TTL, Stale: answer.Stale})
		}
	}
	for _, h := range s.Hosts {
		host := Host{Name: h.Name, Preference: h.Preference, Validated: h.Validated, Stale: h.Stale, TTL: seconds(h.TTL), Dropped: h.Fault, Addresses: []HostAddress{}}
		for _, a := range h.Addrs {
			host.Addresses = append(host.Addresses, HostAddress{Address: a.String()})
		}
		for _, a := range h.Kept {
			host.Addresses = append(host.Addresses, HostAddress{Address: a.String(), Dropped: "it is not public, and not in [egress] allow"})
		}
		d.Hosts = append(d.Hosts, host)
	}
}

// judge notes what the site knows of the addresses.
func (d *DNS) judge(known []pool.Status) {
	for _, s := range known {
		for i := range d.Hosts {
			for j := range d.Hosts[i].Addresses {
				if a := &d.Hosts[i].Addresses[j]; d.Hosts[i].Name == s.Host && a.Address == s.Addr.String() && a.Dropped == "" {
					a.Failures, a.Until = s.Failures, s.Until
				}
			}
		}
	}
}

// site asks the loop that owns the site, for siteWait at most.
func (e *Explainer) site(ctx context.Context, r *Report, route *router.Route, answer *mx.Answer) (v router.SiteView) {
	r.Site = &Site{Name: router.SiteName(route, answer), State: SiteUnknown, ConnectionsMost: cmp.Or(route.Connections, e.Config.Egress.Connections)}
	if e.View == nil {
		r.Site.Fault = "no running node was asked"
		return v
	}
	found := make(chan router.SiteView, 1)
	e.View(route, answer, r.Address.Domain, func(v router.SiteView) { found <- v })
	limit := time.NewTimer(siteWait)
	defer limit.Stop()
	select {
	case v = <-found:
	case <-limit.C:
		r.Site.Fault = "the event loop of the site did not answer within " + siteWait.String()
		return v
	case <-ctx.Done():
		r.Site.Fault = "the event loop of the site did not answer: " + ctx.Err().Error()
		return v
	}
	s := r.Site
	s.Queued, s.OnDisk, s.InFlight, s.Connections, s.Opening, s.Idle, s.ConnectionsMost = v.Queued, v.OnDisk, v.InFlight, v.Connections, v.Opening, v.Idle, v.Limit
	s.Shared, s.SharedMost = v.Shared, v.SharedLimit
	s.Failures, s.Backoff, s.Pause, s.LastError = v.Failures, utc(v.Backoff), utc(v.Pause), v.LastError
	switch {
	case !v.Known:
		s.State = SiteVacant
	case !v.Backoff.IsZero():
		s.State = SiteBackoff
	default:
		s.State = SiteInUse
	}
	return v
}

// mailbox finds the directory of the address.
func (e *Explainer) mailbox(r *Report, w way) {
	t, err := maildir.Parse(w.to.Path)
	if err == nil {
		r.Route.Mailbox, err = t.Dir(r.Address.local, r.Address.Domain)
	}
	if err != nil {
		r.Verdict = Verdict{Would: Bounce, Text: "553 5.1.3 " + err.Error()}
	}
}

// unreached is what mail meets that DNS leads nowhere.
func unreached(d *DNS) Verdict {
	if d.Class == mx.Permanent.String() {
		return Verdict{Would: Bounce, Text: d.Reply}
	}
	return Verdict{Would: Wait, Text: d.Reply + "; it is tried again later"}
}

// verdict is what mail meets at the site.
func (s *Site) verdict(d *DNS) Verdict {
	switch {
	case s.State == SiteBackoff:
		text := fmt.Sprintf("the site failed %d times in a row", s.Failures)
		if s.Failures == 1 {
			text = "the site failed"
		}
		if s.LastError != "" {
			text += ": " + s.LastError
		}
		return Verdict{Would: Wait, Until: s.Backoff, Text: text}
	case s.OnDisk > 0:
		return Verdict{Would: Deliver, Text: fmt.Sprintf("behind %d recipients in the queue of the site and some %d on the disk%s", s.Queued, s.OnDisk, first(d))}
	case s.Queued > 0:
		return Verdict{Would: Deliver, Text: fmt.Sprintf("behind %d recipients in the queue of the site%s", s.Queued, first(d))}
	case s.State == SiteUnknown:
		return Verdict{Would: Deliver, Text: "as far as is known without the state of the site" + first(d)}
	case s.Connections > s.Opening:
		return Verdict{Would: Deliver, Text: "over a connection that is open" + first(d)}
	}
	return Verdict{Would: Deliver, Text: "at once" + first(d)}
}

// first names the hosts that are tried first.
func first(d *DNS) string {
	if d == nil {
		return ""
	}
	usable := func(a HostAddress) bool { return a.Dropped == "" && a.Until.IsZero() }
	var names []string
	var best uint16
	for _, h := range d.Hosts {
		if slices.ContainsFunc(h.Addresses, usable) && h.Dropped == "" && (len(names) == 0 || h.Preference == best) {
			names, best = append(names, h.Name), h.Preference
		}
	}
	if len(names) == 0 {
		return "" // all failed of late
	}
	return ", to " + strings.Join(names, " or ")
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
