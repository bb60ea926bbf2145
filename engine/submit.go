package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"mailrace/engine/ingress"
	"mailrace/engine/inject"
	"mailrace/proto/header"
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
	op.Append, op.Origin, op.Done = m, a.index, composed{a}
	return m
}

// composed waits for the store to answer for a message of our own.
type composed struct{ lane *lane }

// Completed passes the message on.
func (c composed) Completed(op *spool.Op) {
	m, err := op.Append, op.Err
	op.Free()
	if err != nil {
		c.lane.node.log.Error("a message of our own was not stored", "id", m.ID, "error", err)
		m.Release()
		return
	}
	if p := c.lane.node.pager; p != nil && !p.node.router.Reserve(len(m.Recipients), 0) {
		c.lane.recordReception(m)
		p.node.setAside(m)
		m.Release()
		return
	}
	c.lane.accepted(m)
}

// Mail is a message for Submit.
type Mail = inject.Mail

// Submit takes a message from the program that embeds the node. When it returns without an error, the message is on stable storage, as
// with the 250 of SMTP, or was there before under the same key, and the id is that of the first. If ctx or the node ends before that is known,
// the error is inject.ErrUnknown. Any goroutine but those of the loops. For many messages see NewBatch.
func (n *Node) Submit(ctx context.Context, mail Mail) (message.ID, error) {
	b := n.NewBatch()
	b.Add(ctx, &mail)
	r := b.Wait(ctx)[0]
	return r.ID, r.Err
}

// checkMail reads mail as the SMTP server would.
func checkMail(m *Mail, limit int64) (flags message.Flags, err error) {
	if int64(len(m.Content)) > limit {
		return 0, fmt.Errorf("content of %d octets is over the limit of %d", len(m.Content), limit)
	}
	if len(m.To) == 0 {
		return 0, errors.New("no recipients")
	}
	if m.From != "" {
		if err := checkAddress(m.From); err != nil {
			return 0, err
		}
	}
	eai := m.SMTPUTF8 || !ascii(m.From)
	for _, address := range m.To {
		if err := checkAddress(address); err != nil {
			return 0, err
		}
		eai = eai || !ascii(address)
	}
	if err := checkContent(m.Content); err != nil {
		return 0, err
	}
	if eai {
		flags |= message.SMTPUTF8 | message.Body8Bit
	}
	var head header.Scanner
	head.Scan(m.Content)
	switch {
	case m.RequireTLS:
		flags |= message.RequireTLS
	case head.TLSOptional():
		flags |= message.TLSOptional
	}
	if !ascii(m.Content) {
		flags |= message.Body8Bit
	}
	if bytes.HasPrefix(m.Content, []byte(".")) || bytes.Contains(m.Content, []byte("\n.")) {
		flags |= message.LeadingDots
	}
	return flags, nil
}

func checkAddress(address string) error {
	path, _, err := smtp.ParsePath([]byte("<"+address+">"), true)
	if err != nil || len(path.Path) != len(address) || len(address) == 0 {
		return fmt.Errorf("address %q: %w", address, errors.Join(smtp.ErrPathSyntax, err))
	}
	return nil
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
