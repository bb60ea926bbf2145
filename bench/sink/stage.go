package sink

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mailrace/bench/console"
)

// behaviour is what happens at each verb, and where: the stage is nil for what no script speaks of.
type behaviour struct {
	delay Delays
	judge *judge
	stage *stage
}

// stages are the destinations of a script at work. They do not change; any loop asks.
type stages struct {
	all      []*stage
	byDomain map[string]*stage // those without sites, by patternKey
	ranges   []siteRange       // of those with sites, in order
}

type siteRange struct {
	prefix
	stage *stage
}

// stage is a destination at work. Any loop may call its methods.
type stage struct {
	Destination
	behaviour
	failed [verbs][3]atomic.Uint64 // by verdict: tempfail, permfail, drop

	mu     sync.Mutex
	sites  map[netip.Addr]*site
	counts StageReport          // but for the failures
	grey   map[uint64]time.Time // when the first attempt of a triple was made
}

// site is a local address of a destination; the lock of its stage guards it.
type site struct {
	open   int
	recent []time.Time // when the messages of the last span of the rate began, in order, behind
	gone   int         // older ones
}

// greyMost is how many triples a destination remembers; the mail of further ones is taken at once.
const greyMost = 1 << 20

// refusal is a cap that a client has met.
type refusal uint8

const (
	within refusal = iota
	overConnections
	overMessages
	overRate
)

// newStages puts a script to work.
func newStages(s *Script, seed uint64) *stages {
	all := &stages{byDomain: map[string]*stage{}}
	for i := range s.Destinations {
		d := &s.Destinations[i]
		st := &stage{Destination: *d, sites: map[netip.Addr]*site{}, grey: map[uint64]time.Time{}, counts: StageReport{Name: d.Name, Configured: d.caps()}}
		st.behaviour = behaviour{delay: d.Delay, judge: newJudge(seed+uint64(i+1)<<32, d.Tempfail, d.Permfail, d.Drop), stage: st}
		all.all = append(all.all, st)
		for _, p := range d.Sites {
			all.ranges = append(all.ranges, siteRange{p, st})
		}
		if len(d.Sites) == 0 {
			for _, p := range d.Domains {
				all.byDomain[patternKey(p)] = st
			}
		}
	}
	slices.SortFunc(all.ranges, func(a, b siteRange) int { return a.Addr().Compare(b.Addr()) })
	return all
}

// ofSite is the destination that has a local address, or nil.
func (s *stages) ofSite(local netip.Addr) *stage {
	i, found := slices.BinarySearchFunc(s.ranges, local, func(r siteRange, a netip.Addr) int { return r.Addr().Compare(a) })
	if !found {
		i--
	}
	if i >= 0 && s.ranges[i].Contains(local) {
		return s.ranges[i].stage
	}
	return nil
}

// ofDomain is the destination without sites that has a domain of a recipient, or nil. scratch is for the domain in lower case.
func (s *stages) ofDomain(domain []byte, scratch *[]byte) *stage {
	if len(s.byDomain) == 0 {
		return nil
	}
	*scratch = append((*scratch)[:0], domain...)
	for i, c := range *scratch {
		if c >= 'A' && c <= 'Z' {
			(*scratch)[i] = c | 0x20
		}
	}
	return byDomain(s.byDomain, bytes.TrimSuffix(*scratch, []byte(".")))
}

// membership is a connection's with a destination.
type membership struct {
	stage    *stage
	local    netip.Addr
	messages int    // transactions that were let begin
	within   uint64 // number of the session's transaction that was let begin last
}

// join counts a connection to a site in, if there is room for it. With last it is refused otherwise, which counts.
func (st *stage) join(local netip.Addr, last bool) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	s := st.sites[local]
	if s == nil {
		s = new(site)
		st.sites[local] = s
	}
	if st.Connections > 0 && s.open >= st.Connections {
		if last {
			st.counts.Over.Connections++
		}
		return false
	}
	s.open++
	st.counts.Connections++
	st.counts.Most.Connections = max(st.counts.Most.Connections, s.open)
	return true
}

// leave counts the connection out.
func (st *stage) leave(local netip.Addr) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sites[local].open--
}

