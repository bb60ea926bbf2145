package load

import (
	"crypto/tls"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// prelude is what a session says before its client machine begins: EHLO and STARTTLS, and under TLS EHLO and AUTH. It goes step by step, once
// for each connection.
//
// The machine then begins with an EHLO of its own, for a greeting that is made up: one round trip more, and nothing of it is in the way of the
// mail.
type prelude struct {
	parser smtp.ReplyParser
	step   preludeStep
}

// preludeStep is the reply that the prelude waits for.
type preludeStep uint8

const (
	preludeOver     preludeStep = iota // none: the machine has taken over
	preludeGreeting                    // the greeting
	preludeHello                       // to EHLO
	preludeSTARTTLS                    // to STARTTLS, and then the handshake
	preludeAuth                        // to AUTH
)

// wants is the code that each step goes on with.
var wants = [...]int{preludeGreeting: 220, preludeHello: 250, preludeSTARTTLS: 220, preludeAuth: 235}

// beginPrelude is called when a connection is open, and starts TLS if that comes first of all.
func (s *session) beginPrelude(c *loop.Conn) {
	g := s.gen
	s.prelude.parser.Reset()
	s.prelude.step = preludeOver
	if g.opts.TLS == STARTTLS || g.auth != "" {
		s.prelude.step = preludeGreeting
	}
	if g.opts.TLS == ImplicitTLS {
		c.StartTLSAtOnce(g.tls, s.secured)
	}
}

// feedPrelude reads replies until the prelude is over, needs more, or has failed, which ends the connection. It returns how much of p is used
// up; what is left behind a STARTTLS makes the loop close the connection.
func (s *session) feedPrelude(c *loop.Conn, p []byte) (n int) {
	x := &s.prelude
	for x.step != preludeOver && !c.Handshaking() {
		used, done, err := x.parser.Parse(p[n:])
		n += used
		switch {
		case err != nil:
			s.gen.fail(err.Error())
			c.Close()
			return len(p)
		case !done:
			return n
		case x.parser.Reply().Code != wants[x.step]:
			s.gen.fail("server: " + x.parser.Reply().String())
			c.Close()
			return len(p)
		}
		s.nextInPrelude(c)
	}
	return n
}

// nextInPrelude follows the reply that a step waited for.
func (s *session) nextInPrelude(c *loop.Conn) {
	g, x := s.gen, &s.prelude
	_, secured := c.TLS()
	switch x.step {
	case preludeGreeting:
		s.hello(c)
	case preludeHello:
		switch {
		case g.opts.TLS == STARTTLS && !secured:
			x.step = preludeSTARTTLS
			_ = c.Write([]byte("STARTTLS\r\n"))
		case g.auth != "":
			x.step = preludeAuth
			_ = c.Write([]byte(g.auth))
		default:
			s.endPrelude()
		}
	case preludeSTARTTLS:
		c.StartTLS(g.tls, s.secured)
	case preludeAuth:
		s.endPrelude()
	}
}

func (s *session) hello(c *loop.Conn) {
	s.prelude.step = preludeHello
	_ = c.Write([]byte("EHLO " + s.gen.opts.Hello + "\r\n"))
}

// secured goes on when the handshake is done. Under TLS from the start it is the server's turn to greet.
func (s *session) secured() {
	state, _ := s.conn.TLS()
	s.gen.suite.Store(&tlsSuite{tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)})
	if s.prelude.step != preludeSTARTTLS {
		return
	}
	if s.gen.auth != "" {
		s.hello(s.conn)
		return
	}
	s.endPrelude()
}

// endPrelude hands the session over to the machine.
func (s *session) endPrelude() {
	s.prelude.step = preludeOver
	if _, ev := s.client.Feed([]byte("220 \r\n")); !s.event(ev) {
		s.conn.Close()
		return
	}
	s.flush()
}

// tlsSuite is what a handshake ended with.
type tlsSuite struct{ version, cipher string }
