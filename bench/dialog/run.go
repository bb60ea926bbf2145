package dialog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Outcome is how a dialog went.
type Outcome string

const (
	Ok         Outcome = "ok"
	Failed     Outcome = "failed"
	NotOffered Outcome = "not offered" // the server does not have what the dialog needs
	TurnedAway Outcome = "turned away" // the server greeted others, and not this session: it limits its clients
)

// Result is what became of one dialog.
type Result struct {
	Name       string   `json:"name"`
	Outcome    Outcome  `json:"result"`
	Reason     string   `json:"reason,omitempty"`
	Notes      []string `json:"notes,omitempty"`
	Transcript []string `json:"transcript,omitempty"` // of a failure
}

// Run has all dialogs with the server. The results stand in the order of the dialogs. An error says that the server could not be asked at all,
// or that ctx ended.
func Run(ctx context.Context, o Options) (*Report, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s, err := ask(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("asking %s what it offers: %w", o.Address, err)
	}
	results := make([]Result, len(o.Dialogs))
	next := make(chan int)
	var workers sync.WaitGroup
	var told sync.Mutex
	for range min(o.Parallel, len(o.Dialogs)) {
		workers.Go(func() {
			for i := range next {
				r := s.run(ctx, &o.Dialogs[i])
				results[i] = r
				if o.Progress != nil {
					told.Lock()
					o.Progress(r)
					told.Unlock()
				}
			}
		})
	}
	for i := range o.Dialogs {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return newReport(&o, s, results, time.Since(began)), nil
}

// session is one dialog under way.
type session struct {
	server     *server
	wire       *wire
	transcript []string
	unsent     []byte // texts of steps in a row
	begun      bool   // something was sent, or a reply taken
}

// turnedAway is the reply in place of a greeting.
type turnedAway string

func (t turnedAway) Error() string { return string(t) }

// run has one dialog.
func (s *server) run(ctx context.Context, d *Dialog) Result {
	r := Result{Name: d.Name, Outcome: NotOffered}
	if r.Reason = s.misses(d); r.Reason != "" {
		return r
	}
	w, behind, err := s.dial(ctx, s.opts.Mode)
	if err != nil {
		r.Outcome, r.Reason = Failed, err.Error()
		return r
	}
	defer w.conn.Close()
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	c := &session{server: s, wire: w}
	err = c.converse(d, behind)
	var without missing
	var away turnedAway
	switch {
	case err == nil:
		r.Outcome = Ok
	case errors.As(err, &without):
		r.Reason = err.Error()
	case errors.As(err, &away):
		r.Outcome, r.Reason = TurnedAway, away.Error()
	default:
		if rest := w.rest(); len(rest) > 0 {
			c.note("S", rest)
		}
		r.Outcome, r.Reason, r.Notes, r.Transcript = Failed, err.Error(), d.Notes, c.transcript
	}
	return r
}

func (c *session) note(who string, octets []byte) {
	c.transcript = append(c.transcript, who+": "+quote(octets))
}

// converse leads up to the dialog's start, takes its steps, and expects no reply behind them.
func (c *session) converse(d *Dialog, behind bool) error {
	first := stageConnect
	if behind {
		first = stageGreeting
	}
	for stage := first; stage < d.start; stage++ {
		if err := c.take(prefix[stage]); err != nil {
			return err
		}
	}
	if err := c.take(d.steps); err != nil {
		return err
	}
	return c.unasked()
}

// unasked finds replies that nobody waits for, as far as they have come.
func (c *session) unasked() error {
	switch r, _, err := c.wire.look(0); {
	case err == nil:
		return fmt.Errorf("nobody asked for %q", r.text())
	case errors.Is(err, errTimeout), errors.Is(err, errClosed):
		return nil
	default:
		return err
	}
}

func (c *session) take(steps []step) error {
	var err error
	for i := range steps {
		s := &steps[i]
		switch s.action {
		case actionSend:
			if c.unsent, err = s.text.expand(c.unsent, c.server.values); err != nil {
				return err
			}
			continue
		case actionHalfClose:
			if err = c.flush(); err == nil {
				c.wire.halfClose()
			}
		case actionExpect:
			if err = c.flush(); err == nil {
				err = c.expect(&s.expect, !awaited(steps[i+1:]))
			}
		}
		switch {
		case err != nil && s.line == 0:
			return fmt.Errorf("before the dialog: %w", err)
		case err != nil:
			return fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	return c.flush()
}

// awaited reports whether a reply must come before the next text.
func awaited(steps []step) bool {
	for i := range steps {
		if steps[i].action != actionExpect {
			return false
		}
		if steps[i].expect.count == one {
			return true
		}
	}
	return false
}

// flush sends the texts that wait.
func (c *session) flush() error {
	if len(c.unsent) == 0 {
		return nil
	}
	if c.begun { // the greeting comes unasked, and may come before the first word of an early talker
		if err := c.unasked(); err != nil {
			return err
		}
	}
	c.note("C", c.unsent)
	c.begun = true
	err := c.wire.send(c.unsent)
	c.unsent = c.unsent[:0]
	return err
}

// expect takes what an expectation takes. last says that nothing behind it must come before the next text: then a reply that need not come
// either is waited for only a moment.
func (c *session) expect(e *expect, last bool) error {
	patience := c.server.opts.Timeout
	if e.nothing || e.count != one && last {
		patience = c.server.opts.Quiet
	}
	for {
		r, n, err := c.wire.look(patience)
		switch {
		case err == nil && e.matches(r):
			c.note("S", []byte(r.text()))
			c.wire.take(n)
			c.begun = true
			if e.count == many {
				continue
			}
			return nil
		case errors.Is(err, errClosed) && e.close:
			c.transcript = append(c.transcript, "closed")
			return nil
		case e.nothing && (errors.Is(err, errTimeout) || errors.Is(err, errClosed)):
			return nil
		case e.count != one && (err == nil || errors.Is(err, errTimeout) && last || errors.Is(err, errClosed)):
			return nil
		case err == nil && !c.begun && r.code[0] >= '4':
			return turnedAway(r.text())
		case err == nil:
			return fmt.Errorf("want %s, got %q", e.source, r.text())
		}
		return fmt.Errorf("want %s: %w", e.source, err)
	}
}
