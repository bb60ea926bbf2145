package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"mailrace/bench/console"
)

// TestIdle: all connections are held to the end, the sender gets its mail through beside them, and slow clients are gone.
func TestIdle(t *testing.T) {
	for _, secure := range []bool{false, true} {
		o := IdleOptions{Program: options(t).Program, Connections: 60, TLS: secure, Limit: 10 << 20, Rounds: 2, Duration: 100 * time.Millisecond,
			Warmup: 10 * time.Millisecond, Senders: 3, SlowClients: 4, Deadline: time.Second, Dir: t.TempDir()}
		var stdout, stderr bytes.Buffer
		if err := IdleCommand(t.Context(), o, console.Output{JSON: true, Stdout: &stdout, Stderr: &stderr}); err != nil {
			t.Fatalf("%v\n%s", err, stderr.String())
		}
		var r IdleReport
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		kinds := 2
		if secure {
			kinds = 3
		}
		if r.Connections != 60 || r.Left != 60 || r.TLS != secure || len(r.Rounds) != 2 || r.Ratio.Median <= 0 || len(r.Slow) != kinds || r.After == 0 {
			t.Errorf("%+v", r)
		}
		for _, s := range r.Slow {
			if s.Clients != 4 || s.Gone != 4 || s.First <= 0 || s.Last < s.First {
				t.Errorf("%+v", s)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestIdleFaults: a report that shows what must not be is an error, and says what.
func TestIdleFaults(t *testing.T) {
	r := IdleReport{Connections: 1000, Nodes: 2, Files: 20_000, Before: 60 << 20, After: 90 << 20, End: 200 << 20, Each: 9000, Limit: 10240, Left: 1000,
		Rounds: []IdleRound{{IdleMeasure{Rate: 1000, CPU: 20}, IdleMeasure{Rate: 900, CPU: 22, GeneratorBusy: 0.97}}},
		Slow:   []SlowClients{{Kind: "command", Clients: 10, Gone: 10, Deadline: 5 * time.Second, First: 5 * time.Second, Last: 5010 * time.Millisecond}}}
	r.summarize()
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	golden(t, "idle.txt", textOf(t, &r))
	r.Each, r.Left, r.Slow[0].Gone = 10_241, 999, 9
	for _, want := range []error{ErrIdleCost, ErrIdleLost, ErrSlow} {
		if err := r.fault(); !errors.Is(err, want) {
			t.Errorf("%v is not in %v", want, err)
		}
	}
}

// TestSharesOfIdle: no node gets more connections than its descriptors allow.
func TestSharesOfIdle(t *testing.T) {
	for files, want := range map[int]int{1024: 640, 20_000: 12_500, 1 << 20: 655_360} {
		if got := perNode(files); got != want {
			t.Errorf("%d of %d files, want %d", got, files, want)
		}
	}
}
