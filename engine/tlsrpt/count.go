package tlsrpt

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailrace/proto/mtasts"
	"mailrace/proto/tlsrpt"
	"mailrace/router/mx"
)

const (
	dayLength    = 24 * time.Hour
	bytesMost    = 32 << 20 // of what is counted, of all days, about
	policiesMost = 4        // of a domain and day
	failuresMost = 32       // ways to fail of a policy
	linesMost    = 32       // of a policy
	hostsMost    = 16       // of a policy without hosts of its own
	reasonMax    = 200      // octets
	domainBytes  = 300      // of a domain, beside its names
	resultBytes  = 300      // of a policy, beside its lines
	failureBytes = 250      // of a way to fail, beside its text
	spread       = 4 * time.Hour
)

// What is dropped where there is no room.
const (
	droppedEvent  = "session" // there were too many at once
	droppedDomain = "domain"  // all sessions of it
	droppedDetail = "detail"  // it counts as failed, and it is not told how
)

// state is what is counted, and kept in File. It belongs to the owner.
type state struct {
	Day     int64             `json:"day"`   // begin of today, Unix seconds
	Today   map[string]*tally `json:"today"` // by domain
	Waiting []*pending        `json:"waiting"`
	bytes   int
	most    int // of bytes
}

// tally is what was counted of a domain on one day.
type tally struct {
	Results []tlsrpt.Result `json:"results"`
	bytes   int
	asking  bool // it is looked up whether the domain wants to know
}

// pending is a report of a day that is over.
type pending struct {
	Domain  string          `json:"domain"`
	Day     int64           `json:"day"` // begin, Unix seconds
	Results []tlsrpt.Result `json:"results"`
	Due     int64           `json:"due"` // Unix seconds
	Tries   int             `json:"tries,omitempty"`
	Done    []string        `json:"done,omitempty"` // destinations that have it
	bytes   int
	posting bool
	host    string // of a destination that took another report when this one was to go there
}

func dayOf(t time.Time) int64 { return t.Unix() - t.Unix()%int64(dayLength/time.Second) }

func (s *state) begin(day int64) { s.Day, s.Today = day, map[string]*tally{} }

// take says whether there is room for so many octets more, and takes it.
func (s *state) take(t *tally, n int) bool {
	if s.bytes+n > s.most {
		return false
	}
	s.bytes += n
	t.bytes += n
	return true
}

// drop forgets a domain of today.
func (s *state) drop(domain string) {
	if t := s.Today[domain]; t != nil {
		s.bytes -= t.bytes
		delete(s.Today, domain)
	}
}

// roll begins a day when the one before is over, whose reports then wait for their time.
func (r *Reports) roll() {
	today := dayOf(r.opts.Now())
	if r.state.Day-today > int64(dayLength/time.Second) {
		r.rewind(today)
	}
	if today <= r.state.Day { // a clock that was set back over midnight mends itself
		return
	}
	for domain, t := range r.state.Today {
		if len(t.Results) == 0 {
			r.state.bytes -= t.bytes
			continue
		}
		r.state.Waiting = append(r.state.Waiting, &pending{Domain: domain, Day: r.state.Day, Results: t.Results, Due: r.due(domain), bytes: t.bytes})
	}
	r.state.begin(today)
	r.dirty = true
}

// rewind takes what was counted while the clock was ahead as of today. Reports of days that are still to come are given up: nobody knows of what days
// they are, and their time would come after years.
func (r *Reports) rewind(today int64) {
	r.opts.Log.Warn("the clock was set back, and TLS reports begin anew today", "counted", time.Unix(r.state.Day, 0).UTC().Format(time.DateOnly))
	r.state.Day, r.dirty = today, true
	latest := r.opts.Now().Add(dayLength + spread).Unix()
	r.state.Waiting = slices.DeleteFunc(r.state.Waiting, func(p *pending) bool {
		p.Due = min(p.Due, latest)
		return p.Day > today && r.giveUp(p)
	})
}

// giveUp forgets a report, unless it is on its way.
func (r *Reports) giveUp(p *pending) bool {
	if p.posting {
		return false
	}
	r.state.bytes -= p.bytes
	r.sent[sentGivenUp].Inc()
	r.dirty = true
	r.opts.Log.Warn("a TLS report is given up", "domain", p.Domain, "tries", p.Tries)
	return true
}

// due is when the report of a domain of today goes out: some hours after the end of the day, others at other times, so that nobody gets all at once.
// RFC 8460 §4.1
func (r *Reports) due(domain string) int64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %d", r.opts.Submitter, domain, r.state.Day)
	return r.state.Day + int64(dayLength/time.Second) + int64(h.Sum64()%uint64(spread/time.Second))
}

