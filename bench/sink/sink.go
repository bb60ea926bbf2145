// Package sink receives mail and accounts for it: the far end of a bench. It takes everything, or waits, refuses and hangs up in the
// shares that it is told to; it counts duplicates by Message-ID and recipient, and verifies the octets of messages that our generator
// numbered. It runs on the event loops and the server machine that the MTA itself is made of, and any SMTP client may talk to it.
package sink

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"mailrace/bench/gauge"
	"mailrace/bench/ledger"
	"mailrace/bench/proc"
	"mailrace/bench/zone"
	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// Sink is a receiver that listens. Its methods may be called by any goroutine.
type Sink struct {
	opts    Options
	config  smtp.ServerConfig
	tls     *tls.Config // nil = in clear only
	usual   behaviour   // of what no script speaks of
	stages  *stages     // of the script, or nil
	names   *zone.Server
	book    *ledger.Book
	back    notices
	lanes   []lane // by loop
	group   *loop.Group
	gauge   *gauge.Gauge // nil when nobody follows
	address string
	began   time.Time

	cpuBefore time.Duration // of this process, when the sink started
	stored    atomic.Uint64 // messages begun in the store directory
	log       *slog.Logger
}

// Start returns a sink that listens.
func Start(opts Options) (*Sink, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	if opts.Store != "" {
		if err := os.MkdirAll(opts.Store, 0o755); err != nil {
			return nil, fmt.Errorf("sink: %w", err)
		}
	}
	const unlimited = 1 << 30
	s := &Sink{opts: opts, usual: behaviour{opts.Delay, newJudge(opts.Seed, opts.Tempfail, opts.Permfail, opts.Drop), nil}, book: ledger.NewBook(), back: notices{book: ledger.NewBook(), both: map[ledger.RunID]uint64{}}, lanes: make([]lane, opts.Loops), began: time.Now(), cpuBefore: proc.Self().CPU,
		log: slog.Default(),
		config: smtp.ServerConfig{Hostname: opts.Hostname, MaxSize: opts.MaxSize, MaxRecipients: ledger.MaxRecipients,
			MaxErrors: unlimited, MaxCommands: unlimited, NoChunking: opts.NoChunking},
	}
	if s.tls, err = opts.tlsConfig(); err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s.config.StartTLS = opts.TLS == startTLS
	if err := s.stage(); err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	if opts.Gauge != "" {
		if s.gauge, err = gauge.Open(opts.Gauge); err != nil {
			return nil, fmt.Errorf("sink: %w", err)
		}
	}
	s.group, err = loop.Start(loop.Options{Loops: opts.Loops, Listeners: []loop.Listener{{Address: opts.Address, New: s.newSession}}})
	if err != nil {
		s.closeNames()
		return nil, fmt.Errorf("sink: %w", err)
	}
	s.address = s.group.Addr(0).String()
	return s, nil
}

// Addr is the host:port that the sink listens on.
func (s *Sink) Addr() string { return s.address }

// Book holds the tallies of what arrived.
func (s *Sink) Book() *ledger.Book { return s.book }

// Close ends all sessions, saves the record if one was asked for, and returns the last report. It may be called again, by the same goroutine.
func (s *Sink) Close() (Report, error) {
	s.group.Close()
	s.closeNames()
	if s.gauge != nil {
		s.gauge.Close()
		s.gauge = nil
	}
	r := s.Report()
	if s.opts.Record != "" {
		if err := s.book.Save(s.opts.Record); err != nil {
			return r, err
		}
	}
	return r, nil
}

// Names is where DNS is answered until Close; not valid where it is not.
func (s *Sink) Names() netip.AddrPort {
	if s.names == nil {
		return netip.AddrPort{}
	}
	return s.names.Addr()
}

func (s *Sink) closeNames() {
	if s.names != nil {
		s.names.Close()
	}
}

// Run receives until the context ends. listening, if not nil, is called once before.
func Run(ctx context.Context, opts Options, listening func(*Sink)) (Report, error) {
	s, err := Start(opts)
	if err != nil {
		return Report{}, err
	}
	if listening != nil {
		listening(s)
	}
	ticker := time.NewTicker(s.opts.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.Close()
		case <-ticker.C:
			if s.opts.Progress != nil {
				s.opts.Progress(s.Report())
			}
		}
	}
}
