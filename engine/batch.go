package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"mailrace/engine/ingress"
	"mailrace/engine/inject"
	"mailrace/engine/loop"
	"mailrace/proto/header"
	"mailrace/proto/message"
	"mailrace/spool"
)

// Bounds of one batch.
const (
	postMax    = 64       // messages that one task brings to a loop: others want to be served between them
	flyingMax  = 1024     // messages between Add and the spool's answer
	flyingSize = 16 << 20 // octets of their content
)

// Batch submits messages that are answered for together. They spread over the loops and the shards, where the group commit serves them all, and
// cost no goroutine each. It implements inject.Batch, belongs to one goroutine, and must be waited for.
type Batch struct {
	node    *Node
	waiting []submissions // for each loop, not posted yet
	begun   bool

	mu      sync.Mutex
	results []inject.Result
	settled []bool
	flying  int // not answered for
	octets  int64
	changed chan struct{} // signalled when that goes down
}

// NewBatch begins a batch. Any goroutine but those of the loops.
func (n *Node) NewBatch() *Batch {
	return &Batch{node: n, waiting: make([]submissions, len(n.lanes)), changed: make(chan struct{}, 1)}
}

// submission is a message of a batch on its way to the spool. It waits there for the spool, and before for others with its key.
type submission struct {
	batch  *Batch
	lane   *lane
	index  int
	m      *message.Message
	claim  spool.Claim
	octets int64 // of the content as it was handed in
}

// submissions are a task for their loop.
type submissions []*submission

// Run begins them in order.
func (s submissions) Run() {
	for _, sub := range s {
		sub.begin()
	}
}

// Add hands a message on. It waits while too many of this batch are on their way.
func (b *Batch) Add(ctx context.Context, m *inject.Mail) {
	n := b.node
	if !b.begun {
		b.begun = true
		n.batches.Add(1)
	}
	index := len(b.results)
	b.mu.Lock()
	b.results, b.settled = append(b.results, inject.Result{}), append(b.settled, false)
	b.flying++
	b.octets += int64(len(m.Content))
	b.mu.Unlock()
	flags, err := checkMail(m, n.cfg.Limits.MessageSize)
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = fmt.Errorf("not queued, the time of the request is over: %w", ctx.Err())
	case !n.ready.Load():
		err = inject.ErrStopping
	case n.budget.Full():
		n.stats.received.NoMemory.Inc()
		err = inject.ErrBusy
	case n.store.Full():
		n.stats.received.NoSpace.Inc()
		err = inject.ErrFull
	}
	if err != nil {
		b.settle(index, int64(len(m.Content)), inject.Result{Err: err})
		return
	}
	a := n.lanes[int(n.turn.Add(1))%len(n.lanes)]
	s := &submission{batch: b, lane: a, index: index}
	var key string
	if s.m, key, err = n.newMessage(n.store.NewID(a.index), m, flags); err != nil {
		b.settle(index, int64(len(m.Content)), inject.Result{Err: err})
		return
	}
	if key != "" {
		if m.Part != "" {
			key += "\x00" + m.Part // a key holds no NUL
		}
		s.claim = n.claims.Of(s.m.Tenant, s.m.User, key, n.clock.Now())
	}
	s.octets = int64(len(m.Content))
	if b.waiting[a.index] = append(b.waiting[a.index], s); len(b.waiting[a.index]) == postMax {
		b.post(a)
	}
	if b.over(flyingMax, flyingSize) {
		b.await(ctx, flyingMax/2, flyingSize/2) // and not for each message again
	}
}

// Wait returns the results in the order of Add. It may be called again, to no effect.
func (b *Batch) Wait(ctx context.Context) []inject.Result {
	b.await(ctx, 0, 0)
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.results {
		if !b.settled[i] {
			b.settled[i] = true // whatever comes now is too late
			b.results[i].Err = inject.ErrUnknown
		}
	}
	if b.begun {
		b.begun = false
		b.node.batches.Add(-1)
	}
	return b.results
}

// over says whether more than so much is on its way.
func (b *Batch) over(flying int, octets int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.flying > flying || b.octets > octets
}

// await returns when no more than so much is on its way, or ctx or the node has ended.
func (b *Batch) await(ctx context.Context, flying int, octets int64) {
	for posted := false; ; {
		if !b.over(flying, octets) {
			return
		}
		if !posted {
			for _, a := range b.node.lanes {
				b.post(a)
			}
			posted = true
			continue
		}
		select {
		case <-b.changed:
		case <-ctx.Done():
			return
		case <-b.node.group.Done(): // nobody is left to answer
			return
		}
	}
}

// post brings what waits for a loop there.
func (b *Batch) post(a *lane) {
	list := b.waiting[a.index]
	if b.waiting[a.index] = nil; len(list) == 0 || a.loop.PostTask(list) {
		return
	}
	for _, s := range list {
		s.fail(loop.ErrGroupClosed)
	}
}

