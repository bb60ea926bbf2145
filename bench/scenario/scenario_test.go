package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	netsmtp "net/smtp"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"mailrace/bench/console"
	"mailrace/bench/load"
	"mailrace/bench/sink"
	"mailrace/bench/zone"
	"mailrace/proto/smtp"
)

// TestMain lets the test binary be the program under test: load and sink are the real ones, serve is a small relay.
func TestMain(m *testing.M) {
	program := map[string]func(context.Context, []string) error{"load": loadMain, "sink": sinkMain, "serve": serveMain}
	if len(os.Args) > 1 && program[os.Args[1]] != nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := program[os.Args[1]](ctx, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // a child built with the race detector would take a second to end
	os.Exit(m.Run())
}

func loadMain(ctx context.Context, args []string) error {
	var o load.Options
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	load.BindFlags(fs, &o)
	out := console.Output{Stdout: os.Stdout, Stderr: os.Stderr}
	fs.BoolVar(&out.JSON, "json", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	return load.Command(ctx, o, out)
}

func sinkMain(ctx context.Context, args []string) error {
	var o sink.Options
	fs := flag.NewFlagSet("sink", flag.ContinueOnError)
	sink.BindFlags(fs, &o)
	out := console.Output{Stdout: os.Stdout, Stderr: os.Stderr}
	fs.BoolVar(&out.JSON, "json", false, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	return sink.Command(ctx, o, out)
}

// serveMain is an MTA of a goroutine per connection that keeps nothing. It says that it syncs for every fourth message, and that it holds what
// it cannot deliver. If the environment asks for it, it loses every tenth.
func serveMain(ctx context.Context, args []string) error {
	text, err := os.ReadFile(args[1]) // --config file
	if err != nil {
		return err
	}
	var cfg struct {
		Listener []struct{ Address string }
		Route    []struct {
			Domains []string
			To      string
		}
		Admin  struct{ Address string }
		Spool  struct{ Path string }
		TLS    struct{ Certificates []struct{ Chain, Key string } }
		Limits struct {
			CommandTimeout string `toml:"command_timeout"`
			RateWindow     string `toml:"rate_window"`
		}
	}
	if err := toml.Unmarshal(text, &cfg); err != nil {
		return err
	}
	if os.Getenv("MTA_FAILS") != "" && cfg.Spool.Path != nullSpool {
		return errors.New("the spool is broken")
	}
	var messages, held atomic.Int64
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		if cfg.Spool.Path != nullSpool {
			fmt.Fprintf(w, "mailrace_spool_syncs_total{shard=\"0\"} %d\nmailrace_spool_flushed_bytes_total 1\nmailrace_spool_compacted_bytes_total 2\n", messages.Load()/4)
			fmt.Fprintf(w, "mailrace_router_recipients{state=\"queued\"} 7\nmailrace_router_recipients{state=\"deferred\"} %d\n", held.Load())
			fmt.Fprintf(w, "mailrace_router_outcomes_total{outcome=\"deferred\"} %d\n", held.Load())
		}
	})
	command, _ := time.ParseDuration(cfg.Limits.CommandTimeout)
	window, _ := time.ParseDuration(cfg.Limits.RateWindow)
	go http.ListenAndServe(cfg.Admin.Address, nil)
	l, err := net.Listen("tcp", cfg.Listener[0].Address)
	if err != nil {
		return err
	}
	var secure *tls.Config
	for _, pair := range cfg.TLS.Certificates {
		c, err := tls.LoadX509KeyPair(pair.Chain, pair.Key)
		if err != nil {
			return err
		}
		secure = &tls.Config{Certificates: []tls.Certificate{c}}
	}
	route := func(rcpt string) (host string, relays bool) {
		for _, r := range cfg.Route[1:] {
			if strings.HasSuffix(rcpt, "@"+r.Domains[0]) {
				return strings.CutPrefix(r.To, "smtp://")
			}
		}
		return strings.CutPrefix(cfg.Route[0].To, "smtp://")
	}
	loses := os.Getenv("MTA_LOSES") != "" && cfg.Spool.Path != nullSpool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if command > 0 {
				c.SetReadDeadline(time.Now().Add(command))
			}
			go session(c, secure, window, func(rcpts []string, content []byte) {
				n := messages.Add(1)
				host, relays := route(rcpts[0])
				if !relays || loses && n%10 == 0 {
					return
				}
				if err := forward(host, rcpts, content); errors.Is(err, syscall.ECONNREFUSED) {
					held.Add(1)
				} else if err != nil {
					panic(err)
				}
			})
		}
	}()
	<-ctx.Done()
	return l.Close()
}

