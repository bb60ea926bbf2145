package egress

import (
	"crypto/tls"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
)

// Probe asks a host whether it takes mail for a recipient, by MAIL with the null reverse-path and RCPT, under TLS as the route and the domain say. It ends
// with done, on l, with the reply to RCPT; with a reply of code 0 if the host could be asked and said nothing of the recipient; and with nil if it
// could not be asked within the limit. Called on l.
func (o *Options) Probe(l *loop.Loop, target router.Target, rcpt string, limit time.Duration, done func(*smtp.Reply)) {
	(&probe{opts: o, loop: l, target: target, rcpt: rcpt, ends: l.Now().Add(limit), done: done}).dial()
}

// probe is a connection that asks for one recipient.
type probe struct {
	opts    *Options
	loop    *loop.Loop
	conn    *loop.Conn
	smtp    smtp.Client
	target  router.Target
	rcpt    string
	ends    time.Time
	done    func(*smtp.Reply) // nil once it was called
	inClear bool              // TLS failed with this host, and is not tried
	shaking bool
	secured bool
	reply   *smtp.Reply // to RCPT, or code 0 once the session stands
}

func (p *probe) dial() {
	p.inClear = p.inClear || p.target.TLS == router.TLSOff || p.target.MayBeClear() && p.opts.TLS.clear.has(p.target.Addr, p.loop.Now())
	way := p.opts.way(&p.target)
	way.Timeout = min(way.Timeout, p.left())
	p.loop.Dial(way, p)
}

// left is the time that is left.
func (p *probe) left() time.Duration { return max(p.ends.Sub(p.loop.Now()), time.Millisecond) }

// Open begins the dialogue. All of it has one deadline.
func (p *probe) Open(c *loop.Conn) {
	p.conn = c
	p.smtp.Init(p.opts.protocol(&p.target))
	c.SetDeadline(p.left())
	if p.target.Manner.TLSFirst {
		p.shake()
	}
}

// Data runs the replies.
func (p *probe) Data(c *loop.Conn, b []byte) int {
	done := 0
	for p.done != nil {
		n, ev := p.smtp.Feed(b[done:])
		if done += n; ev == smtp.ClientNeedInput {
			p.flush()
			return done
		}
		p.handle(ev)
	}
	return len(b)
}

func (p *probe) handle(ev smtp.ClientEvent) {
	switch ev {
	case smtp.ClientReady:
		p.ready()
	case smtp.ClientHandshake:
		p.shake()
	case smtp.ClientTLSRefused:
		p.unsecured()
	case smtp.ClientMail: // of a refusal nothing can be learned, and the end follows
	case smtp.ClientRcpt:
		r := p.smtp.Reply()
		p.reply = &smtp.Reply{Code: r.Code, Enhanced: string(r.Enhanced), Text: string(r.Text)}
	default:
		p.end()
	}
}

// ready goes on when EHLO is answered.
func (p *probe) ready() {
	switch {
	case p.secured || p.inClear:
		p.ask()
	case p.smtp.StartTLS(): // ClientHandshake or ClientTLSRefused follows
	default:
		p.unsecured()
	}
}

// unsecured goes on without TLS, where that is allowed.
func (p *probe) unsecured() {
	if !p.target.MayBeClear() {
		p.end()
		return
	}
	p.ask()
}

func (p *probe) ask() {
	p.reply = new(smtp.Reply)
	if err := p.smtp.Probe(p.rcpt); err != nil {
		p.end()
	}
}

func (p *probe) shake() {
	p.shaking = true
	verify := func(state tls.ConnectionState) error {
		if j := p.opts.TLS.judge(&p.target, &state); j != nil && mustVerify(&p.target) {
			return j.fault
		}
		return nil
	}
	p.conn.StartTLS(p.opts.TLS.config(&p.target, true, verify), func() {
		p.shaking, p.secured = false, true
		p.smtp.Secured()
		p.flush()
	})
}

func (p *probe) flush() {
	if b := p.smtp.Pending(); len(b) > 0 && p.done != nil {
		p.conn.Write(b) // its end is told to Closed
		p.smtp.Flushed()
	}
}

// end tells what is known, and closes politely where the host listens.
func (p *probe) end() {
	if p.done == nil {
		return
	}
	done := p.done
	p.done = nil
	if p.conn != nil {
		if p.reply != nil && p.smtp.Quit() {
			p.conn.Write(p.smtp.Pending())
			p.conn.CloseAfterFlush()
		} else {
			p.conn.Close()
		}
	}
	done(p.reply)
}

// Drained has nothing to go on with.
func (p *probe) Drained(*loop.Conn) {}

// Timeout gives up.
func (p *probe) Timeout(c *loop.Conn) {
	p.end()
	c.Close()
}

// Closed gives up, or tries again in clear where TLS failed and that is allowed.
func (p *probe) Closed(c *loop.Conn, err error) {
	if p.shaking && p.done != nil && p.target.MayBeClear() && p.loop.Now().Before(p.ends) {
		p.opts.TLS.clear.add(p.target.Addr, p.loop.Now(), clearFor)
		p.conn, p.shaking = nil, false
		p.dial()
		return
	}
	p.conn = nil
	p.end()
}

var _ loop.Handler = (*probe)(nil)
