package mtatest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"mailrace/bench/ledger"
)

// Faults are what is wrong with an MTA, in any combination.
type Faults uint8

const (
	Loses       Faults = 1 << iota // messages whose number ends in 3
	Doubles                        // in 4: delivered three times
	Alters                         // in 5: an octet of the body
	Cuts                           // in 6: the last line is missing
	Reorders                       // in 7: held until the next message of the connection is delivered
	AlteredCopy                    // in 8: delivered, and once more with an octet altered
)

// faultNames are what ParseFaults knows.
var faultNames = map[string]Faults{"loses": Loses, "doubles": Doubles, "alters": Alters, "cuts": Cuts, "reorders": Reorders, "altered-copy": AlteredCopy}

// ParseFaults reads a list such as "loses,reorders"; nothing is no fault.
func ParseFaults(text string) (f Faults, err error) {
	for name := range strings.SplitSeq(text, ",") {
		one, ok := faultNames[name]
		if !ok && text != "" {
			return 0, fmt.Errorf("no fault is called %q", name)
		}
		f |= one
	}
	return f, nil
}

// Bad acknowledges all messages and relays them as its faults say. Its methods may be called by any goroutine.
type Bad struct {
	Faults  Faults
	Deliver func(rcpts []string, content []byte) error // to where messages go

	mu   sync.Mutex
	done map[ledger.RunID]ledger.Account
	errs []error
	open sync.WaitGroup // sessions
}

// Done is what it did until now with the mail of each run. It waits for sessions to end, so no more may begin.
func (b *Bad) Done() (map[ledger.RunID]ledger.Account, error) {
	b.open.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.done), errors.Join(b.errs...)
}

// Session begins a connection.
func (b *Bad) Session() Session {
	b.open.Add(1)
	return &badSession{bad: b}
}

// count adds to what was done with a run.
func (b *Bad) count(run ledger.RunID, a ledger.Account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.done == nil {
		b.done = map[ledger.RunID]ledger.Account{}
	}
	b.done[run] = b.done[run].Add(a)
}

// badSession is a connection. At most one message of it is held.
type badSession struct {
	bad  *Bad
	held *heldMessage
}

type heldMessage struct {
	run     ledger.RunID
	rcpts   []string
	content []byte
}

// Message does to a message what its number calls for.
func (s *badSession) Message(rcpts []string, content []byte) {
	var who ledger.Scanner
	who.Reset()
	who.Content(content)
	who.End()
	content = append([]byte("Received: by bad.example\r\n"), content...)
	all := uint64(len(rcpts))
	did := ledger.Account{Acknowledged: all, Arrived: all}
	defer func() { s.bad.count(who.Run, did) }()
	switch fault := s.bad.Faults & numbered(who.Number); {
	case fault == Loses:
		did.Arrived, did.Lost = 0, all
		return
	case fault == Doubles:
		did.Doubled = 2 * all
		s.deliver(rcpts, content, content, content)
	case fault == Alters:
		did.Altered = 1
		s.deliver(rcpts, altered(content))
		return // not intact: what is held would not be behind it
	case fault == Cuts:
		did.Altered = 1
		s.deliver(rcpts, content[:bytes.LastIndexByte(content[:len(content)-2], '\n')+1])
		return
	case fault == Reorders && s.held == nil:
		s.held = &heldMessage{who.Run, rcpts, content}
		return
	case fault == AlteredCopy:
		did.Doubled, did.Altered = all, 1
		s.deliver(rcpts, content, altered(content))
	default:
		s.deliver(rcpts, content)
	}
	if h := s.held; h != nil {
		s.held = nil
		s.deliver(h.rcpts, h.content)
		s.bad.count(h.run, ledger.Account{Reordered: uint64(len(h.rcpts))})
	}
}

// End delivers what is held still: nothing came behind it.
func (s *badSession) End() {
	if s.held != nil {
		s.deliver(s.held.rcpts, s.held.content)
	}
	s.bad.open.Done()
}

// deliver passes copies of a message on.
func (s *badSession) deliver(rcpts []string, copies ...[]byte) {
	for _, content := range copies {
		if err := s.bad.Deliver(rcpts, content); err != nil {
			s.bad.mu.Lock()
			s.bad.errs = append(s.bad.errs, err)
			s.bad.mu.Unlock()
		}
	}
}

// numbered is the fault that a message with that number meets, if the MTA has it.
func numbered(n uint64) Faults {
	if last := n % 10; last >= 3 && last <= 8 {
		return Loses << (last - 3)
	}
	return 0
}

// altered is content with another octet near its end.
func altered(content []byte) []byte {
	other := bytes.Clone(content)
	other[len(other)-10] ^= 1
	return other
}