// forward delivers under TLS where that is offered.
func forward(host string, rcpts []string, content []byte) error {
	c, err := netsmtp.Dial(host)
	if err != nil {
		return err
	}
	defer c.Close()
	if ok, _ := c.Extension("STARTTLS"); ok && os.Getenv("MTA_IN_CLEAR") == "" {
		err = c.StartTLS(&tls.Config{InsecureSkipVerify: true})
	}
	err = errors.Join(err, c.Mail("a@b.example"))
	for _, rcpt := range rcpts {
		err = errors.Join(err, c.Rcpt(rcpt))
	}
	w, dataErr := c.Data()
	if err = errors.Join(err, dataErr); err != nil {
		return err
	}
	_, err = w.Write(content)
	return errors.Join(err, w.Close(), c.Quit())
}

func session(c net.Conn, secure *tls.Config, window time.Duration, message func([]string, []byte)) {
	defer c.Close()
	var s smtp.Server
	s.Init(&smtp.ServerConfig{Hostname: "test.example", StartTLS: secure != nil})
	s.Greet()
	var rcpts []string
	var content, in []byte
	buf := make([]byte, 32<<10)
	for {
		c.Write(s.Pending())
		s.Flushed()
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for more := true; more; {
			used, ev := s.Feed(in)
			in = in[used:]
			switch ev {
			case smtp.NeedInput:
				more = false
			case smtp.Mail:
				rcpts, content = nil, nil
			case smtp.Rcpt:
				rcpts = append(rcpts, string(s.Rcpt().Path))
			case smtp.Content:
				content = append(content, s.Content()...)
			case smtp.Data:
				if window > 0 {
					c.SetReadDeadline(time.Now().Add(window))
				}
			case smtp.EndOfData:
				message(rcpts, content)
			case smtp.StartTLS:
				s.Accept()
				c.Write(s.Pending())
				s.Flushed()
				if window > 0 {
					c.SetReadDeadline(time.Now().Add(window))
				}
				c = tls.Server(c, secure)
				if err := c.(*tls.Conn).Handshake(); err != nil {
					return
				}
				c.SetReadDeadline(time.Time{})
				s.Secured()
			case smtp.Quit, smtp.Close:
				c.Write(s.Pending())
				return
			}
			s.Accept()
		}
	}
}

func options(t *testing.T) Options {
	return Options{Program: []string{os.Args[0]}, Rounds: 2, Duration: 100 * time.Millisecond, Warmup: 10 * time.Millisecond,
		Connections: 4, Dir: t.TempDir()}
}

