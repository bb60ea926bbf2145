package ingress

import (
	"encoding/binary"
	"time"

	"mailrace/proto/header"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/spool"
)

const (
	// keepInMemory is the most content of one message that stays in memory for its first delivery. Longer content lives in the spool alone,
	// once it is written.
	keepInMemory = 1 << 20
	// aheadMax is how many streamed chunks of one message may wait for the disk before the client is made to wait, by TCP. It bounds what a
	// fast client holds in memory while the disk is slow.
	aheadMax = 8
)

// transaction is one mail transaction, from MAIL until the store has answered for it. RFC 5321 §3.3
//
// The addresses collect in one arena, so that a transaction costs one string however many recipients it has. The content collects in
// chunks; all but the last go to the store ahead of the envelope. The store answers in the order in which it was asked, so a transaction
// that is given up waits for the answer to its abort, though its session may be gone by then, and frees its memory there.
type transaction struct {
	s       *session
	id      message.ID
	began   time.Time
	arena   []byte
	from    int              // the reverse-path is arena[:from]
	ends    []int            // where each recipient ends in the arena; the first begins at from
	notify  []message.Notify // of each recipient
	dsn     *message.DSN     // nil while the client said nothing of it
	wishes  *message.Wishes  // likewise
	weight  int64            // of the recipients, in octets; see weigh
	counted int64            // octets of them that the budget has given
	size    int64            // as announced with MAIL, 0 if not
	flags   message.Flags
	body    []*message.Chunk
	sent    int  // chunks handed to the store
	stored  int  // chunks the store has answered for
	drop    bool // stored chunks do not stay in memory

	lowered  bool // the priority is not what the client asked for
	priority int8

	// Of the header section.
	head    header.Scanner
	read    int         // chunks that head has read
	grown   int         // octets that the content has gained by what the door did to its header section
	settled bool        // the door's rules are done with it
	refusal *smtp.Reply // of the whole message, whose content is no longer kept

	// Labels, at most 255 octets each; see message.Message.
	tenant, campaign string
	claim            spool.Claim
	key              string // makes a repeated injection known as such, within the tenant; "" = none. At most 255 octets
}

func (tx *transaction) begin(now time.Time, p *smtp.MailParams) {
	tx.began, tx.size, tx.flags = now, p.Size, 0
	tx.arena = append(tx.arena[:0], p.Path...)
	tx.from, tx.ends = len(p.Path), tx.ends[:0]
	if p.SMTPUTF8 {
		tx.flags |= message.SMTPUTF8
	}
	if p.Body == smtp.BodyBinary {
		tx.flags |= message.Binary
	}
	if p.RequireTLS {
		tx.flags |= message.RequireTLS
	}
	tx.notify, tx.dsn = tx.notify[:0], nil
	tx.tenant, tx.campaign, tx.key, tx.claim = "", "", "", spool.Claim{}
	if p.Return != message.ReturnDefault || len(p.EnvID) > 0 {
		tx.dsn = &message.DSN{Return: p.Return, EnvelopeID: string(smtp.AppendDecodedXtext(nil, p.EnvID))}
	}
}

func (tx *transaction) addRecipient(path []byte, p *smtp.RcptParams) {
	tx.arena = append(tx.arena, path...)
	tx.ends = append(tx.ends, len(tx.arena))
	tx.notify = append(tx.notify, p.Notify)
	if len(p.Original) > 0 {
		if tx.dsn == nil {
			tx.dsn = new(message.DSN)
		}
		tx.padOriginals(len(tx.ends) - 1)
		tx.dsn.Originals = append(tx.dsn.Originals, string(smtp.AppendDecodedOriginal(nil, p.Original)))
	}
}

// dropRecipient takes the last one back.
func (tx *transaction) dropRecipient() {
	n := len(tx.ends) - 1
	begin := tx.from
	if n > 0 {
		begin = tx.ends[n-1]
	}
	tx.arena, tx.ends, tx.notify = tx.arena[:begin], tx.ends[:n], tx.notify[:n]
	if tx.dsn != nil {
		tx.dsn.Originals = tx.dsn.Originals[:min(n, len(tx.dsn.Originals))]
	}
}

// padOriginals notes that recipients, up to n of them in all, came without ORCPT.
func (tx *transaction) padOriginals(n int) {
	for len(tx.dsn.Originals) < n {
		tx.dsn.Originals = append(tx.dsn.Originals, "")
	}
}

// addContent takes a span of decoded content. Chunks that are full go to the store, so that a long message is never in memory whole.
func (tx *transaction) addContent(p []byte) {
	if tx.refusal != nil {
		return
	}
	if tx.flags&message.Body8Bit == 0 && has8Bit(p) {
		tx.flags |= message.Body8Bit
	}
	tx.body = tx.s.door.Budget.AppendContent(tx.body, p, tx.size)
	for tx.sent < len(tx.body)-1 && tx.ready(len(tx.body)-1) {
		tx.stream()
	}
}

// stream hands the next chunk to the store, ahead of the envelope.
func (tx *transaction) stream() {
	tx.mint()
	d := tx.s.door
	tx.drop = tx.drop || d.Store.Keeps() && (len(tx.body)*message.ChunkSize > keepInMemory || d.Budget.Tight())
	op := spool.NewOp()
	op.Chunk = spool.Chunk{ID: tx.id, Index: tx.sent + 1, Data: tx.body[tx.sent], Keep: true}
	tx.sent++
	tx.enqueue(op)
}

// mint gives the message its ID, if it has none.
func (tx *transaction) mint() {
	if tx.id == 0 {
		tx.id = tx.s.door.Store.NewID(tx.s.loop())
	}
}

