package mx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	suspectAfter = 3 // failures in a row of a server, after which it is put to the test
	impatience   = 4 // a server that gets nowhere has so much less time to answer
	backoffMin   = time.Second
	backoffMax   = time.Minute
)

var (
	errClosed = errors.New("the resolver is closed")
	errBogus  = errors.New("DNSSEC says that this is forged")
	errSilent = errors.New("no answer in time")
	errRcode  = errors.New("no verdict")
)

// server is a name server with its health. One that fails several times in a row is put to the test: it is asked what every server knows, the name
// servers of the root. If it does not tell, it is dead, and left alone until it does, for longer each time. If it does, perhaps the names are
// broken, or its own way to the Internet: it is asked last for a while, and given less time. So one that is dead, or does not get on, costs the lookups nothing.
type server struct {
	addr    netip.AddrPort
	trusted bool // its AD bit is believed

	mu       sync.Mutex
	failures int           // in a row, since it was tested
	testing  bool          // somebody is at that
	alive    bool          // it passed the last test
	backoff  time.Duration // the last one; 0 = it does well
	retry    time.Time     // when it ends

	figures serverFigures
}

func (r *Resolver) newServer(addr netip.AddrPort) *server {
	s := &server{addr: addr, trusted: len(r.opts.Trusted) > 0 && r.opts.trusts(addr)}
	r.registerServer(s)
	return s
}

// state is what can be done with a server.
type state uint8

const (
	inUse      state = iota
	lastResort       // it is asked after the others
	dead             // it is not to be asked now
	onTrial          // the caller is to put it to the test, and to call tested
)

func (s *server) state(now time.Time) state {
	s.mu.Lock()
	defer s.mu.Unlock()
	suspect := s.failures >= suspectAfter
	switch {
	case s.backoff == 0 && (!suspect || s.testing), s.alive && !suspect && !now.Before(s.retry):
		return inUse
	case s.backoff > 0 && (s.testing || now.Before(s.retry)):
		if s.alive {
			return lastResort
		}
		return dead
	}
	s.testing = true
	return onTrial
}

// note counts what became of a question.
func (s *server) note(failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed {
		s.failures++
	} else {
		s.failures, s.backoff = 0, 0
	}
}

// tested ends a trial.
func (s *server) tested(alive bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	back := alive && s.backoff > 0 && !s.alive
	s.testing, s.alive, s.failures = false, alive, 0
	if back {
		s.backoff = 0
		return
	}
	s.backoff = min(max(2*s.backoff, backoffMin), backoffMax)
	s.retry = now.Add(s.backoff)
}

// query asks the servers in turn until one gives a verdict. The reply says NOERROR or NXDOMAIN; its AD bit is set only if that can be believed.
func (r *Resolver) query(name string, qtype uint16) (*dns.Msg, error) {
	var failed error
	for range r.opts.Rounds {
		order, sound := r.inOrder()
		for i, s := range order {
			if r.ending.Err() != nil {
				return nil, errClosed
			}
			timeout := r.opts.Timeout
			if i >= sound {
				timeout /= impatience
			}
			reply, err := r.askServer(s, name, qtype, timeout)
			s.note(err != nil)
			if err == nil {
				return reply, nil
			}
			failed = fmt.Errorf("%s: %w", s.addr, err)
			if errors.Is(err, errBogus) {
				return nil, failed // no other server will say more
			}
		}
	}
	if failed == nil {
		failed = r.allDead()
	}
	return nil, failed
}

// inOrder are the servers to be asked, in this order: those that do well, so many, then those that do not, for which there is less patience.
func (r *Resolver) inOrder() (order []*server, sound int) {
	var later []*server
	for _, s := range r.servers {
		switch r.judge(s) {
		case inUse:
			order = append(order, s)
		case lastResort:
			later = append(later, s)
		}
	}
	return append(order, later...), len(order)
}

// judge is the state of s; one that is on trial is tried at once.
func (r *Resolver) judge(s *server) state {
	is := s.state(r.opts.Now())
	if is != onTrial {
		return is
	}
	m, err := r.exchange(s, ".", dns.TypeNS, r.opts.Timeout)
	alive := err == nil && m.Rcode != dns.RcodeRefused
	s.tested(alive, r.opts.Now())
	if !alive {
		return dead
	}
	return s.state(r.opts.Now())
}

// allDead says that there is nobody to ask.
func (r *Resolver) allDead() error {
	var next time.Time
	for _, s := range r.servers {
		s.mu.Lock()
		if next.IsZero() || s.retry.Before(next) {
			next = s.retry
		}
		s.mu.Unlock()
	}
	return fmt.Errorf("no name server answers: the next attempt is in %v", max(next.Sub(r.opts.Now()), 0).Round(time.Second))
}

// askServer asks one server. What is no verdict is an error.
func (r *Resolver) askServer(s *server, name string, qtype uint16, timeout time.Duration) (*dns.Msg, error) {
	start := time.Now()
	reply, err := r.exchange(s, name, qtype, timeout)
	s.figures.seconds.UpdateDuration(start)
	s.figures.count(reply, err)
	switch {
	case err != nil:
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return nil, errSilent
		}
		return nil, err
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		if bogus(reply) {
			return nil, errBogus
		}
		return nil, fmt.Errorf("%w: %s", errRcode, dns.RcodeToString[reply.Rcode])
	}
	reply.AuthenticatedData = reply.AuthenticatedData && s.trusted
	return reply, nil
}

// bogus says whether a server that gives no verdict says that this is because of DNSSEC. RFC 8914 §4
func bogus(m *dns.Msg) bool {
	opt := m.IsEdns0()
	if m.Rcode != dns.RcodeServerFailure || opt == nil {
		return false
	}
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok && e.InfoCode >= dns.ExtendedErrorCodeDNSBogus && e.InfoCode <= dns.ExtendedErrorCodeNSECMissing {
			return true
		}
	}
	return false
}