// count counts a session, if its domain wants to know.
func (r *Reports) count(s *Session) {
	r.roll()
	t := r.state.Today[s.Domain]
	if t == nil {
		if t = r.meet(s.Domain); t == nil {
			return
		}
	}
	result := r.result(t, s)
	if result == nil {
		r.dropped[droppedDetail].Inc()
		return
	}
	r.dirty = true
	r.counted[s.Result == ""].Inc()
	if s.Host != "" && result.Policy.Type != tlsrpt.STS && len(result.Policy.MX) < hostsMost && !slices.Contains(result.Policy.MX, s.Host) && r.state.take(t, len(s.Host)+16) {
		result.Policy.MX = append(result.Policy.MX, strings.Clone(s.Host))
	}
	if s.Result == "" {
		result.Summary.Successful++
		return
	}
	result.Summary.Failed++
	r.detail(t, result, s)
}

// meet begins to count for a domain, unless it is known that it does not want to know; nil = it is not counted.
func (r *Reports) meet(known string) *tally {
	t, domain := &tally{}, strings.Clone(known)
	q := mx.TextsOf(tlsrpt.Name(domain))
	if a, ok := r.opts.DNS.Cached(q); ok && a.Class == mx.OK {
		if !asks(a) {
			return nil
		}
	} else if r.looking < lookupsMost {
		t.asking = r.opts.DNS.Lookup(q, func(a *mx.Answer) { r.answers <- answer{domain, a.Class != mx.OK, asks(a)} }) // there is room for all
		if t.asking {
			r.looking++
		}
	}
	if !r.state.take(t, domainBytes+len(domain)) {
		r.dropped[droppedDomain].Inc()
		return nil
	}
	r.state.Today[domain] = t
	return t
}

// answered notes whether a domain wants to know. Where that is not known, it is asked again when its report is due.
func (r *Reports) answered(a answer) {
	r.looking--
	if t := r.state.Today[a.domain]; t != nil && t.asking {
		t.asking = false
		if !a.unknown && !a.asks {
			r.state.drop(a.domain)
		}
	}
}

// result is the part of a tally for the policy of a session; nil = there is no room.
func (r *Reports) result(t *tally, s *Session) *tlsrpt.Result {
	p := r.policyOf(s)
	for i := range t.Results {
		if known := &t.Results[i].Policy; known.Type == p.Type && slices.Equal(known.Lines, p.Lines) {
			return &t.Results[i]
		}
	}
	n := resultBytes
	for _, line := range append(p.Lines, p.MX...) {
		n += len(line) + 16
	}
	if len(t.Results) == policiesMost || !r.state.take(t, n) {
		return nil
	}
	t.Results = append(t.Results, tlsrpt.Result{Policy: p})
	return &t.Results[len(t.Results)-1]
}

// policyOf is the policy that a session was under.
func (r *Reports) policyOf(s *Session) tlsrpt.Policy {
	p := tlsrpt.Policy{Type: s.Policy, Domain: s.Domain}
	if s.Policy == "" {
		p.Type = tlsrpt.NoPolicy
		if d := s.Demand; d != nil {
			p.Type = [...]string{mx.DemandNone: tlsrpt.NoPolicy, mx.DemandTesting: tlsrpt.STS, mx.DemandSTS: tlsrpt.STS, mx.DemandEncrypted: tlsrpt.TLSA, mx.DemandDANE: tlsrpt.TLSA}[d.Kind]
		}
	}
	switch p.Type {
	case tlsrpt.STS:
		if known := r.opts.Policy(s.Domain); known != nil {
			p.Lines, p.MX = linesOf(known), known.MX[:min(len(known.MX), linesMost)]
		}
	case tlsrpt.TLSA:
		for i := 0; s.Demand != nil && i < min(len(s.Demand.TLSA), linesMost); i++ {
			record := &s.Demand.TLSA[i]
			p.Lines = append(p.Lines, fmt.Sprintf("%d %d %d %s", record.Usage, record.Selector, record.Matching, hex.EncodeToString(record.Data[:min(len(record.Data), 64)])))
		}
	}
	return p
}

// linesOf are the fields of a policy.
func linesOf(p *mtasts.Policy) []string {
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, host := range p.MX[:min(len(p.MX), linesMost)] {
		lines = append(lines, "mx: "+host)
	}
	return append(lines, fmt.Sprintf("max_age: %d", int64(p.MaxAge/time.Second)))
}

// detail counts a failure among those of its kind.
func (r *Reports) detail(t *tally, result *tlsrpt.Result, s *Session) {
	f := tlsrpt.Failure{Type: s.Result, Source: text(s.Source), Host: s.Host, Peer: text(s.Peer), Reason: tlsrpt.Text(s.Reason, reasonMax)}
	for i := range result.Details {
		known := result.Details[i]
		if known.Sessions = 0; known == f {
			result.Details[i].Sessions++
			return
		}
	}
	if len(result.Details) == failuresMost || !r.state.take(t, failureBytes+len(f.Host)+len(f.Reason)) {
		r.dropped[droppedDetail].Inc()
		return
	}
	f.Host, f.Sessions = strings.Clone(f.Host), 1
	result.Details = append(result.Details, f)
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().WithZone("").String()
}
