package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
	"mailrace/bench/sink"
)

// Legs of a round of bulk mail.
const (
	Plain = "plain" // all sites do well
	Bulk  = "bulk"  // the mix
)

var bulkLegs = []string{Plain, Bulk}

// BulkMeasure is one leg of a round. Rates are of recipients that got their mail or came back, from the first message of the generator on.
type BulkMeasure struct {
	Measure
	Accepting    float64            `json:"accepted_per_second"` // by the node
	Most         float64            `json:"nine_tenths_per_second"`
	Returned     sink.Returned      `json:"returned"`         // to the sender, as notifications say
	Deferred     int                `json:"deferred"`         // attempts that failed for now: all of them are tried again
	Bounced      int                `json:"bounced"`          // recipients that the node gave up
	Queue        int                `json:"queue_recipients"` // most that the node held
	Destinations []sink.StageReport `json:"destinations"`     // what each kind of sites saw

	most time.Duration // until nine tenths were settled
}

// line is a measure as one line of progress.
func (m *BulkMeasure) line() string {
	return fmt.Sprintf("%7.0f/s  nine tenths %7.0f/s  MTA %5s µs  %s delivered  %s deferred  %d bounced  queue %s  over caps %d", m.Rate, m.Most, micros(m.CPU),
		console.Count(m.Account.Arrived), console.Count(uint64(m.Deferred)), m.Bounced, console.Count(uint64(m.Queue)), m.over())
}

// BulkRound holds both legs, by name.
type BulkRound map[string]BulkMeasure

// BulkReport is a finished measurement of bulk mail.
type BulkReport struct {
	Messages    int         `json:"messages"`
	Domains     int         `json:"domains"`
	Sites       int         `json:"sites"`
	Zipf        float64     `json:"zipf"`
	Sizes       string      `json:"sizes"`
	Recipients  int         `json:"recipients"`
	Connections int         `json:"connections"`
	Sync        bool        `json:"sync"`
	Rounds      []BulkRound `json:"rounds"`

	// What follows is made of the rounds.
	Ratio    Spread         `json:"ratio"`       // rate of the first nine tenths of bulk mail to that of plain mail in the same round
	CPU      Spread         `json:"ratio_cpu"`   // likewise of the node's CPU time per message
	Account  ledger.Account `json:"account"`     // of all rounds and legs
	Returned sink.Returned  `json:"returned"`    // likewise
	Over     uint64         `json:"over_caps"`   // connections, and messages of connections, beyond what the node was told
	Refused  uint64         `json:"refused_5xx"` // recipients that the sink refused for good
	Notes    []string       `json:"notes"`
	Machine  machine.Report `json:"machine"`
}

// What a measurement of bulk mail ends with when it shows what must not be.
var (
	ErrCaps     = errors.New("limits of sites were not kept")
	ErrReturned = errors.New("not everybody was told once of what failed")
)

// summarize fills in what is made of the rounds.
func (r *BulkReport) summarize() {
	var rates, costs []float64
	r.Account, r.Returned, r.Over, r.Refused, r.Notes = ledger.Account{}, sink.Returned{}, 0, 0, nil
	for _, round := range r.Rounds {
		for _, name := range bulkLegs {
			m := round[name]
			r.Account = r.Account.Add(m.Account)
			r.Returned.Returned += m.Returned.Returned
			r.Returned.Twice += m.Returned.Twice
			r.Returned.Both += m.Returned.Both
			r.Over += m.over()
			r.Refused += m.refused()
		}
		plain, bulk := round[Plain], round[Bulk]
		if plain.Most > 0 && plain.CPU > 0 {
			rates, costs = append(rates, bulk.Most/plain.Most), append(costs, bulk.CPU/plain.CPU)
		}
	}
	r.Ratio, r.CPU = spreadOf(rates), spreadOf(costs)
	for _, name := range bulkLegs {
		m := r.median(name)
		r.Notes = append(r.Notes, m.notes(name)...)
	}
	_, measures := r.measures()
	r.Notes = append(r.Notes, noise(Plain, measures)...)
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
	if r.Returned.Twice+r.Returned.Both > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("RETURNED: %d notifications too many, %d about recipients that got their mail", r.Returned.Twice, r.Returned.Both))
	}
	if r.Over > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("LIMITS: %d connections or messages beyond what sites take, and the node was told", r.Over))
	}
}

// measures are the rounds as charts want them, and the rates of plain mail.
func (r *BulkReport) measures() (rounds []Round, plain []float64) {
	for _, round := range r.Rounds {
		one := Round{}
		for _, name := range bulkLegs {
			m := round[name]
			one[name] = m.Measure
		}
		rounds, plain = append(rounds, one), append(plain, round[Plain].Most)
	}
	return rounds, plain
}

// all are the measures of a leg.
func (r *BulkReport) all(name string) (all []BulkMeasure) {
	for _, round := range r.Rounds {
		all = append(all, round[name])
	}
	return all
}

