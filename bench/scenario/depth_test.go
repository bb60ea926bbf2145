package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
)

func depthOptions(t *testing.T, depths ...int) DepthOptions {
	return DepthOptions{Program: options(t).Program, Depths: depths, Rounds: 2, Duration: 50 * time.Millisecond, Warmup: 10 * time.Millisecond,
		Connections: 4, Drain: 500 * time.Millisecond, Dir: t.TempDir()}
}

// TestDepth: every node is filled, takes mail and passes it on in each round, and has its queue at the end.
func TestDepth(t *testing.T) {
	o := depthOptions(t, 0, 3, 50)
	var stdout, stderr bytes.Buffer
	if err := DepthCommand(t.Context(), o, console.Output{JSON: true, Stdout: &stdout, Stderr: &stderr}); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var r DepthReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rounds) != 2 || len(r.Filled) != 3 || len(r.Median) != 3 || r.Account.Acknowledged == 0 || r.Account.Lost != 0 {
		t.Fatalf("%+v", r)
	}
	for i, depth := range o.Depths {
		if f := r.Filled[i]; f.Depth != depth || f.Left != depth || f.RSS == 0 || (f.Rate > 0) != (depth > 0) {
			t.Errorf("%+v", f)
		}
		if r.AcceptRatio[i].Median <= 0 || r.RelayRatio[i].Median <= 0 {
			t.Errorf("%d: %+v, %+v", depth, r.AcceptRatio[i], r.RelayRatio[i])
		}
		for _, round := range r.Rounds {
			if m := round[i]; m.Accept.Messages == 0 || m.Accept.Arrived != 0 || m.Relay.Messages == 0 || m.Relay.Arrived != m.Relay.Messages {
				t.Errorf("%d: %+v", depth, m)
			}
		}
	}
	for _, want := range []string{"filling", "3 of 3 messages", "round 1/2  queue 0          accept", "round 2/2  queue 50         relay"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, stderr.String())
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDepthFaults: a report that shows what must not be is an error, and says what; a low rate is a note.
func TestDepthFaults(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	r := DepthReport{Depths: Depths{0, 1_000_000}, Connections: 200, Sizes: "10KiB", Held: "2KiB", Sync: true, Duration: 5 * time.Second,
		Filled: []Filled{{RSS: 40 << 20, Disk: 70 << 20}, {Depth: 1_000_000, Elapsed: 25 * time.Second, Rate: 40_000, CPU: 20, RSS: 600 << 20, Disk: 3800 << 20, Left: 1_000_000}}}
	for _, share := range []float64{0.9, 0.7, 0.75} {
		r.Rounds = append(r.Rounds, DepthRound{{measureOf(40_000, 20, whole), measureOf(20_000, 40, whole)},
			{measureOf(40_000*share, 25, whole), measureOf(19_000, 41, whole)}})
	}
	r.summarize()
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	golden(t, "depth.txt", textOf(t, &r))

	lost := r.Rounds[1][1].Relay
	lost.Lost = 1
	r.Rounds[1][1].Relay, r.Filled[1].Left = lost, 999_999
	r.Median, r.AcceptRatio, r.RelayRatio, r.Notes, r.Account = nil, nil, nil, nil, ledger.Account{}
	r.summarize()
	for _, want := range []error{ErrAccounting, ErrHeld} {
		if err := r.fault(); !errors.Is(err, want) {
			t.Errorf("%v is not in %v", want, err)
		}
	}
	for _, want := range []string{"ACCOUNTING: 1 lost", "QUEUE: filled with 1000000 messages, and it has 999999 at the end"} {
		if !strings.Contains(strings.Join(r.Notes, "\n"), want) {
			t.Errorf("no %q in %q", want, r.Notes)
		}
	}
}

// TestAQueueThatDoesNotFill: an MTA that keeps no mail for later is found out, and what it said is in the error.
func TestAQueueThatDoesNotFill(t *testing.T) {
	t.Setenv("MTA_FAULTS", "loses")
	o := depthOptions(t, 0, 20)
	if _, err := RunDepth(t.Context(), o); err == nil || !strings.Contains(err.Error(), "18 of 20 messages are held") {
		t.Errorf("%v", err)
	}
}

func TestDepths(t *testing.T) {
	for text, want := range map[string]string{"0": "0", "100000,0,5,5": "0,5,100000", " 1, 2": "1,2"} {
		var d Depths
		if err := d.Set(text); err != nil || d.String() != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"", "1,", "-1", "1000000000", "x"} {
		if err := new(Depths).Set(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	if _, err := (DepthOptions{Program: []string{"x"}, Depths: Depths{5, 0}}).withDefaults(); err == nil {
		t.Error("the longest queue first was taken")
	}
	o, err := DepthOptions{Program: []string{"x"}}.withDefaults()
	if err != nil || o.Depths.String() != "0,100000,1000000" || o.Held.String() != "2KiB" || o.Sizes.String() != "10KiB" || o.Rounds != 15 {
		t.Errorf("%+v, %v", o, err)
	}
}

// TestClosedPort: nobody can connect, and nobody can listen.
func TestClosedPort(t *testing.T) {
	p, err := newClosedPort()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := net.Dial("tcp", p.address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	if l, err := net.Listen("tcp", p.address); !errors.Is(err, syscall.EADDRINUSE) {
		if err == nil {
			l.Close()
		}
		t.Errorf("%v", err)
	}
}
