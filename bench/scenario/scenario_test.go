package scenario

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	netsmtp "net/smtp"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/mtatest"
	"mailrace/bench/profile"
	"mailrace/bench/sink"
	"mailrace/bench/zone"
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

// serveMain is an MTA that keeps nothing. It says that it syncs for every fourth message, and that it holds what it cannot deliver. If the
// environment asks for it, it has faults, and at its end leaves in a file what it did.
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
	if len(args) > 3 { // --profile-address host:port
		if err := profile.Serve(ctx, args[3]); err != nil {
			return err
		}
	}
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
	faults, err := mtatest.ParseFaults(os.Getenv("MTA_FAULTS"))
	if err != nil {
		return err
	}
	if cfg.Spool.Path == nullSpool {
		faults = 0
	}
	bad := &mtatest.Bad{Faults: faults, Deliver: func(rcpts []string, content []byte) error {
		messages.Add(1)
		host, relays := route(rcpts[0])
		if !relays {
			return nil
		}
		err := forward(host, rcpts, content)
		if errors.Is(err, syscall.ECONNREFUSED) {
			held.Add(1)
			return nil
		}
		return err
	}}
	go (&mtatest.MTA{TLS: secure, Command: command, Window: window, Session: bad.Session}).Serve(l)
	<-ctx.Done()
	deeds := os.Getenv("MTA_DEEDS")
	if deeds == "" || faults == 0 {
		return l.Close()
	}
	runs, err := bad.Done()
	text, encoding := json.Marshal(runs)
	return errors.Join(err, encoding, os.WriteFile(deeds, text, 0o644), l.Close())
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

// TestABadMTAIsFoundOut: the scenario reports what was lost, doubled, altered and reordered, each as often as it was, and the command fails where it
// must not be.
func TestABadMTAIsFoundOut(t *testing.T) {
	for faults, clean := range map[string]bool{"": true, "reorders": true, "loses": false, "doubles": false, "alters,cuts": false,
		"loses,doubles,alters,cuts,reorders,altered-copy": false} {
		t.Run(faults, func(t *testing.T) {
			deeds := filepath.Join(t.TempDir(), "deeds")
			t.Setenv("MTA_FAULTS", faults)
			t.Setenv("MTA_DEEDS", deeds)
			o := options(t)
			o.Rounds, o.Warmup, o.Duration, o.Drain = 1, time.Nanosecond, 300*time.Millisecond, 500*time.Millisecond
			var stdout, stderr bytes.Buffer
			err := Command(t.Context(), Relay, o, console.Output{JSON: true, Stdout: &stdout, Stderr: &stderr})
			if errors.Is(err, ErrAccounting) == clean || clean && err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			var r Report
			if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			if null := r.Rounds[0][Ceiling].Account; !null.Clean() || null.Reordered != 0 {
				t.Errorf("the ceiling: %+v", null)
			}
			got := r.Rounds[0][MTA].Account
			want := []ledger.Account{{Acknowledged: got.Acknowledged, Arrived: got.Acknowledged}}
			if faults != "" {
				want = deedsOf(t, deeds)
			}
			if !slices.Contains(want, got) || got.Acknowledged == 0 {
				t.Errorf("got %+v\ndid one of %+v", got, want)
			}
			note := slices.ContainsFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, "ACCOUNTING") })
			if note == clean {
				t.Errorf("%v", r.Notes)
			}
		})
	}
}

// deedsOf is what a bad MTA did with each run: that of the warmup and the one that was measured.
func deedsOf(t *testing.T, path string) []ledger.Account {
	t.Helper()
	text, err := os.ReadFile(path)
	var runs map[ledger.RunID]ledger.Account
	if err := errors.Join(err, json.Unmarshal(text, &runs)); err != nil {
		t.Fatal(err)
	}
	return slices.Collect(maps.Values(runs))
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
