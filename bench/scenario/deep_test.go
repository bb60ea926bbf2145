package scenario

import (
	"errors"
	"strings"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

func TestDeepOptions(t *testing.T) {
	o, err := DeepOptions{Program: []string{"x"}}.withDefaults()
	if err != nil || o.Depths.String() != "100000,1000000" || o.Rounds != defaultRounds || o.Sizes.String() != "2KiB" || o.Retry != 5*time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	for _, o := range []DeepOptions{{}, {Program: []string{"x"}, Depths: Depths{0, 5}}, {Program: []string{"x"}, Depths: Depths{depthMost + 1}}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestDeepFaults: a report that shows what must not be is an error, and says what.
func TestDeepFaults(t *testing.T) {
	r := DeepReport{Depths: Depths{100_000, 1_000_000}, Sizes: "2KiB", Connections: 200, Duration: 3 * time.Second, Retry: 5 * time.Second, Sync: true}
	for _, rate := range []float64{40_000, 36_000, 38_000} {
		var round DeepRound
		for _, depth := range r.Depths {
			whole := ledger.Account{Acknowledged: uint64(depth), Arrived: uint64(depth)}
			m := DeepMeasure{Plain: measureOf(30_000, 40, ledger.Account{Acknowledged: 1000, Arrived: 1000}), First: 4 * time.Second, Drain: measureOf(rate, 25, whole),
				Filled: Filled{Depth: depth, Rate: 33_000, RSS: 200 << 20}}
			m.Drain.Elapsed = time.Duration(float64(depth) / rate * float64(time.Second))
			round = append(round, m)
		}
		r.Rounds = append(r.Rounds, round)
	}
	r.summarize()
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	golden(t, "deep.txt", textOf(t, &r))
	r.Rounds[1][1].Drain.Account.Lost, r.Rounds[1][0].Filled.Left = 3, 2
	r.summarize()
	for _, want := range []error{ErrAccounting, ErrHeld} {
		if err := r.fault(); !errors.Is(err, want) {
			t.Errorf("%v is not in %v", want, err)
		}
	}
	if !strings.Contains(strings.Join(r.Notes, "\n"), "ACCOUNTING: 3 lost") {
		t.Errorf("%q", r.Notes)
	}
}
