package ingress

import (
	"bytes"

	"mailrace/proto/header"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

// hopsMax is the number of Received headers at which a message is taken to be in a loop. RFC 5321 §6.3 asks for at least 100 as a default for
// those who only count; Postfix's 50 is what the field uses.
const hopsMax = 50

// ready says whether content may go to the store, of which the first n chunks are full: the header section, if the door's rules ask for it, must
// have come whole, and be as the rules want it. That holds back no more than header.MaxSize octets.
func (tx *transaction) ready(n int) bool {
	if tx.settled {
		return true
	}
	for ; tx.read < n && tx.head.End() == header.Open; tx.read++ {
		tx.head.Scan(tx.body[tx.read].B)
	}
	end := tx.head.End()
	switch {
	case end != header.Open:
		tx.settle()
	case !tx.s.door.Head.reads() && tx.flags&message.Binary == 0:
		return true
	}
	return tx.settled && tx.refusal == nil
}

// finish comes to the end of the content, and says with which reply the message must be refused, or nil.
func (tx *transaction) finish() *smtp.Reply {
	tx.ready(len(tx.body))
	if !tx.settled { // the section goes on to the end of the content
		tx.settle()
	}
	return tx.refusal
}

// settle judges the header section, which has come to its end, and has the door's rules applied.
func (tx *transaction) settle() {
	tx.settled = true
	if tx.refusal = sizeRefusal(tx.head.End()); tx.refusal != nil {
		return
	}
	if tx.head.Hops() >= hopsMax {
		tx.refusal = &replyHops
		return
	}
	if tx.flags&message.Binary != 0 && !tx.headOfLines() {
		tx.refusal = &replyBinaryHead
		return
	}
	if tx.head.TLSOptional() && tx.flags&message.RequireTLS == 0 {
		tx.flags |= message.TLSOptional
	}
	rules := tx.s.door.Head
	if rules == nil {
		if tx.s.user != nil {
			tx.tenant = tx.s.tenant()
		}
		return
	}
	in := Injection{
		Now: tx.began, From: string(tx.arena[:tx.from]), Trusted: tx.s.relay, Tenant: tx.s.tenant(), MaySend: tx.s.maySend(),
	}
	if tx.dsn != nil {
		in.EnvelopeID = tx.dsn.EnvelopeID
	}
	head := rules.label(&in)
	if rules.reads() {
		tx.mint()
		in.ID = tx.id
		if head, tx.refusal = rules.Read(tx.beginning(), &in); tx.refusal != nil {
			return
		}
		if head.Section != nil {
			tx.replace(head.Section)
		}
	}
	tx.tenant, tx.campaign, tx.key = head.Labels[Tenant], head.Labels[Campaign], head.Labels[Key]
}

// headOfLines says whether the header section consists of lines, although the body need not (BINARYMIME): a reader that takes a CR or an LF
// alone for the end of a line would see other fields in it.
func (tx *transaction) headOfLines() bool {
	section := tx.beginning()
	if tx.head.End() != header.Open { // else there is nothing but a section, the last line of which may lack its end
		section = section[:tx.head.Size()]
	}
	var lines smtp.Decoder
	lines.Reset()
	return lines.Take(section) && !bytes.HasSuffix(section, []byte("\r"))
}

// beginning is the header section with what ended it, in one piece.
func (tx *transaction) beginning() []byte {
	switch {
	case len(tx.body) == 0:
		return nil
	case len(tx.body) == 1 || tx.read == 1:
		return tx.body[0].B
	}
	var whole []byte
	for _, c := range tx.body {
		whole = append(whole, c.B...)
	}
	return whole
}

// replace puts another header section in place of the one that the content begins with. All of it is in memory still.
func (tx *transaction) replace(section []byte) {
	budget, old, cut := tx.s.door.Budget, tx.body, tx.head.Size()
	tx.grown = len(section) - cut
	if tx.flags&message.Body8Bit == 0 && has8Bit(section) {
		tx.flags |= message.Body8Bit
	}
	size := 0
	for _, c := range old {
		size += len(c.B)
	}
	tx.body = budget.AppendContent(nil, section, int64(size+tx.grown))
	for _, c := range old {
		n := min(cut, len(c.B))
		cut -= n
		tx.body = budget.AppendContent(tx.body, c.B[n:], 0)
	}
	message.FreeAll(old)
}
