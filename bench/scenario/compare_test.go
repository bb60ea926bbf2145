package scenario

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

// TestCompare: both programs are measured in every round, and all mail is accounted for.
func TestCompare(t *testing.T) {
	o := options(t)
	r, err := RunCompare(t.Context(), CompareOptions{Options: o, Base: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.fault(); err != nil || len(r.Scenarios) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, c := range r.Scenarios {
		if len(c.Rounds) != o.Rounds || c.Rate.Median <= 0 {
			t.Errorf("%+v", c)
		}
		for _, round := range c.Rounds {
			for _, name := range []string{Base, New} {
				if m := round[name]; m.Messages == 0 || c.Kind == Relay && m.Arrived != m.Messages || m.SyncsPerMessage == 0 {
					t.Errorf("%s, %s: %+v", c.Kind, name, m)
				}
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCompareText(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	r := CompareReport{Base: "bin/base", Connections: 200, Sizes: "10KiB", Sync: true, Duration: 5 * time.Second}
	for _, kind := range compareKinds {
		c := Compared{Kind: kind}
		for _, more := range []float64{1.1, 1.02, 1.05} {
			c.Rounds = append(c.Rounds, Round{Base: measureOf(20_000, 30, whole), New: measureOf(20_000*more, 60-30*more, whole)})
		}
		r.Scenarios = append(r.Scenarios, c)
	}
	r.summarize()
	golden(t, "compare.txt", textOf(t, &r))
	lost := r.Scenarios[1].Rounds[0][New]
	lost.Lost = 1
	r.Scenarios[1].Rounds[0][New] = lost
	if r.summarize(); !errors.Is(r.fault(), ErrAccounting) {
		t.Error(r.fault())
	}
}

func TestCompareOptions(t *testing.T) {
	var o CompareOptions
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	o.BindFlags(fs)
	if err := fs.Parse([]string{"--base", os.Args[0], "--rounds", "7", "--size", "100KiB"}); err != nil {
		t.Fatal(err)
	}
	o.Program = []string{"x"}
	if o, err := o.withDefaults(); err != nil || o.Rounds != 7 || o.Sizes.String() != "100KiB" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, base := range []string{"", filepath.Join(t.TempDir(), "missing")} {
		o.Base = base
		if _, err := RunCompare(t.Context(), o); err == nil {
			t.Errorf("%q was taken", base)
		}
	}
}
