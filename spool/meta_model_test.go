package spool

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"

	"mailrace/proto/message"
)

// sample is a message as it was handed to the spool.
type sample struct {
	envelope *message.Message // with the recipients as they arrive, without Body
	salt     uint64           // of the content: an id may come again after a crash that left nothing of it
}

// newSample makes up a message of some size with all that an envelope can have.
func newSample(rng *rand.Rand, id message.ID, size, recipients int) *sample {
	m := &message.Message{
		ID: id, Arrived: rng.Int64(), From: "sender@example.com", Size: int64(size), Chunks: (size + message.ChunkSize - 1) / message.ChunkSize,
		Flags: message.Flags(rng.IntN(32)), Client: "192.0.2.1", Helo: "client.example.com",
		Trace: fmt.Appendf(nil, "Received: by mx.example.com id %v;\r\n", id),
	}
	if rng.IntN(4) == 0 {
		m.From = ""
	}
	for i := range recipients {
		m.Recipients = append(m.Recipients, message.Recipient{Address: fmt.Sprintf("user%d@example.net", i), Notify: []message.Notify{message.NotifyDefault, message.NotifyNever, message.NotifySuccess | message.NotifyDelay}[rng.IntN(3)]})
	}
	if rng.IntN(3) == 0 {
		m.DSN = &message.DSN{Return: message.Return(rng.IntN(3)), EnvelopeID: fmt.Sprint("envelope ", rng.IntN(1000))}
		for i := range recipients {
			m.DSN.Originals = append(m.DSN.Originals, []string{"", fmt.Sprintf("rfc822;original%d@example.net", i)}[rng.IntN(2)])
		}
	}
	if rng.IntN(3) == 0 {
		m.User, m.Tenant, m.Campaign = "user", fmt.Sprint("tenant ", rng.IntN(5)), strings.Repeat("c", rng.IntN(50))
	}
	if rng.IntN(3) == 0 {
		m.Wishes = &message.Wishes{Release: rng.Int64N(1 << 40), Deadline: rng.Int64N(1 << 40), ByMode: message.ByNotify, ByTrace: true, Priority: int8(rng.IntN(19) - 9)}
	}
	return &sample{m, rng.Uint64()}
}