func (tx *transaction) enqueue(op *spool.Op) {
	op.Origin, op.Done = tx.s.loop(), tx
	tx.s.door.Store.Enqueue(tx.id.Shard(), op)
}

// letter is a message with room for the one recipient and the one chunk that nearly all have, in one piece of memory.
type letter struct {
	message   message.Message
	recipient [1]message.Recipient
	body      [1]*message.Chunk
}

// recipients has room for n of them.
func (l *letter) recipients(n int) []message.Recipient {
	if n == len(l.recipient) {
		return l.recipient[:]
	}
	return make([]message.Recipient, n)
}

// content takes the chunks over, and returns what is left of the slice for the next ones.
func (l *letter) content(cs []*message.Chunk) (rest []*message.Chunk) {
	if len(cs) != len(l.body) {
		l.message.Body = cs
		return nil
	}
	l.message.Body = l.body[:]
	copy(l.body[:], cs)
	clear(cs)
	return cs[:0]
}

// commit hands the envelope and what is left of the content to the store.
func (tx *transaction) commit(leadingDots bool, size int64) {
	tx.mint()
	size += int64(tx.grown)
	if leadingDots {
		tx.flags |= message.LeadingDots
	}
	l := &letter{message: message.Message{
		ID: tx.id, Arrived: tx.began.UnixNano(), Flags: tx.flags, Size: size, Chunks: len(tx.body),
		Client: tx.s.client, Peer: tx.s.remote, Helo: tx.s.helo, Stored: tx.sent, DSN: tx.dsn, Wishes: tx.wishes,
		TLSVersion: tx.s.tls.version, TLSCipher: tx.s.tls.cipher, Tenant: tx.tenant, Campaign: tx.campaign,
	}}
	m := &l.message
	if tx.s.user != nil {
		m.User = tx.s.user.Name
	}
	addresses := string(tx.arena)
	m.From = addresses[:tx.from]
	m.Recipients = l.recipients(len(tx.ends))
	begin := tx.from
	for i, end := range tx.ends {
		m.Recipients[i].Address, m.Recipients[i].Notify = addresses[begin:end], tx.notify[i]
		begin = end
	}
	if tx.dsn != nil && len(tx.dsn.Originals) > 0 {
		tx.padOriginals(len(tx.ends))
	}
	tx.dsn, tx.wishes = nil, nil
	m.SetPending(len(m.Recipients))
	m.Trace = tx.s.trace(m)
	m.Hold(1)
	tx.body = l.content(tx.body)
	op := spool.NewOp()
	op.Append, op.Claim = m, tx.claim
	tx.enqueue(op)
}

// abort gives the content up.
func (tx *transaction) abort() {
	if tx.sent == 0 {
		tx.release()
		return
	}
	op := spool.NewOp()
	op.Abort = spool.Removal{ID: tx.id, Chunks: tx.sent}
	tx.enqueue(op)
}

// release frees what the transaction holds, all of which is its own again.
func (tx *transaction) release() {
	message.FreeAll(tx.body)
	clear(tx.body)
	tx.body = tx.body[:0]
	tx.forget()
	tx.id, tx.sent, tx.stored, tx.drop = 0, 0, 0, false
	tx.head, tx.read, tx.grown, tx.settled, tx.refusal = header.Scanner{}, 0, 0, false, nil
}

// Completed takes the store's answer. It is called on the loop that enqueued the operation.
func (tx *transaction) Completed(op *spool.Op) {
	switch {
	case op.Append != nil:
		m, err := op.Append, op.Err
		op.Free()
		tx.committed(m, err)
	case op.Chunk.ID != 0:
		op.Free()
		tx.streamed()
	default:
		op.Free()
		tx.release()
	}
}

// streamed notes that the store has written one more chunk.
func (tx *transaction) streamed() {
	tx.stored++
	for i := 0; tx.drop && i < min(tx.stored, len(tx.body)); i++ {
		if tx.body[i] != nil {
			tx.body[i].Free()
			tx.body[i] = nil
		}
	}
	if tx == tx.s.tx {
		tx.s.caughtUp()
	}
}

func (tx *transaction) committed(m *message.Message, err error) {
	s := tx.s
	if tx.claim.Expires != 0 {
		tx.settleClaim(m.ID, err)
	}
	if tx.sent > 0 && tx.drop {
		message.FreeAll(m.Body)
		m.Body = nil
	}
	tx.release()
	s.committed(m, err)
}

// settleClaim gives the idempotency key to the message, or up.
func (tx *transaction) settleClaim(id message.ID, err error) {
	if err != nil {
		tx.s.door.Claims.GiveUp(tx.claim.Key)
		return
	}
	tx.claim.ID = id
	tx.s.door.Claims.Keep(tx.claim)
}

// has8Bit says whether p holds an octet above 127. What counts on the way is what the content is, not what the client declared: 7-bit mail
// declared as 8-bit goes to every host, and 8-bit mail that was not declared is not sent to hosts that cannot take it. RFC 6152 §3
func has8Bit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 64 {
		b := (*[64]byte)(p)
		lower := binary.LittleEndian.Uint64(b[0:]) | binary.LittleEndian.Uint64(b[8:]) | binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
		upper := binary.LittleEndian.Uint64(b[32:]) | binary.LittleEndian.Uint64(b[40:]) | binary.LittleEndian.Uint64(b[48:]) | binary.LittleEndian.Uint64(b[56:])
		if (lower|upper)&high != 0 {
			return true
		}
		p = p[64:]
	}
	for _, b := range p {
		if b > 127 {
			return true
		}
	}
	return false
}
