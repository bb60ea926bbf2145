package scenario

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

// TestLatency: each share of the highest rate is measured, in every round, and all mail is accounted for.
func TestLatency(t *testing.T) {
	for _, relay := range []bool{false, true} {
		o := options(t)
		o.Rounds = 1
		r, err := RunLatency(t.Context(), LatencyOptions{Options: o, Shares: Percents{25, 90}, Relay: relay})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Rounds) != 1 || !r.Account.Clean() || r.Account.Acknowledged == 0 || r.Machine.Cores == 0 {
			t.Errorf("%+v", r)
		}
		for _, round := range r.Rounds {
			if m := round[Ceiling]; m.Messages == 0 || m.SyncsPerMessage != 0 {
				t.Errorf("ceiling: %+v", m)
			}
			if m := round[Most]; m.Messages == 0 || m.Due != 0 || m.Max == 0 {
				t.Errorf("most: %+v", m)
			}
			for _, name := range []string{"25%", "90%"} {
				m := round[name]
				if m.Messages == 0 || m.Due == 0 || relay && m.Arrived != m.Messages {
					t.Errorf("%s: %+v", name, m)
				}
			}
		}
	}
}

func TestLatencyText(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	r := LatencyReport{Kind: Relay, Shares: Percents{50, 90}, Connections: 200, Sizes: "10KiB", Sync: true, Duration: 5 * time.Second}
	for _, rate := range []float64{40_000, 30_000, 50_000} {
		round := Round{Ceiling: measureOf(80_000, 10, whole), Most: measureOf(rate, 20, whole)}
		for _, share := range r.Shares {
			m := measureOf(rate*float64(share)/100, 30, whole)
			m.Due, m.Max = m.Messages+m.Messages*uint64(share-50)/400, time.Second
			for i := range 14 { // up to p99.9
				m.Curve = append(m.Curve, time.Duration(i*share)*time.Microsecond)
			}
			round[shareName(share)] = m
		}
		r.Rounds = append(r.Rounds, round)
	}
	r.summarize()
	golden(t, "latency.txt", textOf(t, &r))
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	lost := r.Rounds[0][Most]
	lost.Lost = 1
	r.Rounds[0][Most] = lost
	if r.summarize(); !errors.Is(r.fault(), ErrAccounting) {
		t.Error(r.fault())
	}
	if _, err := json.Marshal(&r); err != nil {
		t.Error(err)
	}
}

func TestPercents(t *testing.T) {
	var p Percents
	if err := p.Set("90, 25,90"); err != nil || p.String() != "25,90" {
		t.Errorf("%v, %v", p, err)
	}
	for _, text := range []string{"", "0", "201", "x", "1,"} {
		if err := p.Set(text); err == nil {
			t.Errorf("%q was read as %v", text, p)
		}
	}
}
