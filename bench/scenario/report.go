package scenario

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"mailrace/bench/ceiling"
	"mailrace/bench/console"
	"mailrace/bench/latency"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/proc"
	"mailrace/bench/result"
)

// Round holds the measures of all targets, by name.
type Round map[string]Measure

// Spread is the median of paired rounds, with the least and the most.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Report is a finished scenario.
type Report struct {
	Kind        Kind          `json:"scenario"`
	Connections int           `json:"connections"`
	Sizes       string        `json:"sizes"`
	Recipients  int           `json:"recipients"`
	Sync        bool          `json:"sync"`
	Duration    time.Duration `json:"duration_ns"`
	MX          bool          `json:"mx"` // the MTA, and not the ceiling, found the way by MX, and asked for MTA-STS and DANE
	Rounds      []Round       `json:"rounds"`

	Ceilings []ceiling.Rates `json:"ceilings,omitempty"` // of the machine, by round

	// What follows is made of the rounds.
	Median  Round             `json:"median"`              // of each figure by itself
	Beside  map[string]Shares `json:"beside,omitempty"`    // how near each target but the ceiling came to what bounds it
	Ratio   Spread            `json:"ratio"`               // rate of the MTA to that of the ceiling in the same round
	TLS     *Spread           `json:"ratio_tls,omitempty"` // rate of the MTA under TLS to that in clear in the same round; Relay: delivering under TLS
	Account ledger.Account    `json:"account"`             // of all rounds and targets
	Notes   []string          `json:"notes"`               // what makes the figures less than what they seem
	Machine machine.Report    `json:"machine"`
}

// summarize fills in what is made of the rounds.
func (r *Report) summarize() {
	r.Median, r.Account, r.Notes = Round{}, ledger.Account{}, nil
	for _, name := range r.targets() {
		m := r.median(name)
		r.Median[name], r.Account = m, r.Account.Add(m.Account)
		r.Notes = append(r.Notes, m.notes(name)...)
	}
	r.Ratio, r.TLS = r.ratio(MTA, Ceiling), nil
	if slices.Contains(r.targets(), TLS) {
		spread := r.ratio(TLS, MTA)
		r.TLS = &spread
	}
	r.Notes = append(r.Notes, noise(Ceiling, rates(r.Rounds, Ceiling))...)
	r.besides()
	r.Notes = append(r.Notes, misfortunes(r.Account)...)
}

// rates are those of a target in all rounds.
func rates(rounds []Round, name string) (all []float64) {
	for _, round := range rounds {
		all = append(all, round[name].Rate)
	}
	return all
}

// targets are the names of what was measured.
func (r *Report) targets() []string {
	names := []string{Ceiling, MTA}
	if len(r.Rounds) > 0 {
		if _, ok := r.Rounds[0][TLS]; ok {
			names = append(names, TLS)
		}
	}
	return names
}

// ratio is that of the rates of two targets in the same round.
func (r *Report) ratio(of, to string) Spread {
	var ratios []float64
	for _, round := range r.Rounds {
		if base := round[to].Rate; base > 0 {
			ratios = append(ratios, round[of].Rate/base)
		}
	}
	return spreadOf(ratios)
}

func spreadOf(ratios []float64) Spread {
	if len(ratios) == 0 {
		return Spread{}
	}
	return Spread{Median: middle(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios)}
}

// median of each figure of a target over the rounds.
func (r *Report) median(name string) Measure {
	var all []Measure
	for _, round := range r.Rounds {
		all = append(all, round[name])
	}
	return medianOf(all)
}

// medianOf is the median of each figure. Counts are sums.
func medianOf(all []Measure) Measure {
	of := func(figure func(*Measure) float64) float64 {
		values := make([]float64, len(all))
		for i := range all {
			values[i] = figure(&all[i])
		}
		return middle(values)
	}
	m := Measure{
		Elapsed:         time.Duration(of(func(m *Measure) float64 { return float64(m.Elapsed) })),
		Rate:            of(func(m *Measure) float64 { return m.Rate }),
		CPU:             of(func(m *Measure) float64 { return m.CPU }),
		GeneratorCPU:    of(func(m *Measure) float64 { return m.GeneratorCPU }),
		SinkCPU:         of(func(m *Measure) float64 { return m.SinkCPU }),
		SyncsPerMessage: of(func(m *Measure) float64 { return m.SyncsPerMessage }),
		MessagesPerSync: of(func(m *Measure) float64 { return m.MessagesPerSync }),
		P50:             time.Duration(of(func(m *Measure) float64 { return float64(m.P50) })),
		P99:             time.Duration(of(func(m *Measure) float64 { return float64(m.P99) })),
		Max:             time.Duration(of(func(m *Measure) float64 { return float64(m.Max) })),
		RSSPeak:         int64(of(func(m *Measure) float64 { return float64(m.RSSPeak) })),
		Octets:          of(func(m *Measure) float64 { return m.Octets }),
		RSS:             int64(of(func(m *Measure) float64 { return float64(m.RSS) })),
		Written:         of(func(m *Measure) float64 { return m.Written }),
		GeneratorBusy:   of(func(m *Measure) float64 { return m.GeneratorBusy }),
		SinkBusy:        of(func(m *Measure) float64 { return m.SinkBusy }),
	}
	for i := range latency.Shares {
		var values []float64
		for n := range all {
			if curve := all[n].Curve; i < len(curve) {
				values = append(values, float64(curve[i]))
			}
		}
		if len(values) == 0 {
			break
		}
		m.Curve = append(m.Curve, time.Duration(middle(values)))
	}
	for i := range all {
		m.Messages += all[i].Messages
		m.Refused += all[i].Refused
		m.Failure = cmp.Or(all[i].Failure, m.Failure)
		m.Due += all[i].Due
		m.Account = m.Account.Add(all[i].Account)
	}
	return m
}

