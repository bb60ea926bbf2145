package engine

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/admin"
	"mailrace/engine/config"
	"mailrace/engine/egress"
	"mailrace/engine/ingress"
	"mailrace/engine/inject"
	"mailrace/engine/loop"
	"mailrace/engine/maildir"
	"mailrace/engine/policy"
	"mailrace/engine/recipients"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/mx"
	"mailrace/spool"
)

// openLoops starts the event loops with their listeners.
func (n *Node) openLoops() (err error) {
	c := n.cfg
	server := smtp.ServerConfig{
		Hostname: c.Hostname, MaxSize: c.Limits.MessageSize, MaxRecipients: c.Limits.Recipients,
		MaxLine: c.Limits.LineLength, MaxErrors: c.Limits.Errors, MaxCommands: c.Limits.Commands,
		MinDeliverBy: int64((c.Queue.DeliverByMin + time.Second - 1) / time.Second),
	}
	busy := smtp.AppendReply(nil, smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Too many connections, try again later"})
	clients := ingress.NewClients(ingress.ClientLimits{
		Client: ingress.Quota(c.Limits.Client), Network: ingress.Quota(c.Limits.Network), Interval: c.Limits.Interval,
	}, c.Engine.MaxConnections, n.clock.Now())
	users, err := n.openAuth()
	if err != nil {
		return err
	}
	pairs, err := n.openCertificates()
	if err != nil {
		return err
	}
	asked := &senders{resolver: n.resolver}
	listeners := make([]loop.Listener, len(c.Listeners))
	for i, l := range c.Listeners {
		server := server
		server.NoBinary = !l.BinaryMIME
		server.MendNewlines = l.FixNewlines
		d := &ingress.Door{
			SMTP: &server, RelayFrom: l.RelayFrom, RelayDomains: ingress.NewDomains(l.RelayDomains), Budget: n.budget, Store: n.store,
			GreetDelay: l.GreetDelay, ProxyFrom: l.ProxyFrom, XClientFrom: l.XClientFrom, Log: n.log, Clients: clients, Exempt: c.Limits.Exempt, Claims: n.claims,
			Pace: ingress.Pace{
				Command: c.Limits.CommandTimeout, Handshake: c.TLS.HandshakeTimeout, Data: c.Limits.DataTimeout, MinRate: c.Limits.MinRate, Window: c.Limits.RateWindow,
				Session: c.Limits.SessionTime, Messages: c.Limits.SessionMessages,
			},
			Terms: ingress.Terms{
				HoldMax: c.Queue.HoldMax, Submission: l.Mode != config.ModeMX, PriorityMax: int8(c.Limits.PriorityMax),
			},
			Accepted: func(l *loop.Loop, m *message.Message) { n.lanes[l.Index()].accepted(m) },
			Stats:    n.stats.received,
		}
		d.Head = headRules(c, &l)
		d.Tarpit = ingress.Tarpit{After: c.Limits.UnknownRecipients, First: c.Limits.UnknownDelay}
		if n.recipients != nil {
			d.Recipients = n.recipients
		}
		if l.CheckSender {
			d.Senders = asked
		}
		if c.Authenticates(&l) {
			d.Users = n.doorUsers(users, &l, pairs)
			server.Auth = users.Mechanisms(true)
			if l.AuthInClear {
				server.AuthClear = users.Mechanisms(false)
			}
		}
		d.OpenRooms(len(n.lanes))
		n.doors = append(n.doors, d)
		listeners[i] = loop.Listener{Address: l.Address, New: d.New, Busy: busy}
		if l.Mode == config.ModeSubmissions {
			d.TLSFirst, listeners[i].Busy = true, nil // a reply in clear would be noise
		}
		if server.StartTLS = pairs != nil && l.StartTLS && !d.TLSFirst; server.StartTLS || d.TLSFirst {
			if d.TLS, err = n.doorTLS(d, pairs, l.RelayCertificates); err != nil {
				return err
			}
			d.TLSReady = pairs.ready
		}
	}
	n.group, err = loop.Start(loop.Options{
		Loops: len(n.lanes), Listeners: listeners, MaxConnections: c.Engine.MaxConnections, Clock: n.clock, Log: n.log,
		Setup: func(l *loop.Loop) { n.lanes[l.Index()].loop = l },
	})
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	return nil
}

// CheckRecipients reads the lists of recipients that a configuration names, as a node does when it starts.
func CheckRecipients(c *config.Config) error {
	for _, t := range c.Recipients {
		if t.File == "" {
			continue
		}
		if err := recipients.CheckFile(t.File); err != nil {
			return fmt.Errorf("recipients: %w", err)
		}
	}
	return nil
}

// openRecipients reads who is there, where the configuration says.
func (n *Node) openRecipients() (err error) {
	if len(n.cfg.Recipients) == 0 {
		return nil
	}
	tables := make([]recipients.Table, len(n.cfg.Recipients))
	for i, t := range n.cfg.Recipients {
		tables[i] = recipients.Table(t)
	}
	o := recipients.Options{Tables: tables, Routes: n.routes, Resolver: n.resolver, Source: n.router.SourceOf, Ask: n.outbound.Probe, Log: n.log}
	if n.policies != nil {
		o.Policed = n.policies
	}
	if n.recipients, err = recipients.Open(o); err != nil {
		return fmt.Errorf("recipients: %w", err)
	}
	metrics.RegisterSet(n.recipients.Metrics())
	return nil
}

// headRules are what is done with the header sections of mail that comes in by l; nil = nothing.
func headRules(c *config.Config, l *config.Listener) *ingress.HeadRules {
	r := &ingress.HeadRules{Submission: l.Mode != config.ModeMX, CheckFrom: l.CheckFrom, Hostname: c.Hostname}
	r.Fields[ingress.Tenant], r.Fields[ingress.Campaign], r.Fields[ingress.Key] = c.Labels.Tenant, c.Labels.Campaign, c.Idempotency.Header
	names := map[string]ingress.Label{"tenant": ingress.Tenant, "campaign": ingress.Campaign, "key": ingress.Key}
	for _, part := range c.Labels.EnvID {
		r.EnvelopeID = append(r.EnvelopeID, names[part])
	}
	if !r.Submission && len(r.EnvelopeID) == 0 && c.Labels.Tenant == "" && c.Labels.Campaign == "" && c.Idempotency.Header == "" {
		return nil
	}
	return r
}

// doorTLS makes the TLS of a door. Client certificates are asked for only where their names count.
func (n *Node) doorTLS(d *ingress.Door, pairs *certificates, names []string) (*tls.Config, error) {
	if len(names) == 0 {
		return pairs.listenerTLS(&n.cfg.TLS, nil), nil
	}
	clients, err := n.cfg.TLS.ClientCAs()
	if err != nil {
		return nil, fmt.Errorf("client certificates: %w", err)
	}
	d.RelayCertificates = ingress.NewDomains(names)
	return pairs.listenerTLS(&n.cfg.TLS, clients), nil
}

// env is the world of this lane's scheduler.
func (a *lane) env() router.Env {
	e := router.Env{
		Now:    func() time.Time { return a.loop.Now() },
		After:  func(d time.Duration, fn func()) { a.loop.After(d, &loop.Timer{Fire: fn}) },
		Post:   func(fn func()) { a.loop.Post(fn) },
		Dial:   func(l *router.Link) { a.node.outbound.Dial(a.loop, l) },
		Settle: a.settle,
		Wait:   a.wait,
		Fetch:  a.fetch,
		Source: a.sourceChanged,
	}
	if a.node.rand != nil {
		e.Rand = a.node.rand()
	}
	return e
}

// newResolver is whom the router asks.
func newResolver(c *config.Config, now func() time.Time) (*mx.Resolver, error) {
	o := mx.Options{
		Servers: c.DNS.Servers, Trusted: c.DNS.TrustAD, Timeout: c.DNS.Timeout, Workers: c.DNS.Lookups, Entries: c.DNS.Cache,
		TTLMin: c.DNS.TTLMin, TTLMax: c.DNS.TTLMax, NegativeMax: c.DNS.NegativeMax, StaleMax: c.DNS.Stale, Own: []string{c.Hostname}, Allow: c.Egress.Allow, Now: now,
	}
	var err error
	if o.Sockets, err = loop.Sockets(2 * c.DNS.Lookups); err != nil {
		return nil, err
	}
	for _, own := range c.Egress.Own {
		if addr, err := netip.ParseAddr(own); err == nil {
			o.OwnAddrs = append(o.OwnAddrs, addr)
		} else {
			o.Own = append(o.Own, own)
		}
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, l := range c.Listeners {
		own := ownAddresses(l.Address, c.Egress.Port, interfaces)
		if o.OwnAddrs = append(o.OwnAddrs, own...); len(own) > 0 {
			o.OwnAddrs = append(o.OwnAddrs, sourceAddresses(c)...) // those that a proxy or NAT has for us are of no interface
		}
	}
	for i := range c.Sources {
		if name := c.Sources[i].Hello; name != "" {
			o.Own = append(o.Own, name)
		}
	}
	return mx.New(o)
}

// policyFile is where MTA-STS policies are kept, in the directory of the spool.
const policyFile = "mta-sts.json"

// newPolicies is what knows the demands of domains, beside what o says; nil = they demand nothing.
func newPolicies(c *config.Config, resolver *mx.Resolver, o policy.Options) (_ *policy.Resolver, err error) {
	o.DNS, o.DANE, o.STS, o.Entries, o.MXPort = resolver, c.Egress.DANE && len(c.DNS.TrustAD) > 0, c.Egress.STS, c.DNS.Cache, c.Egress.Port
	if !o.DANE && !o.STS {
		return nil, nil
	}
	if o.Roots, err = c.Egress.CAs(); err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	return policy.New(o), nil
}

// ownAddresses are those under which MX hosts would lead back to a listener: none, unless it listens where mail to MX hosts goes.
func ownAddresses(listener string, port uint16, interfaces []net.Addr) (own []netip.Addr) {
	host, text, err := net.SplitHostPort(listener)
	if err != nil || text != strconv.Itoa(int(port)) {
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if err == nil && !addr.IsUnspecified() {
		return []netip.Addr{addr.Unmap()}
	}
	if err != nil && host != "" {
		return nil // a name, which is known as Hostname or in Own
	}
	for _, i := range interfaces {
		if p, err := netip.ParsePrefix(i.String()); err == nil {
			own = append(own, p.Addr().Unmap())
		}
	}
	return own
}

func newOutbound(n *Node) (*egress.Options, error) {
	c := n.cfg
	roots, err := c.Egress.CAs()
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	var markers []*spool.Marker
	for range n.lanes {
		markers = append(markers, n.store.Marker())
	}
	return &egress.Options{
		Markers: markers,
		SMTP:    &smtp.ClientConfig{Hello: c.Hostname, Own: c.Hostname}, LMTP: &smtp.ClientConfig{Hello: c.Hostname, LMTP: true},
		Window: egress.Window{Messages: c.Egress.Window, Octets: c.Egress.WindowSize},
		TLS:    egress.NewTLS(roots), Stats: egress.NewStats(n.metrics), Reports: n.reports, Timeouts: egress.Timeouts(c.Egress.Timeouts), Logins: credentials(c),
		Hostname: c.Hostname, Files: maildir.Disk{}, Load: n.load, Log: n.log, Sources: outboundSources(c),
	}, nil
}

var securities = map[config.Security]router.TLS{
	config.TLSOpportunistic: router.TLSOpportunistic, config.TLSOff: router.TLSOff, config.TLSRequired: router.TLSRequired, config.TLSVerified: router.TLSVerified,
}

// routes are the configured routes in the router's terms; without any, everything goes by MX.
func routes(c *config.Config) []router.Route {
	if len(c.Routes) == 0 {
		return []router.Route{{Domains: []string{"*"}, Kind: router.MX, Port: c.Egress.Port, TLS: securities[c.Egress.TLS]}}
	}
	rs := make([]router.Route, len(c.Routes))
	for i, r := range c.Routes {
		rs[i] = route(c, &r)
	}
	return rs
}

// route is a configured route in the router's terms.
func route(c *config.Config, r *config.Route) router.Route {
	to := router.Route{Name: r.Name, Domains: r.Domains, Host: r.To.Host, Port: r.To.Port, Path: r.To.Path, Connections: r.Connections, Pool: r.Pool, TLS: securities[r.Security(c.Egress.TLS)]}
	switch r.To.Kind {
	case config.ToMX:
		to.Port = c.Egress.Port
	case config.ToDiscard:
		to.Kind = router.Discard
	case config.ToHost, config.ToHostTLS, config.ToLMTP:
		to.Kind = router.Host
	case config.ToSocket:
		to.Kind = router.Local
	case config.ToMaildir:
		to.Kind, to.Manner.Protocol = router.Local, router.Maildir
	}
	if r.To.Kind == config.ToLMTP || r.To.Kind == config.ToSocket {
		to.Manner.Protocol = router.LMTP
	}
	to.Manner.TLSFirst = r.To.Kind == config.ToHostTLS
	to.Manner.Login = loginName(r)
	return to
}

// policies are the configured policies in the router's terms.
func policies(c *config.Config) []router.Policy {
	ps := make([]router.Policy, len(c.Policies))
	for i := range c.Policies {
		ps[i] = router.Policy(c.Policies[i])
	}
	return ps
}

// providers are those of the configuration.
func providers(c *config.Config) []router.Provider {
	ps := make([]router.Provider, len(c.Providers))
	for i := range c.Providers {
		ps[i] = router.Provider(c.Providers[i])
	}
	return ps
}

// loginName tells the credentials of a route from others: connections with different ones are not alike. "" = it has none.
func loginName(r *config.Route) string {
	if r.User == "" {
		return ""
	}
	return fmt.Sprintf("%q %q %q %s %t", r.User, r.Password, r.Token, r.Mechanism, r.AuthInClear)
}

// credentials are those of all routes, by name.
func credentials(c *config.Config) map[string]*egress.Login {
	all := map[string]*egress.Login{}
	for _, r := range c.Routes {
		if r.User != "" {
			all[loginName(&r)] = &egress.Login{
				User: r.User, Secret: cmp.Or(r.Password, r.Token).Read, Token: r.Token != "", Mechanism: r.Mechanism, InClear: r.AuthInClear,
			}
		}
	}
	return all
}

// openAdmin starts the HTTP service, if there is to be one.
func (n *Node) openAdmin() (err error) {
	if n.cfg.Admin.Address == "" {
		return nil
	}
	n.admin, err = admin.Listen(admin.Options{
		Address: n.cfg.Admin.Address, Names: append([]string{strings.ToLower(n.cfg.Hostname)}, n.cfg.Admin.Names...), ProxyFrom: n.cfg.Admin.ProxyFrom, Scan: n.store.Scan, Decide: n.doubts.decide, Explain: n.Explain, Log: n.log, Ready: n.serving, Inject: n.newInjection(), InjectPaths: inject.Paths,
	})
	return err
}

// taking says why the node takes no mail, or nil.
func (n *Node) taking() error {
	if !n.ready.Load() {
		return inject.ErrStopping
	}
	if n.store.Full() {
		return inject.ErrFull
	}
	return nil
}

// newInjection is what takes mail over HTTP.
func (n *Node) newInjection() *inject.Handler {
	c := &n.cfg.Admin
	var password func(context.Context, string, string, netip.Addr) (*inject.User, error)
	if c.InjectUsers && n.auth != nil {
		password = n.injectionUser
	}
	return inject.New(inject.Options{
		From: c.InjectFrom, Password: password, MaxBody: c.InjectSize, Requests: c.InjectRequests, Timeout: c.InjectTimeout,
		MaxMessage: int(n.cfg.Limits.MessageSize), Recipients: n.cfg.Limits.Recipients, HoldMax: n.cfg.Queue.HoldMax, PriorityMax: int8(n.cfg.Limits.PriorityMax),
		Budget: n.budget, Ready: n.taking, Begin: func() inject.Batch { return n.NewBatch() }, Metrics: n.metrics, Log: n.log,
	})
}