// settle notes the result of a message. Any goroutine.
func (b *Batch) settle(index int, octets int64, r inject.Result) {
	b.mu.Lock()
	if !b.settled[index] {
		b.settled[index], b.results[index] = true, r
	}
	b.flying--
	b.octets -= octets
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// begin takes the message to the spool, unless its key says that it has been there. On the loop.
func (s *submission) begin() {
	if s.claim.Expires == 0 {
		s.store()
		return
	}
	l := s.lane.loop
	first, mine := s.lane.node.claims.Take(s.claim.Key, l.Now(), l, s)
	if mine || first != 0 {
		s.Claimed(first)
	}
}

// Claimed goes on when it is known whose the key is. On the loop.
func (s *submission) Claimed(first message.ID) {
	if first == 0 {
		s.store()
		return
	}
	s.lane.node.stats.received.Repeated.Inc()
	s.m.Release()
	s.batch.settle(s.index, s.octets, inject.Result{ID: first, Repeated: true})
}

func (s *submission) store() {
	op := spool.NewOp()
	op.Append, op.Claim, op.Origin, op.Done = s.m, s.claim, s.lane.index, s
	s.lane.node.store.Enqueue(s.m.ID.Shard(), op)
}

// Completed takes the spool's answer. On the loop.
func (s *submission) Completed(op *spool.Op) {
	err, n := op.Err, s.lane.node
	op.Free()
	if err != nil {
		if s.claim.Expires != 0 {
			n.claims.GiveUp(s.claim.Key)
		}
		n.stats.received.StoreErrors.Inc()
		s.fail(fmt.Errorf("%w (%w)", inject.ErrStore, err))
		return
	}
	if s.claim.Expires != 0 {
		s.claim.ID = s.m.ID
		n.claims.Keep(s.claim)
	}
	n.stats.received.Messages.Inc()
	n.stats.received.Bytes.Add(int(s.m.Size))
	s.batch.settle(s.index, s.octets, inject.Result{ID: s.m.ID})
	s.lane.accepted(s.m)
}

func (s *submission) fail(err error) {
	s.m.Release()
	s.batch.settle(s.index, s.octets, inject.Result{ID: s.m.ID, Err: err})
}

// newMessage builds a message of a Mail that was checked, and returns its key with it.
func (n *Node) newMessage(id message.ID, mail *inject.Mail, flags message.Flags) (m *message.Message, key string, err error) {
	now := n.clock.Now()
	m = &message.Message{
		ID: id, Arrived: now.UnixNano(), From: mail.From, Flags: flags, Helo: n.cfg.Hostname,
		User: mail.User, Tenant: mail.Tenant, Campaign: mail.Campaign, DSN: mail.DSN, Wishes: mail.Wishes, Peer: mail.Client,
	}
	m.Recipients = make([]message.Recipient, len(mail.To))
	for i, address := range mail.To {
		m.Recipients[i] = message.Recipient{Address: address, Notify: mail.Notify}
	}
	m.SetPending(len(m.Recipients))
	key, rest := mail.Key, mail.Content
	if mail.Client.IsValid() {
		if key, rest, err = n.completeMail(m, mail, now); err != nil {
			return nil, "", err
		}
	} else {
		m.Trace = fmt.Appendf(nil, "Received: by %s id %v; %s\r\n", n.cfg.Hostname, id, now.Format(ingress.DateLayout))
	}
	m.Body = n.budget.AppendContent(m.Body, rest, int64(len(rest)))
	for _, c := range m.Body {
		m.Size += int64(len(c.B))
	}
	m.Chunks = len(m.Body)
	m.Hold(1)
	return m, key, nil
}

// completeMail treats mail that came over HTTP as what it is, a submission: its header section is completed, and labels it. It returns the key of
// the message, and the content that is to follow what is in m's Body.
func (n *Node) completeMail(m *message.Message, mail *inject.Mail, now time.Time) (key string, rest []byte, err error) {
	in := ingress.Injection{ID: m.ID, Now: now, From: mail.From, Trusted: true, Tenant: mail.Tenant, MaySend: mail.MaySend}
	if mail.DSN != nil {
		in.EnvelopeID = mail.DSN.EnvelopeID
	}
	head, refusal := n.httpHead.Read(mail.Content, &in)
	if refusal != nil {
		if strings.HasPrefix(refusal.Enhanced, "5.7.") {
			return "", nil, &inject.Denied{Text: refusal.Text}
		}
		return "", nil, errors.New(refusal.Text)
	}
	m.Tenant, m.Campaign = head.Labels[ingress.Tenant], cmp.Or(mail.Campaign, head.Labels[ingress.Campaign])
	rest = mail.Content
	if head.Section != nil {
		_, rest, _ = header.Split(mail.Content)
		m.Body = n.budget.AppendContent(nil, head.Section, int64(len(head.Section)+len(rest)))
	}
	m.Client = mail.Client.Addr().Unmap().WithZone("").String()
	m.Helo = string(ingress.AppendLiteral(nil, mail.Client.Addr()))
	m.Trace = fmt.Appendf(nil, "Received: from %s (%[1]s)\r\n\tby %s with HTTP id %v", m.Helo, n.cfg.Hostname, m.ID)
	if len(mail.To) == 1 {
		m.Trace = fmt.Appendf(m.Trace, "\r\n\tfor <%s>", mail.To[0])
	}
	m.Trace = fmt.Appendf(m.Trace, "; %s\r\n", now.Format(ingress.DateLayout))
	return cmp.Or(mail.Key, head.Labels[ingress.Key]), rest, nil
}
