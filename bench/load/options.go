package load

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"mailrace/bench/ledger"
)

const (
	defaultTimeout  = time.Minute
	defaultGrace    = 30 * time.Second
	defaultInterval = time.Second
	defaultWindow   = 10_000
)

// Options say what is sent, how, and for how long. The zero value of each field means the default that its comment names.
type Options struct {
	Address       string        // host:port of the SMTP server
	Connections   int           // held open at once; default 50
	PerConnection int           // messages sent over a connection before QUIT and the next connection; 0 = unlimited
	Messages      uint64        // transactions to start; 0 = unlimited
	Duration      time.Duration // how long transactions are started, from the first connection that is up on; with Reconnect from the start; 0 = unlimited
	Rate          float64       // transactions per second, due at fixed times whatever the server does (open loop); 0 = as fast as replies come (closed loop)
	Sizes         Sizes         // octets of content; default 10 KiB
	Recipients    int           // of each message, 1..9999; default 1
	Domains       Domains       // of the recipients, in turn; default one
	Zipf          float64       // in place of turns the n-th domain gets a share of the recipients that goes with 1/n to this power, 0..10; 0 = turns
	Sender        string        // reverse-path without brackets; "" is the null reverse-path
	Hello         string        // argument of EHLO; default "load.bench.mailrace"
	LockStep      bool          // one command at a time although the server offers PIPELINING
	Chunking      bool          // content goes by BDAT; a server without CHUNKING and PIPELINING gets nothing
	Dots          bool          // lines of the body begin with dots
	Reconnect     bool          // open a lost connection again, after 10 ms doubling to 1 s; otherwise it stays lost
	Loops         int           // event loops; default 1: one core saturates any server
	Timeout       time.Duration // for each reply; default 60 s
	Grace         time.Duration // how long transactions under way may take to end after the last was started; default 30 s
	From          Addresses     // source addresses of the connections, in turn; default the system's choice
	Hold          bool          // send nothing: connections say EHLO, and then nothing until the end. Not with messages, a rate or a gauge
	Secure                      // TLS and AUTH; default neither

	Run    ledger.RunID // names the run in every Message-ID; default random
	First  uint64       // number of the first message; runs in several parts go on where the last part ended
	Gauge  string       // file in which a sink counts the recipients that arrive; see Window
	Window uint64       // most messages that were sent and have not arrived by the gauge; default 10,000. Not with a Rate
	Record string       // file that the tally of acknowledged recipients is saved to at the end; "" = none

	Acknowledged *ledger.Tally  // counts what was acknowledged; its Run and Recipients must be those above. Default: made when Record is set
	Progress     func(Progress) // called every Interval by one goroutine
	Interval     time.Duration  // default 1 s
	Lines        bool           // with JSON, Command prints the progress as a line each Interval, too
}

// withDefaults checks the options and fills in what is not set.
func (o Options) withDefaults() (Options, error) {
	o.Connections = cmp.Or(o.Connections, 50)
	o.Recipients = cmp.Or(o.Recipients, 1)
	o.Hello = cmp.Or(o.Hello, "load.bench.mailrace")
	o.Loops = cmp.Or(o.Loops, 1)
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Grace = cmp.Or(o.Grace, defaultGrace)
	o.Interval = cmp.Or(o.Interval, defaultInterval)
	if o.Gauge != "" {
		o.Window = cmp.Or(o.Window, defaultWindow)
	}
	if o.Run == 0 {
		o.Run = ledger.NewRunID()
	}
	if len(o.Sizes) == 0 {
		o.Sizes = Sizes{{Octets: 10 << 10, Weight: 1}}
	}
	if len(o.Domains) == 0 {
		o.Domains = Domains{"rcpt.bench.mailrace"}
	}
	if o.Acknowledged == nil && o.Record != "" {
		o.Acknowledged = ledger.NewTally(o.Run, o.Recipients)
	}
	switch _, _, err := net.SplitHostPort(o.Address); {
	case err != nil:
		return o, fmt.Errorf("address: %w", err)
	case o.Connections < 0 || o.PerConnection < 0 || o.Loops < 0:
		return o, errors.New("connections, messages per connection and loops must not be negative")
	case !(o.Zipf >= 0 && o.Zipf <= zipfMost):
		return o, fmt.Errorf("zipf: want a power of 0 to %d", zipfMost)
	case o.Chunking && (o.LockStep || o.Dots):
		return o, errors.New("chunks are sent one behind the other, and octet for octet: no lockstep and no dots with them")
	case o.Rate < 0 || o.Rate > 1e6:
		return o, errors.New("rate: want 0..1000000 messages per second")
	case o.Hold && (o.Messages != 0 || o.Rate > 0 || o.Gauge != ""):
		return o, errors.New("connections that are only held send no messages: no count, rate or gauge with it")
	case o.Gauge == "" && o.Window != 0:
		return o, errors.New("a window needs a gauge")
	case o.Gauge != "" && o.Rate > 0:
		return o, errors.New("a rate is kept whatever arrives: no gauge with it")
	case o.Duration < 0 || o.Timeout < 0 || o.Grace < 0 || o.Interval < 0:
		return o, errors.New("times must not be negative")
	case o.Secure.fault() != nil:
		return o, o.Secure.fault()
	case o.Recipients > ledger.MaxRecipients || o.Recipients < 0:
		return o, fmt.Errorf("recipients: want 1..%d", ledger.MaxRecipients)
	case o.Acknowledged != nil && (o.Acknowledged.Run() != o.Run || o.Acknowledged.Recipients() != o.Recipients):
		return o, errors.New("the tally of acknowledged messages is of another run or number of recipients")
	}
	o.Loops = min(o.Loops, o.Connections)
	return o, nil
}