// begin lets a transaction of a connection begin, or says what cap stands against it.
func (st *stage) begin(m *membership, now time.Time) refusal {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.Messages > 0 && m.messages >= st.Messages {
		st.counts.Over.Messages++
		return overMessages
	}
	if st.Rate.Messages > 0 {
		s := st.sites[m.local]
		busy := s.count(now, st.Rate.Per)
		if busy >= st.Rate.Messages {
			st.counts.Over.Rate++
			return overRate
		}
		s.recent = append(s.recent, now)
		st.counts.Most.Rate = max(st.counts.Most.Rate, busy+1)
	}
	m.messages++
	st.counts.Most.Messages = max(st.counts.Most.Messages, m.messages)
	return within
}

// count is how many messages began in the span that ends now.
func (s *site) count(now time.Time, span time.Duration) int {
	for s.gone < len(s.recent) && now.Sub(s.recent[s.gone]) >= span {
		s.gone++
	}
	if s.gone > len(s.recent)/2 {
		s.recent, s.gone = append(s.recent[:0], s.recent[s.gone:]...), 0
	}
	return len(s.recent) - s.gone
}

var greySeed = maphash.MakeSeed()

// greylisted says whether a recipient must wait: it is the first time that a client has mail of a sender for it, or too soon after that.
func (st *stage) greylisted(client netip.Addr, sender, rcpt []byte, now time.Time) bool {
	if st.Greylist == 0 {
		return false
	}
	var h maphash.Hash
	h.SetSeed(greySeed)
	address := client.As16()
	for _, part := range [][]byte{address[:], bytes.ToLower(sender), {0}, bytes.ToLower(rcpt)} {
		_, _ = h.Write(part)
	}
	triple := h.Sum64()
	st.mu.Lock()
	defer st.mu.Unlock()
	first, known := st.grey[triple]
	switch {
	case known && now.Sub(first) >= time.Duration(st.Greylist) || !known && len(st.grey) == greyMost:
		return false
	case !known:
		st.grey[triple] = now
	}
	st.counts.Greylisted++
	return true
}

// accepted counts a message.
func (st *stage) accepted(recipients int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.counts.Accepted++
	st.counts.Recipients += uint64(recipients)
}

// Caps are numbers of connections, of messages of one connection, and of messages in the span of a rate.
type Caps struct {
	Connections int `json:"connections,omitempty"`
	Messages    int `json:"messages,omitempty"`
	Rate        int `json:"rate,omitempty"`
}

func (d *Destination) caps() Caps { return Caps{d.Connections, d.Messages, d.Rate.Messages} }

// StageReport is what a destination of a script has seen.
type StageReport struct {
	Name        string              `json:"name"`
	Configured  Caps                `json:"caps"`        // of each site; 0 = none
	Most        Caps                `json:"most"`        // that any of its sites let in
	Over        Caps                `json:"over"`        // connections and messages that were refused because of a cap
	Sites       int                 `json:"sites"`       // that anybody connected to
	Connections uint64              `json:"connections"` // that were let in, since the start
	Accepted    uint64              `json:"messages"`    // by the destination of their first recipient
	Recipients  uint64              `json:"recipients"`
	Greylisted  uint64              `json:"greylisted"` // recipients that got 451
	Failures    map[string]Failures `json:"failures,omitempty"`
}

// String is the report as a line.
func (r StageReport) String() string {
	line := fmt.Sprintf("%s messages at %d sites, most %d connections", console.Count(r.Accepted), r.Sites, r.Most.Connections)
	if r.Over != (Caps{}) {
		line += fmt.Sprintf(", over a cap: %d connections, %d messages of one, %d of a rate", r.Over.Connections, r.Over.Messages, r.Over.Rate)
	}
	if r.Greylisted > 0 {
		line += fmt.Sprintf(", %d greylisted", r.Greylisted)
	}
	return line
}

// report sums up what was seen until now.
func (st *stage) report() StageReport {
	st.mu.Lock()
	r := st.counts
	r.Sites = len(st.sites)
	st.mu.Unlock()
	r.Failures = failuresOf(&st.failed)
	return r
}

// failuresOf are those of each verb that has some.
func failuresOf(of ...*[verbs][3]atomic.Uint64) map[string]Failures {
	all := map[string]Failures{}
	for v := range verbs {
		var f Failures
		for _, failed := range of {
			f.Tempfail += failed[v][tempfail-1].Load()
			f.Permfail += failed[v][permfail-1].Load()
			f.Drop += failed[v][drop-1].Load()
		}
		if f != (Failures{}) {
			all[v.String()] = f
		}
	}
	return all
}

// report is of all destinations, in the order of the script.
func (s *stages) report() []StageReport {
	if s == nil {
		return nil
	}
	reports := make([]StageReport, len(s.all))
	for i, st := range s.all {
		reports[i] = st.report()
	}
	return reports
}
