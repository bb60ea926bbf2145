package scenario

import (
	"errors"
	"flag"
	"io"
	"os"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/peers"
	"mailrace/bench/sink"
)

// TestPeerAtAnAddress: an MTA that runs already is measured beside ours, with its processes.
func TestPeerAtAnAddress(t *testing.T) {
	s, err := sink.Start(sink.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := options(t)
	r, err := RunPeer(t.Context(), PeerOptions{Program: o.Program, Scenarios: Names{"accept"}, Rounds: 2, Duration: o.Duration, Warmup: o.Warmup,
		Connections: o.Connections, Dir: o.Dir, Address: s.Addr(), PIDs: Processes{os.Getpid()}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Parts) != 1 || len(r.Parts[0].Rounds) != 2 || r.fault() != nil || len(r.Peers) != 1 || r.Peers[0].Version != s.Addr() {
		t.Fatalf("%+v", r)
	}
	for name, m := range r.Parts[0].Median {
		if m.Messages == 0 || m.RSS == 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
	if ratio := r.Parts[0].Ratios[Other]; ratio.Rate.Median <= 0 {
		t.Errorf("%+v", ratio)
	}
}

func TestPeerText(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	r := PeerReport{Connections: 20, Sizes: "10KiB", Recipients: 1, Backlog: 1000, Duration: 5 * time.Second, Peers: []PeerInfo{
		{Name: "one", Version: "1.2", Durable: "it syncs", Tuned: "fast = yes", Held: "on hold", Counted: true}, {Name: Other, Version: "127.0.0.1:25"}}}
	for _, kind := range []Kind{Accept, Relay} {
		p := PeerPart{Kind: kind}
		for _, rate := range []float64{20_000, 21_000, 22_000} {
			one := measureOf(500, 2000, whole)
			one.SyncsPerMessage, one.RSS = 1, 350<<20
			p.Rounds = append(p.Rounds, Round{MTA: measureOf(rate, 40, whole), "one": one, Other: measureOf(1000, 0, whole)})
		}
		r.Parts = append(r.Parts, p)
	}
	r.summarize()
	golden(t, "peer.txt", textOf(t, &r))
	if ratio := r.Parts[1].Ratios["one"]; ratio.Rate.Median != 42 || ratio.Rate.Min != 40 || ratio.PerCPU.Median != 50 || r.fault() != nil {
		t.Errorf("%+v, %v", ratio, r.fault())
	}
	doubled := r.Parts[1].Rounds[0]["one"]
	doubled.Doubled = 1
	r.Parts[1].Rounds[0]["one"] = doubled
	if r.summarize(); !errors.Is(r.fault(), ErrAccounting) {
		t.Error(r.fault())
	}
}

func TestPeerOptions(t *testing.T) {
	parse := func(args ...string) (PeerOptions, error) {
		o := PeerOptions{Program: []string{"x"}}
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		o.BindFlags(fs)
		if err := fs.Parse(args); err != nil {
			return o, err
		}
		return o.withDefaults()
	}
	o, err := parse("--only", "postfix", "--scenarios", "relay", "--size", "1KiB:1,3KiB:1", "--backlog", "7")
	if err != nil || o.Only.String() != "postfix" || o.Connections != 20 || o.options().Backlog != 7*2048 || o.Rounds != 5 {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse("--address", "127.0.0.1:25", "--pid", "9000000,7"); err != nil || len(o.PIDs) != 2 || len(o.Scenarios) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range [][]string{{"--scenarios", "idle"}, {"--scenarios", "relay,relay"}, {"--only", "postfix,postfix"}, {"--only", ""}, {"--pid", "1"},
		{"--pid", "0"}, {"--pid", "x"}, {"--sink-address", "127.0.0.1:26"}, {"--address", "127.0.0.1:25", "--only", "postfix"}, {"--rounds", "-1"}} {
		if o, err := parse(bad...); err == nil {
			t.Errorf("%v was taken: %+v", bad, o)
		}
	}
	o.Only = Names{"nobody"}
	if _, err := RunPeer(t.Context(), o); err == nil {
		t.Error("a peer that nobody knows was taken")
	}
	if _, err := peers.Find(nil); err != nil {
		t.Error(err)
	}
}