func TestAcceptAndRelay(t *testing.T) {
	for _, kind := range []Kind{Accept, Relay} {
		t.Run(string(kind), func(t *testing.T) {
			o := options(t)
			o.TLS = true
			r, err := Run(t.Context(), kind, o)
			if err != nil {
				t.Fatal(err)
			}
			if r.TLS == nil || r.TLS.Median <= 0 || r.Median[TLS].Messages == 0 {
				t.Errorf("under TLS: %+v, %+v", r.TLS, r.Median[TLS])
			}
			if len(r.Rounds) != 2 || r.Ratio.Median <= 0 || !r.Account.Clean() || r.Account.Acknowledged == 0 {
				t.Errorf("%+v", r)
			}
			for i, c := range r.Ceilings {
				if c.Syncs <= 0 || c.Written <= 0 || c.Loopback <= 0 {
					t.Errorf("round %d: %+v", i+1, c)
				}
			}
			if b := r.Beside[MTA]; len(r.Ceilings) != 2 || len(r.Beside) != 2 || b.Lower.Median <= 0 || b.Syncs.Min <= 0 || b.Loopback.Max <= 0 {
				t.Errorf("%+v", r.Beside)
			}
			for _, round := range r.Rounds {
				m := round[MTA]
				if m.Messages == 0 || m.Rate <= 0 || m.SyncsPerMessage < 0.2 || m.SyncsPerMessage > 0.3 || round[Ceiling].SyncsPerMessage != 0 {
					t.Errorf("%+v", m)
				}
				if kind == Relay && m.Arrived != m.Messages {
					t.Errorf("%d messages, %d arrived", m.Messages, m.Arrived)
				}
			}
			if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestMailInClearIsFoundOut: an MTA that does not go under TLS where it should measures nothing.
func TestMailInClearIsFoundOut(t *testing.T) {
	t.Setenv("MTA_IN_CLEAR", "1")
	o := options(t)
	o.TLS, o.Rounds = true, 1
	if _, err := Run(t.Context(), Relay, o); !errors.Is(err, ErrClearText) {
		t.Errorf("%v", err)
	}
}

// TestOptionsSuitTheScenario: what makes no sense with a scenario is refused.
func TestOptionsSuitTheScenario(t *testing.T) {
	for _, bad := range []struct {
		kind  Kind
		spoil func(*Options)
	}{
		{Accept, func(o *Options) { o.MX = true }},
		{Relay, func(o *Options) { o.TLS, o.Auth = true, true }},
		{Relay, func(o *Options) { o.Address, o.TLS = "127.0.0.1:1", true }},
		{Relay, func(o *Options) { o.Address, o.MX = "127.0.0.1:1", true }},
		{Relay, func(o *Options) { o.MX, o.Domains = true, domainsMost+1 }},
	} {
		o := options(t)
		bad.spoil(&o)
		if _, err := Run(t.Context(), bad.kind, o); err == nil {
			t.Errorf("%s: %+v was taken", bad.kind, o)
		}
	}
}

// TestFarZone: domains have two hosts at the address of their sink, and those of the secure one have the TLSA record of its certificate.
func TestFarZone(t *testing.T) {
	f := farSide{key: zone.KeyRecord([]byte("key"))}
	at := netip.MustParseAddrPort("127.0.0.1:2526")
	for domain, want := range map[string]struct {
		address string
		keys    int
	}{"d7." + clearDomains: {"127.0.0.1", 0}, "d7." + secureDomain: {secureHost, 1}} {
		r, ok := f.records(at, domain)
		if !ok || len(r.MX) != 2 {
			t.Fatalf("%s: %+v, %v", domain, r, ok)
		}
		for _, mx := range r.MX {
			host, ok := f.records(at, mx.Host)
			if !ok || len(host.Addrs) != 1 || host.Addrs[0].String() != want.address {
				t.Errorf("%s: %+v, %v", mx.Host, host, ok)
			}
			if keys, _ := f.records(at, "_2526._tcp."+mx.Host); len(keys.TLSA) != want.keys {
				t.Errorf("%s: %+v", mx.Host, keys)
			}
		}
	}
	for _, name := range []string{"", "_mta-sts.d7." + clearDomains, "mx3.hosts." + clearDomains, "_25._tcp.mx1.hosts." + secureDomain} {
		if r, ok := f.records(at, name); ok {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestAnMTAThatLosesIsFoundOut: the scenario reports what is missing, and the command fails.
func TestAnMTAThatLosesIsFoundOut(t *testing.T) {
	t.Setenv("MTA_LOSES", "1")
	o := options(t)
	o.Rounds, o.Warmup, o.Drain = 1, time.Nanosecond, 500*time.Millisecond
	var stdout, stderr bytes.Buffer
	err := Command(t.Context(), Relay, o, console.Output{JSON: true, Stdout: &stdout, Stderr: &stderr})
	if !errors.Is(err, ErrAccounting) {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var r Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	m := r.Rounds[0][MTA]
	if m.Lost < m.Acknowledged/10-1 || m.Lost > m.Acknowledged/10+1 || m.Arrived+m.Lost != m.Acknowledged || !r.Rounds[0][Ceiling].Clean() {
		t.Errorf("%+v", m)
	}
}

// TestAnMTAThatDoesNotStart: the error holds what it said.
func TestAnMTAThatDoesNotStart(t *testing.T) {
	t.Setenv("MTA_FAILS", "1")
	_, err := Run(t.Context(), Accept, options(t))
	if err == nil || !strings.Contains(err.Error(), "the spool is broken") {
		t.Errorf("%v", err)
	}
}

// TestAnotherMTA is measured by its address and process id.
func TestAnotherMTA(t *testing.T) {
	s, err := sink.Start(sink.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := options(t)
	o.Address, o.PID = s.Addr(), os.Getpid()
	r, err := Run(t.Context(), Accept, o)
	if err != nil {
		t.Fatal(err)
	}
	if m := r.Median[MTA]; m.Messages == 0 || m.SyncsPerMessage != 0 || m.RSSPeak == 0 {
		t.Errorf("%+v", m)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t)
	o.Duration = time.Hour
	o.Progress = nil
	time.AfterFunc(300*time.Millisecond, cancel)
	if _, err := Run(ctx, Accept, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
