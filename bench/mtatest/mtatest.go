// Package mtatest is a small MTA for tests of the bench: a goroutine for each connection, which keeps nothing. Bad makes it lose, double, alter and
// reorder mail, and counts what it did, so that an account of the mail can be held against it.
package mtatest

import (
	"crypto/tls"
	"net"
	"time"

	"mailrace/proto/smtp"
)

// MTA is how connections are served.
type MTA struct {
	TLS     *tls.Config   // to offer STARTTLS; nil = in clear only
	Command time.Duration // for all that comes before content; 0 = for ever
	Window  time.Duration // for the content of a message, and for a handshake; 0 = for ever
	Session func() Session
}

// Session takes the messages of one connection, one after the other, before each gets its 250. End is called once, when no more come.
type Session interface {
	Message(rcpts []string, content []byte)
	End()
}

// Serve serves the connections of a listener until it is closed. It does not wait for the sessions.
func (m *MTA) Serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go m.serve(c)
	}
}

// dialogue is one connection.
type dialogue struct {
	mta     *MTA
	conn    net.Conn
	server  smtp.Server
	session Session
	rcpts   []string
	content []byte
}

func (m *MTA) serve(c net.Conn) {
	d := dialogue{mta: m, conn: c, session: m.Session()}
	defer func() { d.conn.Close() }()
	defer d.session.End()
	d.within(m.Command)
	d.server.Init(&smtp.ServerConfig{Hostname: "test.example", StartTLS: m.TLS != nil})
	d.server.Greet()
	var in []byte
	buf := make([]byte, 32<<10)
	for {
		d.flush()
		n, err := d.conn.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for more := true; more; {
			used, ev := d.server.Feed(in)
			in = in[used:]
			if more = ev != smtp.NeedInput; more && !d.event(ev) {
				return
			}
		}
	}
}

// event does what the client asks for, and reports whether the connection goes on.
func (d *dialogue) event(ev smtp.Event) bool {
	switch ev {
	case smtp.Mail:
		d.rcpts, d.content = nil, nil
	case smtp.Rcpt:
		d.rcpts = append(d.rcpts, string(d.server.Rcpt().Path))
	case smtp.Data:
		d.within(d.mta.Window)
	case smtp.Content:
		d.content = append(d.content, d.server.Content()...)
	case smtp.EndOfData:
		d.session.Message(d.rcpts, d.content)
	case smtp.StartTLS:
		d.server.Accept()
		return d.secure()
	case smtp.Quit, smtp.Close:
		d.flush()
		return false
	}
	d.server.Accept()
	return true
}

// secure goes on under TLS.
func (d *dialogue) secure() bool {
	d.flush()
	d.within(d.mta.Window)
	secured := tls.Server(d.conn, d.mta.TLS)
	d.conn = secured
	if secured.Handshake() != nil {
		return false
	}
	_ = secured.SetReadDeadline(time.Time{})
	d.server.Secured()
	return true
}

// flush writes the replies that are queued. A client that is gone is noticed when it is read from.
func (d *dialogue) flush() {
	_, _ = d.conn.Write(d.server.Pending())
	d.server.Flushed()
}

// within bounds the time of what comes next.
func (d *dialogue) within(limit time.Duration) {
	if limit > 0 {
		_ = d.conn.SetReadDeadline(time.Now().Add(limit))
	}
}
