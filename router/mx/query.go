package mx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize  = 1232   // announced by EDNS0: never fragmented. RFC 9715
	udpMost  = 4096   // taken of a server that sends more
	headSize = 12     // RFC 1035 §4.1.1
	chainMax = 16     // CNAMEs that are followed
	flagTC   = 1 << 1 // in octet 2
	flagQR   = 1 << 7 // in octet 2
)

var (
	errNotOurs = errors.New("the reply is not to our question")
	errClosed  = errors.New("the resolver is closed")
	errChain   = errors.New("CNAMEs lead in a circle or too far")
)

// rrset is what DNS has under a name.
type rrset struct {
	rrs    []dns.RR
	exists bool   // the name exists, whether or not it has records of the type
	ttl    uint32 // seconds for which this holds: the least of all that led to it, or that of the negative answer
}

// lookup finds the records of a type under a name, following CNAMEs. An error means that there is no verdict: SERVFAIL, REFUSED, FORMERR,
// timeouts and everything malformed.
func (r *Resolver) lookup(name string, qtype uint16) (rrset, error) {
	set := rrset{ttl: ttlMax}
	for links := 0; links <= chainMax; {
		m, err := r.query(name, qtype)
		if err != nil {
			return rrset{}, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, err)
		}
		start := links
		for links <= chainMax {
			if set.rrs = set.take(m.Answer, name, qtype); len(set.rrs) > 0 {
				set.exists = true
				return set, nil
			}
			target := set.cname(m.Answer, name)
			if target == "" {
				break
			}
			name = target
			links++
		}
		if links > chainMax {
			break
		}
		soa := authority(m)
		if m.Rcode == dns.RcodeNameError || soa != nil || links == start {
			set.exists = m.Rcode != dns.RcodeNameError
			set.ttl = min(set.ttl, negativeTTL(soa))
			return set, nil
		}
		// The server gave the chain only in part: ask for where it ends.
	}
	return rrset{}, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, errChain)
}

// take returns the records of name and type among rrs. Nothing else of a reply is believed: not the additional section, not other names.
func (s *rrset) take(rrs []dns.RR, name string, qtype uint16) (taken []dns.RR) {
	for _, rr := range rrs {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == dns.ClassINET && same(h.Name, name) {
			taken = append(taken, rr)
			s.ttl = min(s.ttl, h.Ttl)
		}
	}
	return taken
}

// cname returns where name leads to, or "".
func (s *rrset) cname(rrs []dns.RR, name string) string {
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET && same(c.Hdr.Name, name) {
			s.ttl = min(s.ttl, c.Hdr.Ttl)
			return strings.ToLower(strings.TrimSuffix(c.Target, "."))
		}
	}
	return ""
}

// same compares a name of a reply with one without trailing dot.
func same(wire, name string) bool {
	return strings.EqualFold(strings.TrimSuffix(wire, "."), name)
}

// authority returns the SOA record of a negative reply, or nil.
func authority(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}

// negativeTTL is for how long a negative reply holds. RFC 2308 §5
func negativeTTL(soa *dns.SOA) uint32 {
	if soa == nil {
		return ttlMin
	}
	return min(soa.Hdr.Ttl, soa.Minttl)
}

// query asks the servers in turn until one gives a verdict, beginning with the one that did last. The reply says NOERROR or NXDOMAIN.
func (r *Resolver) query(name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(udpSize, false)
	first, n := int(r.working.Load()), len(r.opts.Servers)
	var failed error
	for i := range n * r.opts.Rounds {
		if r.ending.Err() != nil {
			return nil, errClosed
		}
		at := (first + i) % n
		m.Id = dns.Id() // from crypto/rand, as the port is the kernel's choice for each socket
		r.figures.queries.Inc()
		reply, err := r.exchange(r.opts.Servers[at], m)
		if err == nil && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("%s says %s", r.opts.Servers[at], dns.RcodeToString[reply.Rcode])
		}
		if err == nil {
			if i > 0 {
				r.working.Store(int32(at))
			}
			return reply, nil
		}
		r.figures.failures.Inc()
		failed = err
	}
	return nil, failed
}

// exchange asks one server over UDP, and again over TCP when the reply is truncated: a partial set is never used. RFC 7766 §5
func (r *Resolver) exchange(server netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	reply, truncated, err := r.exchangeOver("udp", server, m)
	if truncated {
		r.figures.truncated.Inc()
		reply, truncated, err = r.exchangeOver("tcp", server, m)
		if truncated {
			err = errors.New("truncated over TCP")
		}
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return nil, fmt.Errorf("%s did not answer in time", server)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	return reply, nil
}

func (r *Resolver) exchangeOver(network string, server netip.AddrPort, m *dns.Msg) (reply *dns.Msg, truncated bool, err error) {
	question, err := m.Pack()
	if err != nil {
		return nil, false, err
	}
	deadline := time.Now().Add(r.opts.Timeout)
	dialer := net.Dialer{Deadline: deadline}
	conn, err := dialer.DialContext(r.ending, network, server.String())
	if err != nil {
		return nil, false, err
	}
	defer conn.Close()
	defer context.AfterFunc(r.ending, func() { conn.Close() })()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, false, err
	}
	if network == "tcp" {
		return overTCP(conn, question, m)
	}
	return overUDP(conn, question, m)
}

// overUDP waits for the reply to the question, passing over all that is not: it may be late, or forged. The socket is connected, so the kernel
// drops what comes from elsewhere.
func overUDP(conn net.Conn, question []byte, m *dns.Msg) (*dns.Msg, bool, error) {
	if _, err := conn.Write(question); err != nil {
		return nil, false, err
	}
	buf := make([]byte, udpMost)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, false, err
		}
		reply, truncated, err := parse(buf[:n], m)
		if errors.Is(err, errNotOurs) {
			continue
		}
		return reply, truncated, err
	}
}

func overTCP(conn net.Conn, question []byte, m *dns.Msg) (*dns.Msg, bool, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)); err != nil {
		return nil, false, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, false, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, false, err
	}
	return parse(buf, m)
}

// parse reads p as a reply to m. errNotOurs: it is none, for its id, its direction or its question.
func parse(p []byte, m *dns.Msg) (reply *dns.Msg, truncated bool, err error) {
	if len(p) < headSize || binary.BigEndian.Uint16(p) != m.Id || p[2]&flagQR == 0 {
		return nil, false, errNotOurs
	}
	reply = new(dns.Msg)
	if p[2]&flagTC != 0 {
		return nil, true, nil
	}
	if err := reply.Unpack(p); err != nil {
		return nil, false, fmt.Errorf("malformed reply: %w", err)
	}
	if len(reply.Question) != 1 {
		return nil, false, errNotOurs
	}
	q, want := reply.Question[0], m.Question[0]
	if q.Qtype != want.Qtype || q.Qclass != want.Qclass || !strings.EqualFold(q.Name, want.Name) {
		return nil, false, errNotOurs
	}
	return reply, false, nil
}
