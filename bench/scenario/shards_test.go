package scenario

import (
	"errors"
	"flag"
	"io"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

// TestShards: every point of the grid is measured in every round, and all mail is accounted for.
func TestShards(t *testing.T) {
	o := options(t)
	o.Rounds = 1
	r, err := RunShards(t.Context(), ShardsOptions{Options: o, Loops: Numbers{1}, Shards: Numbers{1, 2}, ConnectionsOf: Numbers{2, 4}, Relay: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fault(); err != nil || len(r.Grid) != 4 || len(r.Rounds) != 1 || r.Best.Loops != 1 || r.Account.Arrived != r.Account.Acknowledged {
		t.Errorf("%+v, %v", r, err)
	}
	for _, p := range r.Grid {
		if m := r.Rounds[0][p.String()]; m.Messages == 0 || m.Arrived != m.Messages {
			t.Errorf("%s: %+v", p, m)
		}
		if null := r.Median[ceilingAt(p.Connections)]; null.Messages == 0 || null.SyncsPerMessage != 0 {
			t.Errorf("%s, the ceiling: %+v", p, null)
		}
	}
}

func TestShardsText(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	o := ShardsOptions{Loops: Numbers{1, 2}, Shards: Numbers{1, 2}, ConnectionsOf: Numbers{200}}
	r := ShardsReport{Kind: Accept, Grid: o.grid(), Sizes: "10KiB", Sync: true, Duration: 2 * time.Second}
	for _, noise := range []float64{0, 500, -500} {
		round := Round{}
		for i, p := range r.Grid {
			round[ceilingAt(p.Connections)] = measureOf(60_000, 10, whole)
			round[p.String()] = measureOf([]float64{10_000, 20_000, 30_000 - 2*noise, 30_100 + noise}[i], 30, whole)
		}
		r.Rounds = append(r.Rounds, round)
	}
	r.summarize()
	golden(t, "shards.txt", textOf(t, &r))
	if want := (ShardsPoint{2, 2, 200}); r.Best != want || len(r.Close) != 1 || r.fault() != nil {
		t.Errorf("%+v, %+v, %v", r.Best, r.Close, r.fault())
	}
	lost := r.Rounds[0][r.Best.String()]
	lost.Lost = 1
	r.Rounds[0][r.Best.String()] = lost
	if r.summarize(); !errors.Is(r.fault(), ErrAccounting) {
		t.Error(r.fault())
	}
}

func TestShardsOptions(t *testing.T) {
	var o ShardsOptions
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.BindFlags(fs)
	if err := fs.Parse([]string{"--loops", "4,1,4", "--connections", "7", "--duration", "1s", "--no-sync"}); err != nil {
		t.Fatal(err)
	}
	o.Program = []string{"x"}
	o, err := o.withDefaults()
	if err != nil || o.Loops.String() != "1,4" || o.ConnectionsOf.String() != "7" || len(o.Shards) == 0 || o.Duration != time.Second || o.Rounds != defaultRounds || !o.NoSync {
		t.Errorf("%+v, %v", o, err)
	}
	for _, text := range []string{"", "0", "4097", "1,x"} {
		if new(Numbers).Set(text) == nil {
			t.Errorf("%q was taken", text)
		}
	}
	var many Numbers
	for n := range 9 {
		many = append(many, n+1)
	}
	if _, err := (ShardsOptions{Options: Options{Program: []string{"x"}}, Loops: many, Shards: many}).withDefaults(); err == nil {
		t.Error("81 nodes were taken")
	}
}
