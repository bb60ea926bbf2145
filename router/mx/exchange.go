package mx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize  = 1232   // announced by EDNS0: never fragmented. RFC 9715
	udpMost  = 4096   // taken of a server that sends more
	headSize = 12     // RFC 1035 §4.1.1
	flagTC   = 1 << 1 // in octet 2
	flagQR   = 1 << 7 // in octet 2
)

var (
	errNotOurs   = errors.New("the reply is not to our question")
	errMalformed = errors.New("malformed reply")
)

// exchange asks s one question over UDP, and again over TCP when the reply is truncated: a partial set is never used. RFC 7766 §5. A server that
// cannot do EDNS0 is asked without. RFC 6891 §7
func (r *Resolver) exchange(s *server, name string, qtype uint16, timeout time.Duration) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(udpSize, false)
	m.AuthenticatedData = s.trusted // asks for the AD bit, without the signatures. RFC 6840 §5.7
	reply, err := r.exchangeMessage(s, m, timeout)
	if err == nil && reply.IsEdns0() == nil && (reply.Rcode == dns.RcodeFormatError || reply.Rcode == dns.RcodeNotImplemented) {
		m.Extra = nil
		return r.exchangeMessage(s, m, timeout)
	}
	return reply, err
}

func (r *Resolver) exchangeMessage(s *server, m *dns.Msg, timeout time.Duration) (*dns.Msg, error) {
	reply, truncated, err := r.exchangeOver("udp", s, m, timeout)
	if truncated {
		r.figures.truncated.Inc()
		if reply, truncated, err = r.exchangeOver("tcp", s, m, timeout); truncated {
			return nil, fmt.Errorf("%w: truncated over TCP", errMalformed)
		}
	}
	return reply, err
}

// exchangeOver asks over a socket of its own, whose port the kernel picks at random. The id is random, too, and of this try alone.
func (r *Resolver) exchangeOver(network string, s *server, m *dns.Msg, timeout time.Duration) (reply *dns.Msg, truncated bool, err error) {
	m.Id = dns.Id() // seeded by crypto/rand
	question, err := m.Pack()
	if err != nil {
		return nil, false, err
	}
	select {
	case r.sockets <- struct{}{}:
		defer func() { <-r.sockets }()
	case <-r.ending.Done():
		return nil, false, errClosed
	}
	deadline := time.Now().Add(timeout)
	conn, err := r.dial(network, s, deadline)
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

// dial opens a socket to s. One for UDP is there at once, without what a net.Dialer does around it, which costs more than the question.
func (r *Resolver) dial(network string, s *server, deadline time.Time) (net.Conn, error) {
	if network == "udp" {
		conn, err := net.DialUDP(network, nil, net.UDPAddrFromAddrPort(s.addr))
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	dialer := net.Dialer{Deadline: deadline}
	return dialer.DialContext(r.ending, network, s.addr.String())
}

// replyBuffers hold what comes by UDP until it is unpacked, which copies what is used of it.
var replyBuffers = sync.Pool{New: func() any { return new([udpMost]byte) }}

// overUDP waits for the reply to the question, passing over all that is not: it may be late, or forged. The socket is connected, so the kernel
// drops what comes from elsewhere.
func overUDP(conn net.Conn, question []byte, m *dns.Msg) (*dns.Msg, bool, error) {
	if _, err := conn.Write(question); err != nil {
		return nil, false, err
	}
	buf := replyBuffers.Get().(*[udpMost]byte)
	defer replyBuffers.Put(buf)
	for {
		n, err := conn.Read(buf[:])
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
	if p[2]&flagTC != 0 {
		return nil, true, nil
	}
	reply = new(dns.Msg)
	if err := reply.Unpack(p); err != nil {
		return nil, false, fmt.Errorf("%w: %w", errMalformed, err)
	}
	if len(reply.Question) == 0 && reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError {
		return reply, false, nil // a server that could not read the question: no verdict
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