// content is what the message holds: no two octets of it are sure to be the same in another message, or at another place.
func (s *sample) content() []byte {
	b := make([]byte, s.envelope.Size)
	x := s.salt | 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// message is the sample as the spool gets it, held once.
func (s *sample) message() *message.Message {
	e := s.envelope
	m := &message.Message{
		ID: e.ID, Arrived: e.Arrived, From: e.From, Recipients: slices.Clone(e.Recipients), Flags: e.Flags, Size: e.Size, Chunks: e.Chunks, Trace: e.Trace,
		Client: e.Client, Helo: e.Helo, DSN: e.DSN, Wishes: e.Wishes, User: e.User, Tenant: e.Tenant, Campaign: e.Campaign,
		Body: testBudget.AppendContent(nil, s.content(), e.Size),
	}
	m.Hold(1)
	return m
}

// event is one Op, as the model keeps it.
type event struct {
	append       *sample
	claim        Claim
	expire       int64
	remove       message.ID
	park, unpark Due
	updates      []Update
}

// messages are those that the event is about.
func (e *event) messages() []message.ID {
	ids := []message.ID{e.remove, e.park.ID, e.unpark.ID}
	if e.append != nil {
		ids = append(ids, e.append.envelope.ID)
	}
	for _, u := range e.updates {
		ids = append(ids, u.ID)
	}
	return slices.DeleteFunc(ids, func(id message.ID) bool { return id == 0 })
}

func (e *event) String() string {
	var b strings.Builder
	if s := e.append; s != nil {
		fmt.Fprintf(&b, " append %v (%d octets, %d recipients)", s.envelope.ID, s.envelope.Size, len(s.envelope.Recipients))
	}
	if e.claim.Expires != 0 {
		fmt.Fprintf(&b, " claim until %d", e.claim.Expires)
	}
	if e.expire != 0 {
		fmt.Fprintf(&b, " expire %d", e.expire)
	}
	for _, u := range e.updates {
		fmt.Fprintf(&b, " update %v/%d %v after %d, parked %v", u.ID, u.Index, u.State, u.Attempts, u.Parked)
	}
	if e.remove != 0 {
		fmt.Fprintf(&b, " remove %v", e.remove)
	}
	if e.unpark.ID != 0 {
		fmt.Fprintf(&b, " unpark %v at %d", e.unpark.ID, e.unpark.At)
	}
	if e.park.ID != 0 {
		fmt.Fprintf(&b, " park %v at %d", e.park.ID, e.park.At)
	}
	return strings.TrimSpace(b.String())
}

// letter is a message in the model: what came, and what became of it.
type letter struct {
	*sample
	states  []message.Recipient
	noted   []bool // recipients that have a record
	parked  []bool // and whether that says so
	updated bool
}

func (l *letter) settled() bool {
	return !slices.ContainsFunc(l.states, func(r message.Recipient) bool { return !r.State.Settled() })
}

// claimAt is where a claim stands.
type claimAt struct {
	expires int64
	key     ClaimKey
}

// shelf is the state of a shard.
type shelf struct {
	letters map[message.ID]*letter
	due     map[Due]bool
	claims  map[claimAt]message.ID
}

func newShelf() *shelf {
	return &shelf{map[message.ID]*letter{}, map[Due]bool{}, map[claimAt]message.ID{}}
}

func (s *shelf) clone() *shelf {
	c := &shelf{map[message.ID]*letter{}, maps.Clone(s.due), maps.Clone(s.claims)}
	for id, l := range s.letters {
		c.letters[id] = &letter{l.sample, slices.Clone(l.states), slices.Clone(l.noted), slices.Clone(l.parked), l.updated}
	}
	return c
}

// apply does what an Op says.
func (s *shelf) apply(e *event) {
	if a := e.append; a != nil {
		n := len(a.envelope.Recipients)
		s.letters[a.envelope.ID] = &letter{a, slices.Clone(a.envelope.Recipients), make([]bool, n), make([]bool, n), false}
	}
	if e.claim.Expires != 0 {
		s.claims[claimAt{e.claim.Expires, e.claim.Key}] = e.append.envelope.ID
	}
	maps.DeleteFunc(s.claims, func(at claimAt, _ message.ID) bool { return at.expires < e.expire })
	delete(s.due, e.unpark)
	if e.park.ID != 0 {
		s.due[e.park] = true
	}
	for _, u := range e.updates {
		l := s.letters[u.ID]
		r := &l.states[u.Index]
		r.State, r.Attempts, r.Due, r.Late, r.Noticed = u.State, u.Attempts, u.Due, u.Late, u.Noticed
		r.Reply = u.Reply[:min(len(u.Reply), maxReply)]
		l.noted[u.Index], l.parked[u.Index], l.updated = true, u.Parked, true
	}
	delete(s.letters, e.remove)
}

// entry is the entry that a message has in the index, if it has one.
func (s *shelf) entry(id message.ID) (d Due) {
	for e := range s.due {
		if e.ID == id {
			return e
		}
	}
	return d
}

// records counts those that a shard holds, by kind, but for content without an envelope, and messages that were settled in an earlier life.
func (s *shelf) records() map[byte]int {
	n := map[byte]int{kindDue: len(s.due), kindClaim: len(s.claims)}
	for _, l := range s.letters {
		n[kindEnvelope]++
		n[kindChunk] += l.envelope.Chunks
		for _, noted := range l.noted {
			if noted {
				n[kindRecipient]++
			}
		}
	}
	maps.DeleteFunc(n, func(_ byte, n int) bool { return n == 0 })
	return n
}

// sight is what a shard shows: messages that are not settled, the index and the claims.
type sight struct {
	messages map[message.ID]*message.Message
	parked   map[message.ID]bool
	due      map[Due]bool
	claims   map[claimAt]message.ID
}

// differs says in what a message in sight differs from the one in the model, or "".
func (s *shelf) differs(id message.ID, in *sight) string {
	l, m := s.letters[id], in.messages[id]
	if l != nil && l.settled() {
		l = nil
	}
	switch {
	case l == nil && m == nil:
	case l == nil:
		return fmt.Sprintf("%v is there, and was removed, settled, or never completed", id)
	case m == nil:
		return fmt.Sprintf("%v is lost", id)
	default:
		if why := l.differs(m); why != "" {
			return fmt.Sprintf("%v: %s", id, why)
		}
		if parked := slices.Contains(l.parked, true); parked != in.parked[id] {
			return fmt.Sprintf("%v: parked is %v, should be %v", id, in.parked[id], parked)
		}
	}
	for d := range s.due {
		if d.ID == id && !in.due[d] {
			return fmt.Sprintf("%v: its entry at %d is missing in the index", id, d.At)
		}
	}
	for d := range in.due {
		if d.ID == id && !s.due[d] {
			return fmt.Sprintf("%v: it has an entry at %d in the index", id, d.At)
		}
	}
	return ""
}

// differs says in what a message that was read, without its trace header, differs from the model, or "".
func (l *letter) differs(m *message.Message) string {
	want := *l // for the recipients alone
	e := l.envelope
	if !slices.Equal(m.Recipients, want.states) {
		for i := range min(len(m.Recipients), len(want.states)) {
			if m.Recipients[i] != want.states[i] {
				return fmt.Sprintf("recipient %d is %+.200v, should be %+.200v", i, m.Recipients[i], want.states[i])
			}
		}
		return fmt.Sprintf("it has %d recipients, should have %d", len(m.Recipients), len(want.states))
	}
	for _, f := range []struct {
		name      string
		got, want any
	}{
		{"id", m.ID, e.ID}, {"arrival", m.Arrived, e.Arrived}, {"sender", m.From, e.From}, {"flags", m.Flags, e.Flags}, {"size", m.Size, e.Size},
		{"chunks", m.Chunks, e.Chunks}, {"client", m.Client, e.Client}, {"helo", m.Helo, e.Helo}, {"dsn", m.DSN, e.DSN}, {"wishes", m.Wishes, e.Wishes},
		{"user", m.User, e.User}, {"tenant", m.Tenant, e.Tenant}, {"campaign", m.Campaign, e.Campaign},
	} {
		if !reflect.DeepEqual(f.got, f.want) {
			return fmt.Sprintf("%s is %+v, should be %+v", f.name, f.got, f.want)
		}
	}
	return ""
}

// history is what was asked of a shard since it was opened, in order. The shard's WAL has the Ops in this order, so what a crash leaves is a
// beginning of it, which has at least everything up to the last Append that was completed.
type history struct {
	base   *shelf // before all events
	events []*event
	now    *shelf // after all of them

	asked     atomic.Int64 // events handed over
	acked     atomic.Int64 // events up to the last Append that was completed
	completed atomic.Int64 // events that were completed
}

// bounds are how many events of each shard a crash leaves at least, and at most.
type bounds struct {
	of        []*history
	low, high []int64
}

// settle finds out which beginning of the history, of low to high events, is in sight, and makes it the base. Where there is none, it tells in what
// the nearest one differs.
func (h *history) settle(in *sight, low, high int64) (left int64, faults []string) {
	for _, e := range h.events[:low] {
		h.base.apply(e)
	}
	wrong := map[message.ID]string{}
	check := func(id message.ID) {
		if why := h.base.differs(id, in); why != "" {
			wrong[id] = why
		} else {
			delete(wrong, id)
		}
	}
	for id := range h.base.letters {
		check(id)
	}
	for id := range in.messages {
		check(id)
	}
	for _, due := range []map[Due]bool{h.base.due, in.due} {
		for d := range due {
			check(d.ID)
		}
	}
	least := -1
	for k := low; ; k++ {
		claims := maps.Equal(h.base.claims, in.claims)
		if len(wrong) == 0 && claims {
			return k, nil
		}
		if n := len(wrong); least < 0 || n < least {
			least, faults = n, slices.Sorted(maps.Values(wrong))
			if !claims {
				faults = append(faults, fmt.Sprintf("%d claims, should be %d: %v, should be %v", len(in.claims), len(h.base.claims), in.claims, h.base.claims))
			}
			faults = append(faults, fmt.Sprintf("nearest are the first %d of %d to %d events", k, low, high))
		}
		if k == high {
			return k, faults
		}
		h.base.apply(h.events[k])
		for _, id := range h.events[k].messages() {
			check(id)
		}
	}
}
