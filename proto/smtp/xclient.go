package smtp

import (
	"bytes"
	"net/netip"
	"strconv"
)

// ClientFacts are what XCLIENT says about the client that its sender stands for. What is not said stays as it was. The extension is Postfix's
// (XCLIENT_README); of its attributes NAME, ADDR, PORT, PROTO and HELO are taken, and LOGIN where AUTH is served, as EHLO announces.
type ClientFacts struct {
	Addr    netip.Addr // valid if it was given
	Port    uint16     // with HasPort
	HasPort bool
	Unknown bool   // ADDR is not known to the sender
	Login   string // the user whom the sender has authenticated, or ""
}

// fact is an attribute of XCLIENT.
type fact uint8

const (
	factName fact = 1 << iota
	factAddr
	factPort
	factProto
	factHelo
	factLogin
)

var factNames = []struct {
	name string
	fact fact
}{{"NAME", factName}, {"ADDR", factAddr}, {"PORT", factPort}, {"PROTO", factProto}, {"HELO", factHelo}, {"LOGIN", factLogin}}

// announcedFacts is the line of EHLO.
const announcedFacts = "250-XCLIENT NAME ADDR PORT PROTO HELO"

// AllowXClient says whether the client may use XCLIENT: it is one that may speak for others. Init takes the right away.
func (s *Server) AllowXClient(may bool) { s.speaker.allowed = may }

// speaker is the state of XCLIENT.
type speaker struct {
	allowed  bool
	facts    ClientFacts
	given    fact
	extended bool
	helo     []byte
}

// XClient returns what was said with the XCLIENT at hand.
func (s *Server) XClient() *ClientFacts { return &s.speaker.facts }

// commandXClient takes the facts about a client. It may stand anywhere but in a transaction.
func (s *Server) commandXClient(args []byte) Event {
	switch {
	case !s.speaker.allowed:
		return s.fail(replyNotAuthorized)
	case s.tx.open:
		return s.fail(replyNotNow)
	case len(args) == 0:
		return s.fail(replyArgument)
	}
	if ended := s.count(); ended != NeedInput {
		return ended
	}
	s.speaker = speaker{allowed: true, helo: s.speaker.helo[:0]}
	for len(args) > 0 {
		var word []byte
		word, args, _ = bytes.Cut(args, spaceByte)
		if !s.speaker.take(word) {
			return s.fail(replyParameter)
		}
		args = trimSpaces(args)
	}
	if s.speaker.facts.Login != "" && !s.servesAuth() {
		return s.fail(replyParameter)
	}
	return s.ask(XClient)
}

// take reads one attribute.
func (x *speaker) take(word []byte) bool {
	name, value, ok := bytes.Cut(word, []byte("="))
	if !ok || len(value) == 0 || len(value) > maxOriginal || !validXtext(value) {
		return false
	}
	var buf [maxOriginal]byte
	value = AppendDecodedXtext(buf[:0], value)
	unknown := equalFold(value, "[UNAVAILABLE]") || equalFold(value, "[TEMPUNAVAIL]")
	for _, f := range factNames {
		if !equalFold(name, f.name) {
			continue
		}
		if x.given&f.fact != 0 {
			return false
		}
		x.given |= f.fact
		return unknown && x.unknown(f.fact) || !unknown && x.set(f.fact, value)
	}
	return false
}

// unknown takes an attribute whose value the sender does not have either.
func (x *speaker) unknown(f fact) bool {
	x.facts.Unknown = x.facts.Unknown || f == factAddr
	if f == factHelo {
		x.given &^= factHelo
	}
	return f != factProto
}

func (x *speaker) set(f fact, value []byte) bool {
	switch f {
	case factName:
		return ValidHello(value) // the name is not used: we look names up ourselves where they count
	case factAddr:
		text := value
		if v6, ok := cutPrefixFold(value, "IPV6:"); ok {
			text = v6
		}
		a, err := netip.ParseAddr(string(text))
		x.facts.Addr = a.Unmap()
		return err == nil && a.Zone() == ""
	case factLogin:
		x.facts.Login = string(value)
		return true
	case factPort:
		n, err := strconv.ParseUint(string(value), 10, 16)
		x.facts.Port, x.facts.HasPort = uint16(n), true
		return err == nil
	case factProto:
		x.extended = equalFold(value, "ESMTP")
		return x.extended || equalFold(value, "SMTP")
	}
	x.helo = append(x.helo[:0], value...)
	return true
}

// cutPrefixFold cuts a prefix in capitals off b, in whatever case it stands there.
func cutPrefixFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !equalFold(b[:len(prefix)], prefix) {
		return nil, false
	}
	return b[len(prefix):], true
}

// acceptXClient begins the session anew, for the client that was told of. With HELO it is past its greeting already, with LOGIN past AUTH.
func (s *Server) acceptXClient() {
	x := &s.speaker
	s.greeted, s.hello = x.given&factHelo != 0, nil
	if s.greeted {
		s.hello = x.helo
	}
	if x.given&factProto != 0 {
		s.extended = x.extended
	}
	s.auth.end()
	s.auth.done = x.facts.Login != ""
	s.say("220 ", s.cfg.Hostname, " ESMTP Mailrace\r\n")
}