func (r *BulkReport) median(name string) Measure {
	var all []Measure
	for _, m := range r.all(name) {
		all = append(all, m.Measure)
	}
	return medianOf(all)
}

// fault is what the report shows that must not be.
func (r *BulkReport) fault() error {
	errs := []error{accountFault(r.Account)}
	if r.Returned.Twice+r.Returned.Both > 0 {
		errs = append(errs, ErrReturned)
	}
	if r.Over > 0 {
		errs = append(errs, ErrCaps)
	}
	return errors.Join(errs...)
}

// Result is the report for people: medians over the rounds.
func (r *BulkReport) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	table := result.Part{Header: []string{"", "settled/s", "nine tenths/s", "accepted/s", "MTA µs", "generator µs", "sink µs", "messages/sync", "delivered", "deferred",
		"bounced", "queue", "RSS MiB"}}
	for _, name := range bulkLegs {
		m, all := r.median(name), r.all(name)
		of := func(figure func(*BulkMeasure) float64) float64 {
			var values []float64
			for i := range all {
				values = append(values, figure(&all[i]))
			}
			return middle(values)
		}
		count := func(figure func(*BulkMeasure) int) string {
			return console.Count(uint64(of(func(m *BulkMeasure) float64 { return float64(figure(m)) })))
		}
		table.Rows = append(table.Rows, []string{name, fmt.Sprintf("%.0f", m.Rate), fmt.Sprintf("%.0f", of(func(m *BulkMeasure) float64 { return m.Most })),
			fmt.Sprintf("%.0f", of(func(m *BulkMeasure) float64 { return m.Accepting })), micros(m.CPU), micros(m.GeneratorCPU), micros(m.SinkCPU),
			figure("%.1f", m.MessagesPerSync), count(func(m *BulkMeasure) int { return int(m.Account.Arrived) }), count(func(m *BulkMeasure) int { return m.Deferred }),
			count(func(m *BulkMeasure) int { return m.Bounced }), count(func(m *BulkMeasure) int { return m.Queue }), fmt.Sprint(m.RSSPeak >> 20)})
	}
	rounds, _ := r.measures()
	return result.Result{Name: "bulk", Lead: fmt.Sprintf("%d rounds of %s messages of %s for %s domains (Zipf %g) at %d sites, %d connections, mail %s", len(r.Rounds),
		console.Count(uint64(r.Messages)), r.Sizes, console.Count(uint64(r.Domains)), r.Zipf, r.Sites, r.Connections, durable),
		Parts: []result.Part{table, r.destinations()},
		Facts: []string{
			fmt.Sprintf("ratio to plain mail, of the first nine tenths: %.3f (%.3f to %.3f); of CPU time per message: %.2f (%.2f to %.2f)", r.Ratio.Median, r.Ratio.Min,
				r.Ratio.Max, r.CPU.Median, r.CPU.Min, r.CPU.Max),
			fmt.Sprintf("limits of sites: %d connections or messages beyond them", r.Over),
			accounting(r.Account, true) + fmt.Sprintf("; %s refused for good, %s came back to their sender, %d twice, %d of them delivered",
				console.Count(r.Refused), console.Count(r.Returned.Returned), r.Returned.Twice, r.Returned.Both),
		},
		Notes: r.Notes, Machine: &r.Machine, Charts: charts(rounds, bulkLegs)}
}

// destinations are the kinds of sites of the mix: what the last round's saw, and what they take.
func (r *BulkReport) destinations() result.Part {
	part := result.Part{Header: []string{"sites of", "seen", "messages", "connections at once", "of at most", "messages of one", "of at most", "beyond", "beyond the rate", "4xx",
		"greylisted", "5xx", "dropped"}}
	if len(r.Rounds) == 0 {
		return part
	}
	for _, d := range r.Rounds[len(r.Rounds)-1][Bulk].Destinations {
		var sum sink.Failures
		for _, f := range d.Failures {
			sum.Tempfail, sum.Permfail, sum.Drop = sum.Tempfail+f.Tempfail, sum.Permfail+f.Permfail, sum.Drop+f.Drop
		}
		part.Rows = append(part.Rows, []string{d.Name, fmt.Sprint(d.Sites), console.Count(d.Accepted), fmt.Sprint(d.Most.Connections), fmt.Sprint(d.Configured.Connections),
			fmt.Sprint(d.Most.Messages), fmt.Sprint(d.Configured.Messages), fmt.Sprint(d.Over.Connections + d.Over.Messages), fmt.Sprint(d.Over.Rate),
			fmt.Sprint(sum.Tempfail), fmt.Sprint(d.Greylisted), fmt.Sprint(sum.Permfail), fmt.Sprint(sum.Drop)})
	}
	return part
}

// BulkCommand is `mailrace bench bulk`: it measures and presents the report.
func BulkCommand(ctx context.Context, o BulkOptions, out console.Output) error {
	o.Progress = out.Stderr
	r, err := RunBulk(ctx, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