// notes say what stood in the way of a target.
func (m *Measure) notes(name string) (notes []string) {
	notes = append(busy(name, "generator", m.GeneratorBusy), busy(name, "sink", m.SinkBusy)...)
	if m.Refused > 0 {
		note := fmt.Sprintf("%s: %d messages were refused or got no reply", name, m.Refused)
		if m.Failure != "" {
			note += ": " + m.Failure
		}
		notes = append(notes, note)
	}
	return notes
}

// busy notes a process of one loop that may have been the limit of what was measured.
func busy(name, process string, share float64) []string {
	if share <= proc.BusyLimit {
		return nil
	}
	return []string{fmt.Sprintf("%s: the %s took %.0f%% of a core and may be the limit", name, process, 100*share)}
}

// misfortunes is a note of what was lost, doubled or altered, if anything was.
func misfortunes(a ledger.Account) []string {
	if a.Clean() {
		return nil
	}
	return []string{fmt.Sprintf("ACCOUNTING: %d lost, %d doubled, %d altered", a.Lost, a.Doubled, a.Altered)}
}

// middle is the median; of an even number of values the mean of the two in the middle.
func middle(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// line is a measure as one line of progress.
func (m *Measure) line() string {
	return fmt.Sprintf("%7.0f/s  MTA %5s µs  generator %4s µs  sink %4s µs  %5s messages/sync  p99 %s", m.Rate, micros(m.CPU),
		micros(m.GeneratorCPU), micros(m.SinkCPU), figure("%.1f", m.MessagesPerSync), console.Duration(m.P99))
}

// Result is the report for people: medians over the rounds, and the ratio.
func (r *Report) Result() result.Result {
	durable := "synced before its 250"
	if !r.Sync {
		durable = "NOT synced"
	}
	way := ""
	if r.MX {
		way = ", by MX with MTA-STS and DANE asked for"
	}
	lead := fmt.Sprintf("%d rounds of %s, %d connections, %s, %d recipients, mail of the MTA %s%s", len(r.Rounds), r.Duration, r.Connections, r.Sizes,
		r.Recipients, durable, way)
	table := result.Part{Header: []string{"", "messages/s", "MTA µs", "generator µs", "sink µs", "syncs/message", "messages/sync", "p50", "p99", "RSS MiB"}}
	for _, name := range r.targets() {
		m := r.Median[name]
		table.Rows = append(table.Rows, []string{name, fmt.Sprintf("%.0f", m.Rate), micros(m.CPU), micros(m.GeneratorCPU), micros(m.SinkCPU),
			figure("%.4f", m.SyncsPerMessage), figure("%.1f", m.MessagesPerSync), console.Duration(m.P50), console.Duration(m.P99),
			fmt.Sprint(m.RSSPeak >> 20)})
	}
	parts := append([]result.Part{table}, r.ceilingParts()...)
	facts := []string{fmt.Sprintf("ratio to the ceiling: %.3f (%.3f to %.3f in %d paired rounds)", r.Ratio.Median, r.Ratio.Min, r.Ratio.Max, len(r.Rounds))}
	if r.TLS != nil {
		facts = append(facts, fmt.Sprintf("ratio of TLS 1.3 to clear: %.3f (%.3f to %.3f)", r.TLS.Median, r.TLS.Min, r.TLS.Max))
	}
	facts = append(facts, accounting(r.Account, r.Kind == Relay))
	return result.Result{Name: string(r.Kind), Lead: lead, Parts: parts, Facts: facts, Notes: r.Notes, Machine: &r.Machine,
		Charts: append(charts(r.Rounds, r.targets()), r.shareCharts()...)}
}

// accounting is what became of the mail, in a line; without a sink nobody knows more than what was acknowledged.
func accounting(a ledger.Account, sink bool) string {
	line := fmt.Sprintf("accounting: %s acknowledged", console.Count(a.Acknowledged))
	if sink {
		line += fmt.Sprintf(", %s arrived, %d lost, %d doubled, %d altered", console.Count(a.Arrived), a.Lost, a.Doubled, a.Altered)
	}
	if a.Reordered > 0 {
		line += fmt.Sprintf("; %s behind a later one of the same connection, as SMTP allows", console.Count(a.Reordered))
	}
	return line
}

func (r *Report) fault() error { return accountFault(r.Account) }

func micros(v float64) string { return figure("%.1f", v) }

// figure prints a value, or a dash where there is none.
func figure(format string, v float64) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf(format, v)
}
