package ingress

import (
	"net/netip"
	"time"

	"mailrace/engine/auth"
	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

// session is one inbound connection: the server machine, the transaction under way, and where the two stand with the store.
type session struct {
	door    *Door
	room    *room
	conn    *loop.Conn
	smtp    smtp.Server
	tx      *transaction
	remote  netip.AddrPort
	client  string // its address in text
	helo    string // as in Received
	tls     security
	relay   bool       // may send anywhere
	trusted bool       // may stay as long and send as much as it likes
	open    bool       // a transaction is under way: MAIL was accepted and the message has not been answered for
	parked  bool       // waits for the store or for what becomes of AUTH, or see asking; the machine has an open question
	choked  bool       // waits for the store to catch up with the content
	clogged bool       // waits for the client to read
	hearsay bool       // the client is one that XCLIENT told of
	hidden  bool       // who the client is is not known
	shaking bool       // the TLS handshake is under way, or due
	ending  bool       // the last reply is queued
	cut     bool       // in the middle of what the client says, who may go on
	gone    bool       // the connection is closed
	inData  bool       // inside Data, which flushes and resumes by itself
	hurried bool       // did not wait for a reply
	user    *auth.User // who is authenticated, or nil
	login   *login     // nil before AUTH
	gate    gate

	floor    floor     // of the content under way
	ends     time.Time // when the session has lasted long enough; zero = never
	messages int       // accepted in this session

	counted    bool  // by the door's Clients
	visit      visit // where, if it is counted
	recipients int   // that the transaction may have
	surplus    int   // recipients over that
	faults     int   // errors that were counted

	asking  bool        // parked for what is known of a sender or recipient, or for the reply to one
	unknown int         // recipients that are not there
	tarpit  *loop.Timer // of that reply; nil before the first
}

// New returns the session for a fresh connection. It is called on the connection's loop.
func (d *Door) New(c *loop.Conn) loop.Handler {
	s := &session{door: d, room: d.rooms[c.Loop().Index()], conn: c}
	s.tx = &transaction{s: s}
	return s
}

func (s *session) loop() int { return s.conn.Loop().Index() }

// replyBurst is how many octets of replies may wait for the end of what was read: a buffer full of small commands would make a megabyte of them.
const replyBurst = 32 << 10

// Data runs the dialogue as far as the bytes go. Replies to them leave in one write, but for very many. RFC 2920 §3.2
func (s *session) Data(c *loop.Conn, p []byte) int {
	done, octets := 0, 0
	if s.gate == gateProxy {
		if done = s.header(p); s.gate == gateProxy {
			return done
		}
	}
	if s.gate == gateDelay && len(p) > done {
		s.early()
	}
	s.inData = true
	for !s.parked && !s.choked && !s.clogged && !s.ending && !s.shaking {
		before := s.smtp.InContent()
		n, ev := s.smtp.Feed(p[done:])
		done += n
		if after := s.smtp.InContent(); before || after {
			octets += n
			if before != after {
				s.floor.turn(c.Loop().Now(), after, !s.open, &s.door.Pace)
			}
		}
		if ev == smtp.NeedInput {
			break
		}
		s.handle(ev)
		if done < len(p) && (ev == smtp.Hello || ev == smtp.Auth || ev == smtp.Data && !s.smtp.Chunked()) {
			s.hasty(ev)
		}
		if len(s.smtp.Pending()) >= replyBurst && !s.ending {
			s.flush() // which notices that the client does not read
		}
	}
	s.inData = false
	s.countFaults()
	if octets > 0 {
		s.floor.add(c.Loop().Now(), octets, &s.door.Pace)
	}
	switch {
	case s.ending:
		done = len(p)
	case s.parked, s.choked, s.clogged:
		s.conn.Pause()
	case s.room.draining && !s.open:
		s.end(replyDraining)
		return len(p)
	case octets == 0 && len(s.smtp.Pending()) == 0: // a part of a line does not move the deadline: the line must come whole in time
		return done
	}
	s.flush()
	if s.shaking && !s.ending {
		s.shake(false)
	}
	return done
}

func (s *session) handle(ev smtp.Event) {
	switch ev {
	case smtp.Hello:
		s.helo = s.heloText()
		s.smtp.Offer(s.offer())
		s.smtp.Accept()
	case smtp.Mail:
		s.mail()
	case smtp.Rcpt:
		s.rcpt()
	case smtp.Data:
		s.floor.begin(s.conn.Loop().Now(), &s.door.Pace)
		s.smtp.Accept()
	case smtp.Content:
		s.tx.addContent(s.smtp.Content())
		s.choked = s.tx.sent-s.tx.stored >= aheadMax
	case smtp.EndOfData:
		s.endOfData()
	case smtp.Auth:
		s.authenticate()
	case smtp.XClient:
		s.become()
	case smtp.StartTLS:
		if s.room.draining {
			s.smtp.Refuse(replyDraining)
			return
		}
		s.smtp.Accept()
		s.shaking = true
	case smtp.Reset:
		s.drop()
	case smtp.Quit, smtp.Close:
		s.drop()
		s.ending, s.cut = true, ev == smtp.Close
	}
}

func (s *session) mail() {
	switch {
	case s.room.draining:
		s.smtp.Refuse(replyDraining)
		return
	case s.overTime():
		s.door.Stats.OverTime.Inc()
		s.smtp.Refuse(replyOverTime)
		return
	case s.door.Pace.Messages > 0 && s.messages >= s.door.Pace.Messages && !s.trusted:
		s.door.Stats.OverMessages.Inc()
		s.smtp.Refuse(replyOverMessages)
		return
	case s.door.Budget.Full():
		s.door.Stats.NoMemory.Inc()
		s.smtp.Refuse(replyNoStorage)
		return
	case s.door.Store.Full():
		s.door.Stats.NoSpace.Inc()
		s.smtp.Refuse(replyNoStorage)
		return
	}
	now, params := s.conn.Loop().Now(), s.smtp.Mail()
	if refusal := s.mayMail(params.Path); refusal != nil {
		s.smtp.Refuse(*refusal)
		return
	}
	wishes, refusal := s.wishes(now, params)
	if refusal.Code != 0 {
		s.smtp.Refuse(refusal)
		return
	}
	if why := s.askMessage(); why != admitted {
		s.smtp.Refuse(replyQuota[why])
		return
	}
	s.open = true
	s.floor.rest = s.door.Pace.Window // for a chunk that is refused: no other begins with it
	s.tx.begin(now, params)
	s.tx.wish(wishes)
	s.tx.lowered, s.tx.priority = wishes.Priority != params.Priority, wishes.Priority
	s.checkSender(params.Domain)
}

func (s *session) rcpt() {
	if !s.relay && !s.door.receives(s.smtp.Rcpt()) {
		s.door.Stats.NoRelay.Inc()
		s.smtp.Refuse(replyNoRelay)
		return
	}
	if !s.tx.weigh(s.smtp.Rcpt().Path, s.smtp.RcptParams()) {
		s.door.Stats.NoMemory.Inc()
		s.smtp.Refuse(replyNoStorage)
		return
	}
	if !s.askRecipient() {
		return
	}
	s.tx.addRecipient(s.smtp.Rcpt().Path, s.smtp.RcptParams())
	s.checkRecipient()
}

// endOfData parks the session until the store has answered. RFC 5321 §4.2.5: with the 250 the responsibility is ours.
func (s *session) endOfData() {
	if refusal := s.tx.finish(); refusal != nil {
		s.door.Stats.BadHeader.Inc()
		s.smtp.Refuse(*refusal)
		s.drop()
		return
	}
	s.parked = true
	if s.tx.key == "" || s.door.Claims == nil || s.claim() {
		s.commit()
	}
}

func (s *session) commit() {
	s.countRecipients()
	s.tx.commit(s.smtp.LeadingDots(), s.smtp.ContentSize())
}

// claim says whether the message is the first with its idempotency key. If it is not, it has been answered for, or will be when the first has been.
func (s *session) claim() bool {
	now := s.conn.Loop().Now()
	user := ""
	if s.user != nil {
		user = s.user.Name
	}
	s.tx.claim = s.door.Claims.Of(s.tx.tenant, user, s.tx.key, now)
	first, mine := s.door.Claims.Take(s.tx.claim.Key, now, s.conn.Loop(), s)
	if first != 0 {
		s.repeated(first)
	}
	return mine
}

// Claimed goes on with a message that waited for the first with its idempotency key.
func (s *session) Claimed(first message.ID) {
	if first == 0 {
		s.commit()
		return
	}
	s.repeated(first)
	if !s.gone {
		s.goOn()
	}
}

// repeated answers as the first message with the same idempotency key was answered, and drops this one.
func (s *session) repeated(first message.ID) {
	s.parked = false
	s.door.Stats.Repeated.Inc()
	s.messages++
	if !s.gone {
		s.smtp.AcceptQueued(first)
	}
	s.drop()
}

// committed answers for a message and goes on with what the client sent meanwhile.
func (s *session) committed(m *message.Message, err error) {
	s.open, s.parked = false, false
	if err != nil {
		s.door.Stats.StoreErrors.Inc()
		m.Release()
	} else {
		s.door.Stats.Messages.Inc()
		s.door.Stats.Bytes.Add(int(m.Size))
	}
	if !s.gone {
		if err != nil {
			s.smtp.Refuse(replyStore)
		} else {
			s.messages++
			s.smtp.AcceptQueued(m.ID)
		}
		s.goOn()
	}
	if err == nil {
		s.door.Accepted(s.conn.Loop(), m)
	}
}

// caughtUp lets the content flow again when the store has written enough of it.
func (s *session) caughtUp() {
	if s.choked && s.tx.sent-s.tx.stored <= aheadMax/2 {
		s.choked = false
		if !s.gone {
			s.floor.begin(s.conn.Loop().Now(), &s.door.Pace) // the wait was ours
			s.goOn()
		}
	}
}

// goOn ends a pause. The bytes that came meanwhile are run first, so that their replies share the write.
func (s *session) goOn() {
	if s.inData {
		return
	}
	if s.room.draining && !s.open && !s.ending {
		s.end(replyDraining)
		return
	}
	if s.clogged { // Drained goes on
		s.flush()
		return
	}
	s.conn.Resume()
	if s.conn.Kept() > 0 {
		return // Data follows, and flushes
	}
	if s.smtp.InContent() {
		s.Data(s.conn, nil) // the end of a chunk may have come with what was read
	}
	s.flush()
}

// drop gives up the transaction under way. Every path that loses a transaction leads here.
func (s *session) drop() {
	if !s.open {
		return
	}
	s.open = false
	s.countRecipients()
	tx := s.tx
	if tx.sent > 0 { // it lives on until the store has answered
		s.tx = &transaction{s: s}
	}
	tx.abort()
}

// flush writes the replies queued so far, and closes behind the last.
func (s *session) flush() {
	if s.gone {
		return
	}
	if p := s.smtp.Pending(); len(p) > 0 {
		err := s.conn.Write(p)
		s.smtp.Flushed()
		if err != nil {
			s.conn.Close()
			return
		}
		if s.conn.Full() && !s.ending { // no more is asked for before this is read
			s.clogged = true
			s.door.Stats.Clogged.Inc()
			s.conn.Pause()
		}
	}
	switch {
	case s.cut:
		s.conn.LingerAfterFlush()
	case s.ending:
		s.conn.CloseAfterFlush()
	default:
		s.arm()
	}
}

// end answers with a 421 and closes.
func (s *session) end(r smtp.Reply) {
	s.drop()
	s.smtp.Bye(r)
	s.ending = true
	if s.shaking || s.door.TLSFirst && s.tls.version == "" { // a reply in clear would be noise
		s.conn.Close()
		return
	}
	s.flush()
}

// Drained goes on with a client that has read its replies.
func (s *session) Drained(*loop.Conn) {
	if s.clogged {
		s.clogged = false
		s.door.Stats.Clogged.Dec()
		s.floor.begin(s.conn.Loop().Now(), &s.door.Pace)
		if !s.parked && !s.choked {
			s.goOn()
		}
	}
}

// Closed forgets the session. A message that is with the store stays accepted whether or not its 250 could be told: RFC 1047.
func (s *session) Closed(*loop.Conn, error) {
	s.gone = true
	if s.clogged {
		s.door.Stats.Clogged.Dec()
	}
	s.room.leave(s)
	defer s.leave()
	defer s.part()
	if s.shaking {
		s.door.Stats.HandshakesFailed.Inc()
	}
	if !s.parked || s.asking {
		s.drop()
	}
	s.leaveRecipient()
}

// quiesce ends the session if it is between messages. Those under way end after their reply.
func (s *session) quiesce() {
	if !s.open && !s.ending {
		s.end(replyDraining)
	}
}

// heloText is the name under which the client stands in our Received header: what it called itself where that is a domain or an address
// literal, so that no name can close the comment or break the line, and its address literal otherwise.
func (s *session) heloText() string {
	if s.smtp.HelloValid() {
		return string(s.smtp.HelloName())
	}
	return string(AppendLiteral(nil, s.remote.Addr()))
}

// trace is the message's Received header.
func (s *session) trace(m *message.Message) []byte {
	t := trace{
		helo: s.helo, client: s.remote.Addr(), hostname: s.door.SMTP.Hostname, protocol: "SMTP", id: m.ID,
		date: s.room.date.at(time.Unix(0, m.Arrived)),
	}
	switch {
	case m.Flags&message.SMTPUTF8 != 0:
		t.protocol = "UTF8SMTP"
	case s.smtp.Extended():
		t.protocol = "ESMTP"
	}
	if t.cipher = s.tls.cipher; t.cipher != "" && t.protocol != "SMTP" { // RFC 3848; there is no SMTPS
		t.protocol += "S"
	}
	if s.user != nil && t.protocol != "SMTP" {
		t.protocol += "A"
	}
	if len(m.Recipients) == 1 {
		t.rcpt = m.Recipients[0].Address
	}
	if m.Wishes != nil {
		t.priority = m.Wishes.Priority
	}
	return t.append(make([]byte, 0, 256))
}
