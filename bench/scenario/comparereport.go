package scenario

import (
	"context"
	"fmt"
	"time"

	"mailrace/bench/chart"
	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// Compared is one scenario of two programs.
type Compared struct {
	Kind   Kind    `json:"scenario"`
	Rounds []Round `json:"rounds"` // by Base and New

	// What follows is made of the rounds. Ratios are of the new program to the base, in the same round.
	Median Round  `json:"median"`
	Rate   Spread `json:"ratio_rate"`
	CPU    Spread `json:"ratio_cpu"` // per message
	P99    Spread `json:"ratio_p99"` // of the replies
}

// CompareReport is a finished comparison of two programs.
type CompareReport struct {
	Base        string        `json:"base"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Sync        bool          `json:"sync"`
	Duration    time.Duration `json:"duration_ns"`
	Scenarios   []Compared    `json:"scenarios"`

	// What follows is made of the rounds.
	Account ledger.Account `json:"account"`
	Notes   []string       `json:"notes"`
	Machine machine.Report `json:"machine"`
}

// compareFigures are what is held against each other.
var compareFigures = []struct {
	name string
	of   func(*Measure) float64
	to   func(*Compared) *Spread
	text func(float64) string
}{
	{"messages/s", func(m *Measure) float64 { return m.Rate }, func(c *Compared) *Spread { return &c.Rate }, func(v float64) string { return figure("%.0f", v) }},
	{"MTA µs", func(m *Measure) float64 { return m.CPU }, func(c *Compared) *Spread { return &c.CPU }, micros},
	{"p99", func(m *Measure) float64 { return float64(m.P99) }, func(c *Compared) *Spread { return &c.P99 },
		func(v float64) string { return console.Duration(time.Duration(v)) }},
}

// summarize fills in what is made of the rounds.
func (r *CompareReport) summarize() {
	r.Account, r.Notes = ledger.Account{}, nil
	for i := range r.Scenarios {
		c := &r.Scenarios[i]
		all := Report{Rounds: c.Rounds}
		c.Median = Round{}
		for _, name := range []string{Base, New} {
			m := all.median(name)
			c.Median[name], r.Account = m, r.Account.Add(m.Account)
			what := string(c.Kind) + ", " + name
			r.Notes = append(append(r.Notes, m.notes(what)...), noise(what, rates(c.Rounds, name))...)
		}
		for _, f := range compareFigures {
			var ratios []float64
			for _, round := range c.Rounds {
				base, changed := round[Base], round[New]
				if of := f.of(&base); of > 0 {
					ratios = append(ratios, f.of(&changed)/of)
				}
			}
			*f.to(c) = spreadOf(ratios)
		}
	}
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// agreed is what all rounds say of a ratio.
func agreed(s Spread) string {
	switch {
	case s.Min > 1:
		return "more in every round"
	case s.Max < 1:
		return "less in every round"
	}
	return "rounds differ"
}

// Result is the report for people: medians over the rounds, and the ratios.
func (r *CompareReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	table := result.Part{Header: []string{"", "", Base, New, "ratio", "least", "most", "new has"}}
	var drawn []chart.Chart
	rounds := 0
	for i := range r.Scenarios {
		c := &r.Scenarios[i]
		rounds = len(c.Rounds)
		base, changed := c.Median[Base], c.Median[New]
		for _, f := range compareFigures {
			ratio := f.to(c)
			table.Rows = append(table.Rows, []string{string(c.Kind), f.name, f.text(f.of(&base)), f.text(f.of(&changed)), figure("%.3f", ratio.Median),
				figure("%.3f", ratio.Min), figure("%.3f", ratio.Max), agreed(*ratio)})
		}
		for _, one := range charts(c.Rounds, []string{Base, New}) {
			one.Title = string(c.Kind) + ": " + one.Title
			drawn = append(drawn, one)
		}
	}
	return result.Result{Name: "compare", Lead: fmt.Sprintf("%s, and this program as new; %d rounds of %s, %d connections, %s, mail %s", r.Base, rounds, r.Duration,
		r.Connections, r.Sizes, durable), Parts: []result.Part{table}, Facts: []string{fmt.Sprintf("accounting: %s acknowledged, %d lost, %d doubled, %d altered",
		console.Count(r.Account.Acknowledged), r.Account.Lost, r.Account.Doubled, r.Account.Altered)}, Notes: r.Notes, Machine: &r.Machine, Charts: drawn}
}

func (r *CompareReport) fault() error { return accountFault(r.Account) }

// CompareCommand is `mailrace bench compare`: it measures and presents the report.
func CompareCommand(ctx context.Context, o CompareOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunCompare(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
