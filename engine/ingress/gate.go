package ingress

import (
	"log/slog"
	"net/netip"
	"time"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// proxyTimeout is the most time that a trusted proxy has for its header, which it sends at once or not at all.
const proxyTimeout = 10 * time.Second

// gate is what a session waits for before its dialogue begins.
type gate uint8

const (
	gateOpen  gate = iota
	gateProxy      // the header of the proxy in front of the client
	gateDelay      // the moment of the greeting: who talks before it is no mail server
)

// Open begins with the header of the proxy, if the connection comes from one that is trusted with the addresses of clients.
func (s *session) Open(c *loop.Conn) {
	s.room.enter(s)
	s.door.Stats.Connections.Inc()
	s.smtp.Init(s.door.SMTP)
	s.remote = c.Remote()
	if within(s.remote.Addr(), s.door.ProxyFrom) {
		s.gate = gateProxy
		c.SetDeadline(min(s.door.Pace.Command, proxyTimeout))
		return
	}
	s.judge(false)
}

// judge decides what the client may do, whose address is known now, and greets it, or lets it wait for the greeting. A proxy that speaks for
// itself may stay, and relays nothing: who stands behind it is not known.
func (s *session) judge(proxy bool) {
	s.gate = gateOpen
	why := s.assess(proxy)
	s.smtp.AllowXClient(!proxy && within(s.remote.Addr(), s.door.XClientFrom))
	switch {
	case s.room.draining:
		s.end(replyDraining)
		return
	case why != admitted:
		s.end(replyQuota[why])
		return
	}
	if s.door.TLSFirst {
		s.shake(true)
		return
	}
	s.delay()
}

// assess looks up what the client may do, and has it counted. One that is hidden behind somebody we trust may stay, and relays nothing.
func (s *session) assess(hidden bool) verdict {
	client := s.remote.Addr()
	s.hidden = hidden
	s.client, s.relay = client.String(), within(client, s.door.RelayFrom) && !hidden
	s.trusted = s.relay || hidden || within(client, s.door.Exempt)
	if s.ends = (time.Time{}); s.door.Pace.Session > 0 && !s.trusted {
		s.ends = s.conn.Loop().Now().Add(s.door.Pace.Session)
	}
	return s.enter()
}

// become makes the session that of the client that XCLIENT tells of.
func (s *session) become() {
	x := s.smtp.XClient()
	user, ok := s.hearsayUser(x.Login)
	if !ok {
		s.smtp.Refuse(replyNoSuchLogin)
		return
	}
	why, known, moves := admitted, s.user != nil, x.Addr.IsValid() || x.Unknown
	s.forget()
	switch {
	case moves:
		s.leave()
		s.hearsay = true
		if s.remote = netip.AddrPortFrom(s.remote.Addr(), x.Port); !x.Unknown {
			s.remote = netip.AddrPortFrom(x.Addr, x.Port)
		}
		why = s.assess(x.Unknown)
	case x.HasPort:
		s.remote = netip.AddrPortFrom(s.remote.Addr(), x.Port)
	}
	if known && !moves { // nobody in particular, at the same address
		why = s.assess(s.hidden)
	}
	if why == admitted && user != nil && !s.enterUser(user) {
		why = userConnections
	}
	if why != admitted {
		s.smtp.Refuse(replyQuota[why])
		return
	}
	s.smtp.Offer(s.offer())
	s.smtp.Accept()
	s.helo = s.heloText()
}

// delay lets a stranger wait for the greeting, and greets others.
func (s *session) delay() {
	if d := s.door.GreetDelay; d > 0 && !s.trusted {
		s.gate = gateDelay
		s.conn.SetDeadline(d)
		return
	}
	s.greet()
}

// greet begins the dialogue. RFC 5321 §3.1
func (s *session) greet() {
	s.gate = gateOpen
	s.smtp.Greet()
	s.flush()
}

// header reads the header of the proxy. It returns how much of p that took.
func (s *session) header(p []byte) int {
	n, client, err := parseProxy(p)
	switch {
	case err != nil:
		s.room.proxies.log(s.conn.Loop().Now(), s.door.Log, slog.LevelWarn, "connection of a trusted proxy without a proper PROXY header", "proxy", s.remote.String(), "error", err)
		s.door.Stats.BadProxy.Inc()
		s.ending = true
		s.conn.Close()
	case n == 0:
	case client == netip.AddrPort{}:
		s.judge(true)
	default:
		s.remote = client
		s.judge(false)
	}
	return n
}

// early ends a client that did not wait for the greeting. The machine sees to the reply.
func (s *session) early() {
	s.door.Stats.Early.Inc()
	s.room.manners.log(s.conn.Loop().Now(), s.door.Log, slog.LevelInfo, "client talks before the greeting", "client", s.client)
	if s.counted {
		s.door.Clients.add(s.visit, 0, 1, s.conn.Loop().Now())
	}
}

// hasty notes a stranger that did not wait for the reply to a command that ends a group. RFC 2920 §3.1. Mail servers do not do that, but some
// honest clients do: it is no reason to refuse anything.
func (s *session) hasty(ev smtp.Event) {
	if s.trusted || s.hurried {
		return
	}
	s.hurried = true
	s.door.Stats.Hasty.Inc()
	s.room.manners.log(s.conn.Loop().Now(), s.door.Log, slog.LevelInfo, "client does not wait for replies",
		"client", s.client, "helo", s.helo, "command", ev.String())
}
