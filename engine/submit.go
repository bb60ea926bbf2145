package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"mailrace/engine/ingress"
	"mailrace/engine/loop"
	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/spool"
)

// compose makes op append a message that this node itself brings in, and pass it to the router when it is durable.
func (a *lane) compose(op *spool.Op, id message.ID, from string, to []string, flags message.Flags, content []byte) *message.Message {
	now := a.loop.Now()
	m := &message.Message{ID: id, Arrived: now.UnixNano(), From: from, Flags: flags, Size: int64(len(content)), Helo: a.node.cfg.Hostname}
	for _, address := range to {
		m.Recipients = append(m.Recipients, message.Recipient{Address: address})
	}
	m.SetPending(len(to))
	m.Trace = fmt.Appendf(nil, "Received: by %s id %v; %s\r\n", a.node.cfg.Hostname, id, now.Format(ingress.DateLayout))
	m.Body = a.node.budget.AppendContent(nil, content, int64(len(content)))
	m.Chunks = len(m.Body)
	m.Hold(1)
	op.Append, op.Origin, op.Done = m, a.index, composed{a, nil}
	return m
}

// composed waits for the store to answer for a message of our own.
type composed struct {
	lane *lane
	done chan<- error // may be nil
}

// Completed passes the message on.
func (c composed) Completed(op *spool.Op) {
	m, err := op.Append, op.Err
	op.Free()
	if err != nil {
		c.lane.node.log.Error("a message of our own was not stored", "id", m.ID, "error", err)
		m.Release()
	} else {
		c.lane.accepted(m)
	}
	if c.done != nil {
		c.done <- err
	}
}

// Mail is a message for Submit.
type Mail struct {
	From    string   // reverse-path without angle brackets, "" for the null reverse-path
	To      []string // forward-paths without angle brackets, at least one
	Content []byte   // RFC 5322 in wire form: CRLF lines, not dot-stuffed. Submit copies it
}

// Submit takes a message from the program that embeds the node. When it returns without an error, the message is on stable storage, as
// with the 250 of SMTP. If ctx or the node ends first, the message may be taken all the same. Any goroutine but those of the loops.
func (n *Node) Submit(ctx context.Context, mail Mail) (message.ID, error) {
	flags, err := mail.check(n.cfg.Limits.MessageSize)
	if err != nil {
		return 0, err
	}
	if n.budget.Full() {
		return 0, errors.New("memory for mail is used up, try again later")
	}
	a := n.lanes[int(n.turn.Add(1))%len(n.lanes)]
	id, done := n.store.NewID(a.index), make(chan error, 1)
	if !a.loop.Post(func() {
		op := spool.NewOp()
		m := a.compose(op, id, mail.From, mail.To, flags, mail.Content)
		op.Done = composed{a, done}
		a.enqueue(m, op)
	}) {
		return 0, loop.ErrGroupClosed
	}
	select {
	case err := <-done:
		return id, err
	case <-ctx.Done():
		return id, ctx.Err()
	case <-n.group.Done(): // nobody is left to tell
		return id, loop.ErrGroupClosed
	}
}

// check reads the mail as the SMTP server would.
func (m *Mail) check(limit int64) (flags message.Flags, err error) {
	if int64(len(m.Content)) > limit {
		return 0, fmt.Errorf("content of %d octets is over the limit of %d", len(m.Content), limit)
	}
	if len(m.To) == 0 {
		return 0, errors.New("no recipients")
	}
	for i, address := range append([]string{m.From}, m.To...) {
		if i == 0 && address == "" {
			continue
		}
		path, _, err := smtp.ParsePath([]byte("<"+address+">"), true)
		if err != nil || len(path.Path) != len(address) || len(address) == 0 {
			return 0, fmt.Errorf("address %q: %w", address, errors.Join(smtp.ErrPathSyntax, err))
		}
		if !ascii(address) {
			flags |= message.SMTPUTF8 | message.Body8Bit
		}
	}
	if err := checkContent(m.Content); err != nil {
		return 0, err
	}
	if !ascii(m.Content) {
		flags |= message.Body8Bit
	}
	if bytes.HasPrefix(m.Content, []byte(".")) || bytes.Contains(m.Content, []byte("\n.")) {
		flags |= message.LeadingDots
	}
	return flags, nil
}

// checkContent holds content to what comes in by DATA, by way of the one decoder that judges it.
func checkContent(content []byte) error {
	wire, bol := smtp.AppendStuffed(make([]byte, 0, len(content)+64), content, true)
	if !bol {
		return errors.New("content must end with CRLF")
	}
	wire = append(wire, ".\r\n"...)
	var d smtp.Decoder
	d.Reset()
	for {
		n, _, found := d.Decode(wire)
		wire = wire[n:]
		switch found {
		case smtp.DecodedSpan:
		case smtp.DecodedEnd:
			return nil
		default:
			return fmt.Errorf("content must consist of CRLF lines: %v", found)
		}
	}
}

func ascii[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] > 127 {
			return false
		}
	}
	return true
}
