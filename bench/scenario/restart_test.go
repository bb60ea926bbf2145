package scenario

import (
	"errors"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

func TestRestartReport(t *testing.T) {
	r := RestartReport{Messages: 1000, Sizes: "2KiB", Sync: true}
	for i := range 3 {
		m := RestartMeasure{Filled: 20_000, Ended: 6 * time.Millisecond, Listening: time.Duration(100+i) * time.Millisecond, Accepted: 400 * time.Millisecond,
			Delivered: 420 * time.Millisecond, All: 1500 * time.Millisecond, Rate: 19_000, RSSPeak: 100 << 20, Account: ledger.Account{Acknowledged: 1000, Arrived: 1000}}
		r.Rounds = append(r.Rounds, RestartRound{Kill: m, Stop: m})
	}
	r.summarize()
	golden(t, "restart.txt", textOf(t, &r))
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	r.Rounds[1].Kill.Account.Lost = 1
	if r.summarize(); !errors.Is(r.fault(), ErrAccounting) {
		t.Error(r.fault())
	}
	r.Rounds[1].Kill.Account = ledger.Account{Acknowledged: 999, Arrived: 999}
	if r.summarize(); !errors.Is(r.fault(), ErrHeld) {
		t.Error(r.fault())
	}
}

func TestRestartOptions(t *testing.T) {
	o, err := RestartOptions{Program: []string{"x"}}.withDefaults()
	if err != nil || o.Messages != 100_000 || o.Rounds != defaultRounds || o.Sizes.String() != "2KiB" || o.Drain != defaultDrain {
		t.Errorf("%+v, %v", o, err)
	}
	for _, o := range []RestartOptions{{}, {Program: []string{"x"}, Messages: -1}, {Program: []string{"x"}, Messages: depthMost + 1}, {Program: []string{"x"}, Rounds: -1}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestRestartFails: a node that does not start ends the measurement, with what it said.
func TestRestartFails(t *testing.T) {
	t.Setenv("MTA_FAILS", "1")
	if _, err := RunRestart(t.Context(), RestartOptions{Program: options(t).Program, Messages: 10, Dir: t.TempDir()}); err == nil {
		t.Error("no error")
	}
}
