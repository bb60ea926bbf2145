package sink

import (
	"slices"
	"time"

	"mailrace/bench/ledger"
	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// session is the dialogue with one client. Its loop alone touches it.
type session struct {
	sink    *Sink
	lane    *lane
	conn    *loop.Conn
	server  smtp.Server
	scanner ledger.Scanner
	rcpts   []rcpt       // accepted in this transaction
	again   bool         // a cap was met, and is looked at once more
	home    *behaviour   // of the address that was connected to
	at      *behaviour   // of the first recipient that was let in, in this transaction; before that nil
	member  []membership // of destinations of the script that count this connection
	begun   uint64       // transactions
	sender  []byte       // of this transaction
	path    []byte       // of the recipient at hand,
	to      smtp.Path    // and its parts
	domain  []byte       // scratch
	file    *storedMessage
	hello   string // argument of EHLO, when messages are stored

	keeps  bool   // the transaction has no sender, and its content is kept in
	notice []byte // as far as it may be a notification

	timer   loop.Timer
	parked  bool // a reply waits for the timer
	verb    Verb // whose reply it is
	shaking bool // the TLS handshake is due or under way
	private bool // it is done
	ended   bool // no more octets are read
}

// rcpt is an accepted forward-path: its index in a numbered message or -1, and its hash for foreign ones.
type rcpt struct {
	index int
	hash  uint64
}

func (s *Sink) newSession(c *loop.Conn) loop.Handler {
	return &session{sink: s, lane: &s.lanes[c.Loop().Index()], home: &s.usual, scanner: ledger.Scanner{NoVerify: s.opts.NoVerify}}
}

// Open begins the dialogue.
func (x *session) Open(c *loop.Conn) {
	x.conn = c
	x.lane.connections.Add(1)
	x.lane.open.Add(1)
	x.server.Init(&x.sink.config)
	c.SetDeadline(x.sink.opts.Timeout)
	if x.sink.opts.TLS == implicitTLS {
		c.StartTLSAtOnce(x.sink.tls, func() {
			x.secured()
			x.welcome()
		})
		return
	}
	x.welcome()
}

// welcome greets, or not.
func (x *session) welcome() {
	if x.sink.stages != nil {
		x.arrive()
	}
	if x.wait(Connect) {
		return
	}
	x.decide(Connect)
	x.flush()
}

// Data feeds what arrived to the machine, until it needs more or a reply has to wait.
func (x *session) Data(c *loop.Conn, p []byte) int {
	c.SetDeadline(x.sink.opts.Timeout)
	n := 0
	for !x.parked && !x.ended && !x.shaking {
		used, ev := x.server.Feed(p[n:])
		n += used
		if ev == smtp.NeedInput {
			break
		}
		x.event(ev)
	}
	if x.ended {
		n = len(p)
	}
	x.flush()
	if x.shaking && !x.ended {
		c.StartTLS(x.sink.tls, x.secured)
	}
	return n
}

func (x *session) event(ev smtp.Event) {
	switch ev {
	case smtp.Hello:
		if x.sink.opts.Store != "" {
			x.hello = string(x.server.HelloName())
		}
		x.answer(Hello)
	case smtp.Mail:
		x.rcpts, x.at = x.rcpts[:0], nil
		x.begun++
		x.sender = append(x.sender[:0], x.server.Mail().Path...)
		x.answer(Mail)
	case smtp.Rcpt:
		x.takeRcpt()
		x.answer(Rcpt)
	case smtp.Data:
		x.answer(Data)
	case smtp.Content:
		if !x.sink.opts.NoCount {
			x.scanner.Content(x.server.Content())
			x.keep(x.server.Content())
		}
		x.file.write(x.server.Content())
	case smtp.EndOfData:
		x.answer(Dot)
	case smtp.StartTLS:
		x.server.Accept()
		x.shaking = true
	case smtp.Reset:
		x.forget()
	case smtp.Quit, smtp.Close:
		x.ended = true
	}
}

// takeRcpt copies the forward-path at hand: the machine's own is gone when the reply has waited.
func (x *session) takeRcpt() {
	p := x.server.Rcpt()
	x.path = append(x.path[:0], p.Path...)
	x.to = smtp.Path{Path: x.path, Local: x.path[:len(p.Local)], Domain: x.path[len(x.path)-len(p.Domain):]}
}

// answer replies to the question at hand, now or when its delay has passed.
func (x *session) answer(v Verb) {
	if !x.wait(v) {
		x.decide(v)
	}
}

// wait parks the session if the reply to v is to be held back.
func (x *session) wait(v Verb) bool {
	d := x.behaviour(v).delay[v]
	if d == 0 {
		return false
	}
	x.park(v, d)
	return true
}

// park holds back the reply to v.
func (x *session) park(v Verb, d time.Duration) {
	x.parked, x.verb = true, v
	x.conn.Pause()
	x.timer.Fire = x.resume
	x.conn.Loop().After(d, &x.timer)
}

// resume gives the reply that was held back.
func (x *session) resume() {
	x.parked = false
	x.decide(x.verb)
	x.flush()
	if x.ended || x.parked {
		return
	}
	x.conn.Resume()
	if x.conn.Kept() == 0 {
		x.Data(x.conn, nil) // the end of a chunk may have come with what was read
	}
}

// decide lets the judge say how v is answered.
func (x *session) decide(v Verb) {
	b := x.behaviour(v)
	if x.sink.stages != nil && x.full(v, b) {
		return
	}
	verdict := b.judge.verdict(v)
	if verdict != accept {
		x.lane.failed[v][verdict-1].Add(1)
		if b.stage != nil {
			b.stage.failed[v][verdict-1].Add(1)
		}
		x.refuse(v, verdict)
		return
	}
	switch v {
	case Connect:
		x.server.Greet()
		return
	case Mail:
		x.beginFile()
	case Rcpt:
		if x.at == nil {
			x.at = b
		}
		x.noteRecipient()
	case Data:
		x.scanner.Reset()
		x.keeps, x.notice = len(x.sender) == 0, x.notice[:0]
		if err := x.openFile(); err != nil {
			x.sink.log.Error("store message", "err", err)
			x.server.Refuse(smtp.Reply{Code: 451, Enhanced: "4.3.0", Text: "Cannot store it"})
			return
		}
	case Dot:
		if err := x.accepted(); err != nil {
			x.sink.log.Error("store message", "err", err)
			x.server.Refuse(smtp.Reply{Code: 451, Enhanced: "4.3.0", Text: "Cannot store it"})
			return
		}
	}
	x.server.Accept()
}

// arrive finds out which destination of the script was connected to.
func (x *session) arrive() {
	if st := x.sink.stages.ofSite(x.conn.Local().Addr().Unmap()); st != nil {
		x.home = &st.behaviour
	}
}

// behaviour is what decides at a verb.
func (x *session) behaviour(v Verb) *behaviour {
	switch {
	case x.sink.stages == nil:
		return x.home
	case v == Rcpt:
		if st := x.sink.stages.ofDomain(x.to.Domain, &x.domain); st != nil {
			return &st.behaviour
		}
	case v > Rcpt && x.at != nil:
		return x.at
	}
	return x.home
}

// secondLook is when a connection beyond a cap is looked at again: the end of another one may be known here only after its successor.
const secondLook = 20 * time.Millisecond

// full answers with a refusal if a cap of a destination, or its greylist, stands against the connection, transaction or recipient at hand.
func (x *session) full(v Verb, b *behaviour) bool {
	st := b.stage
	if st == nil || v != Connect && v != Mail && v != Rcpt {
		return false
	}
	i := slices.IndexFunc(x.member, func(m membership) bool { return m.stage == st })
	if i < 0 {
		m := membership{stage: st, local: x.conn.Local().Addr().Unmap()}
		switch {
		case st.join(m.local, x.again):
		case x.again:
			x.over(v, overConnections)
			return true
		default:
			x.again = true
			x.park(v, secondLook)
			return true
		}
		x.again = false
		i, x.member = len(x.member), append(x.member, m)
	}
	if m := &x.member[i]; v != Connect && m.within != x.begun {
		if over := st.begin(m, x.conn.Loop().Now()); over != within {
			x.over(v, over)
			return true
		}
		m.within = x.begun
	}
	if v == Rcpt && st.greylisted(x.conn.Remote().Addr(), x.sender, x.path, x.conn.Loop().Now()) {
		x.server.Refuse(smtp.Reply{Code: 451, Enhanced: "4.7.1", Text: "Greylisted, says the bench"})
		return true
	}
	return false
}

// over refuses what a cap stands against.
func (x *session) over(v Verb, cap refusal) {
	reply := smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Too many connections, says the bench"}
	switch cap {
	case overMessages:
		reply.Text = "Too many messages in this session, says the bench"
	case overRate:
		x.server.Refuse(smtp.Reply{Code: 451, Enhanced: "4.7.0", Text: "Too many messages in this time, says the bench"})
		return
	}
	if v == Connect {
		x.server.Bye(reply)
	} else {
		x.server.Refuse(reply)
	}
	x.forget()
	x.ended = true
}

// refusals by verdict.
var refusals = [...]smtp.Reply{
	tempfail: {Code: 451, Enhanced: "4.3.0", Text: "Try again later, says the bench"},
	permfail: {Code: 554, Enhanced: "5.0.0", Text: "No, says the bench"},
}

func (x *session) refuse(v Verb, as verdict) {
	if v == Data || v == Dot {
		x.forget()
	}
	switch {
	case as == drop: // what was answered before goes out first: nobody could tell what became of it
		x.ended = true
		if out := x.server.Pending(); len(out) > 0 {
			x.conn.Write(out)
			x.server.Flushed()
		}
		x.leave()
		x.conn.LingerAfterFlush()
	case v == Connect && as == tempfail:
		x.server.Bye(smtp.Reply{Code: 421, Enhanced: "4.3.2", Text: "Not now, says the bench"})
		x.ended = true
	case v == Connect:
		x.server.Bye(refusals[permfail])
		x.ended = true
	default:
		x.server.Refuse(refusals[as])
	}
}

// noteRecipient remembers the forward-path at hand for the end of data.
func (x *session) noteRecipient() {
	r := rcpt{index: ledger.RecipientIndex(x.to.Local)}
	if !x.sink.opts.NoCount {
		r.hash = ledger.HashRecipient(x.path)
	}
	x.rcpts = append(x.rcpts, r)
	x.file.recipient(x.path)
}

// accepted counts a message in that gets its 250 now.
func (x *session) accepted() error {
	if err := x.file.commit(); err != nil {
		return err
	}
	x.file = nil
	if !x.sink.opts.NoCount {
		x.count()
	}
	x.lane.messages.Add(1)
	if !x.private {
		x.lane.inClear.Add(1)
	}
	x.lane.recipients.Add(uint64(len(x.rcpts)))
	if x.sink.gauge != nil {
		x.sink.gauge.Add(uint64(len(x.rcpts)))
	}
	x.lane.octets.Add(uint64(x.server.ContentSize()))
	if x.at != nil && x.at.stage != nil {
		x.at.stage.accepted(len(x.rcpts))
	}
	now := x.conn.Loop().Now().UnixNano()
	if x.lane.first.Load() == 0 {
		x.lane.first.Store(now)
	}
	x.lane.newest.Store(now)
	return nil
}

// count accounts for the message that has just ended.
func (x *session) count() {
	book := x.sink.book
	kind := x.scanner.End()
	switch kind {
	case ledger.Foreign:
		for _, r := range x.rcpts {
			book.Foreign(x.scanner.Hash ^ r.hash)
		}
		x.noteReturned()
		return
	case ledger.Anonymous:
		x.lane.anonymous.Add(1)
		return
	}
	tally := book.Open(x.scanner.Run, x.scanner.Recipients)
	if kind == ledger.Altered {
		x.lane.altered.Add(1)
	}
	if tally == nil {
		return
	}
	if kind == ledger.Altered { // what it says of its stream may be wrong, too
		tally.AddAltered()
	}
	for _, r := range x.rcpts {
		first := false
		if kind == ledger.Altered {
			first = tally.Add(x.scanner.Number, r.index)
		} else {
			first = tally.Arrive(x.scanner.Number, r.index, x.scanner.Stream, r.hash)
		}
		if first {
			x.sink.back.reached(x.scanner.Run, x.scanner.Number, r.index)
		}
	}
}

// forget drops what is held of a transaction.
func (x *session) forget() {
	x.rcpts = x.rcpts[:0]
	x.file.abort()
	x.file = nil
}

// flush writes the replies that are queued, in one piece.
func (x *session) flush() {
	if out := x.server.Pending(); len(out) > 0 {
		x.conn.Write(out)
		x.server.Flushed()
	}
	if x.ended {
		x.leave()
		x.conn.CloseAfterFlush()
	}
}

// Drained is of no interest: replies are small, and a client that reads none meets the loop's outbound limit.
func (x *session) Drained(*loop.Conn) {}

// Timeout ends the session of a silent client.
func (x *session) Timeout(c *loop.Conn) {
	if x.parked {
		c.SetDeadline(x.sink.opts.Timeout)
		return
	}
	x.server.Bye(smtp.Reply{Code: 421, Enhanced: "4.4.2", Text: "Timeout"})
	x.ended = true
	x.flush()
}

// Closed frees what the session holds.
func (x *session) Closed(*loop.Conn, error) {
	x.timer.Stop()
	x.ended = true
	x.forget()
	x.leave()
	x.lane.open.Add(-1)
}

// leave counts the connection out of its destinations: it is over, or we have ended it.
func (x *session) leave() {
	for _, m := range x.member {
		m.stage.leave(m.local)
	}
	x.member = nil
}
