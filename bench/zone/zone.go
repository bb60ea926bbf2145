// Package zone is the name server of a bench: it answers for as many names as there are numbers, since what a name has is computed when somebody
// asks. It speaks over UDP on loopback, and vouches for all it says (AD), as a validating resolver on the same machine does.
package zone

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/net/dns/dnsmessage"
)

// MX is a mail exchanger of a domain.
type MX struct {
	Host       string // without a trailing dot
	Preference uint16
}

// Records are what a name has.
type Records struct {
	MX    []MX
	Addrs []netip.Addr // IPv4
	TLSA  [][]byte     // as they stand on the wire, RFC 6698 §2.1
}

// KeyRecord is the TLSA record of a host that shows exactly this public key, in DER form (SubjectPublicKeyInfo). RFC 7671 §5.1
func KeyRecord(publicKey []byte) []byte {
	digest := sha256.Sum256(publicKey)
	return append([]byte{3, 1, 1}, digest[:]...)
}

// Server answers questions until it is closed.
type Server struct {
	find    func(name string) (r Records, exists bool)
	conn    *net.UDPConn
	queries atomic.Uint64
	workers sync.WaitGroup
}

const (
	typeTLSA  = dnsmessage.Type(52)
	ttl       = 3600     // seconds, of everything
	socketBuf = 4 << 20  // octets of questions that wait: a resolver has hundreds under way
	packetMax = 64 << 10 // RFC 768
)

// Serve starts a server at a free port. find says what a name has, which is in lower case and has no trailing dot; several goroutines call it.
func Serve(find func(name string) (r Records, exists bool)) (*Server, error) {
	return ServeAt("127.0.0.1:0", find)
}

// ServeAt starts a server at a host:port.
func ServeAt(address string, find func(name string) (r Records, exists bool)) (*Server, error) {
	at, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	if err := conn.SetReadBuffer(socketBuf); err != nil {
		conn.Close()
		return nil, fmt.Errorf("zone: %w", err)
	}
	s := &Server{find: find, conn: conn}
	for range runtime.GOMAXPROCS(0) {
		s.workers.Go(s.serve)
	}
	return s, nil
}

// Addr is where it is asked.
func (s *Server) Addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

// Queries is how many questions were answered.
func (s *Server) Queries() uint64 { return s.queries.Load() }

// Close ends the server.
func (s *Server) Close() {
	s.conn.Close()
	s.workers.Wait()
}

func (s *Server) serve() {
	in, out := make([]byte, packetMax), make([]byte, 0, 512)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(in)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if reply, err := s.answer(in[:n], out[:0]); err == nil {
			s.queries.Add(1)
			_, _ = s.conn.WriteToUDPAddrPort(reply, from)
		}
	}
}

// answer appends the reply to a question. What cannot be read gets none.
func (s *Server) answer(question, to []byte) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	r, exists := s.find(name)
	reply := dnsmessage.Header{ID: head.ID, Response: true, Authoritative: true, RecursionDesired: head.RecursionDesired, RecursionAvailable: true, AuthenticData: true}
	if !exists && name != "" { // the root is there: resolvers ask for it to see who is alive
		reply.RCode = dnsmessage.RCodeNameError
	}
	b := dnsmessage.NewBuilder(to, reply)
	b.EnableCompression()
	if err := errors.Join(b.StartQuestions(), b.Question(q), b.StartAnswers()); err != nil {
		return nil, err
	}
	answers, err := appendAnswers(&b, &q, &r)
	if err != nil {
		return nil, err
	}
	if answers == 0 {
		if err := denial(&b); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// appendAnswers puts the records of the type that was asked for into the reply, and returns how many they are.
func appendAnswers(b *dnsmessage.Builder, q *dnsmessage.Question, r *Records) (n int, err error) {
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	switch q.Type {
	case dnsmessage.TypeMX:
		for _, mx := range r.MX {
			host, err := dnsmessage.NewName(mx.Host + ".")
			if err != nil {
				return n, err
			}
			if err := b.MXResource(head, dnsmessage.MXResource{Pref: mx.Preference, MX: host}); err != nil {
				return n, err
			}
			n++
		}
	case dnsmessage.TypeA:
		for _, a := range r.Addrs {
			if err := b.AResource(head, dnsmessage.AResource{A: a.As4()}); err != nil {
				return n, err
			}
			n++
		}
	case typeTLSA:
		for _, data := range r.TLSA {
			if err := b.UnknownResource(head, dnsmessage.UnknownResource{Type: typeTLSA, Data: data}); err != nil {
				return n, err
			}
			n++
		}
	}
	return n, nil
}

// denial says for how long there is nothing of the kind. RFC 2308 §3
func denial(b *dnsmessage.Builder) error {
	root := dnsmessage.MustNewName(".")
	return errors.Join(b.StartAuthorities(), b.SOAResource(dnsmessage.ResourceHeader{Name: root, Class: dnsmessage.ClassINET, TTL: ttl},
		dnsmessage.SOAResource{NS: root, MBox: root, Serial: 1, Refresh: ttl, Retry: ttl, Expire: ttl, MinTTL: ttl}))
}
