package scenario

import (
	"fmt"
	"time"

	"mailrace/bench/ceiling"
	"mailrace/bench/chart"
	"mailrace/bench/result"
)

// Shares are how near a target came to what bounds it, in paired rounds. A disk is asked for each octet of content once at least, and loopback
// once for each time that the content goes over it.
type Shares struct {
	Null     Spread `json:"null"`                   // rate to that of the null ceiling
	Disk     Spread `json:"disk_bytes"`             // octets of content a second to those that the disk writes in sequence
	Syncs    Spread `json:"disk_syncs"`             // syncs a second to those that the disk does
	Loopback Spread `json:"loopback"`               // octets of content a second, as often as they pass, to those that loopback carries
	Lower    Spread `json:"lower_of_null_and_disk"` // octets a second to those of the null ceiling or of the disk, whichever is lower
}

const (
	ceilingTimeMost  = 500 * time.Millisecond
	ceilingTimeLeast = 20 * time.Millisecond
)

// ceilingTime is how long each ceiling of the machine is measured in a round, a tenth of its load.
func ceilingTime(load time.Duration) time.Duration {
	return max(min(load/10, ceilingTimeMost), ceilingTimeLeast)
}

// passes is how often the octets of a message go over loopback.
func (r *Report) passes() float64 {
	if r.Kind == Relay {
		return 2
	}
	return 1
}

// bound is one of the things that bound a target.
type bound struct {
	name, unit string
	measured   bool                                         // by itself, on the machine
	most       func(round Round, of *ceiling.Rates) float64 // of the ceiling, in the unit
	reached    func(m *Measure) float64                     // by the target
	share      func(*Shares) *Spread
}

// bounds are what targets of the scenario are held against.
func (r *Report) bounds() []bound {
	const mega = 1e6
	octets := func(m *Measure) float64 { return m.Rate * m.Octets / mega }
	null := func(round Round) *Measure { m := round[Ceiling]; return &m }
	disk := func(c *ceiling.Rates) float64 { return c.Written / mega }
	going := "accept"
	if r.Kind == Relay {
		going = "relay"
	}
	return []bound{
		{"null " + going, "messages/s", false, func(round Round, _ *ceiling.Rates) float64 { return null(round).Rate }, func(m *Measure) float64 { return m.Rate },
			func(s *Shares) *Spread { return &s.Null }},
		{"disk, written in sequence", "MB/s", true, func(_ Round, c *ceiling.Rates) float64 { return disk(c) }, octets, func(s *Shares) *Spread { return &s.Disk }},
		{"the lower of these two", "MB/s", false, func(round Round, c *ceiling.Rates) float64 { return min(octets(null(round)), disk(c)) }, octets,
			func(s *Shares) *Spread { return &s.Lower }},
		{"disk, small batches", "syncs/s", true, func(_ Round, c *ceiling.Rates) float64 { return c.Syncs }, func(m *Measure) float64 { return m.Rate * m.SyncsPerMessage },
			func(s *Shares) *Spread { return &s.Syncs }},
		{"loopback", "MB/s", true, func(_ Round, c *ceiling.Rates) float64 { return c.Loopback / mega }, func(m *Measure) float64 { return r.passes() * octets(m) },
			func(s *Shares) *Spread { return &s.Loopback }},
	}
}

// besides holds the targets against the ceilings, and notes a disk that was not the same all the time.
func (r *Report) besides() {
	r.Beside = map[string]Shares{}
	if len(r.Ceilings) == 0 {
		return
	}
	for _, name := range r.targets()[1:] {
		var all Shares
		for _, b := range r.bounds() {
			*b.share(&all) = spreadOf(r.shares(b, name))
		}
		r.Beside[name] = all
	}
	for _, b := range r.bounds() {
		if !b.measured {
			continue
		}
		var values []float64
		for i := range r.Ceilings {
			values = append(values, b.most(r.Rounds[i], &r.Ceilings[i]))
		}
		r.Notes = append(r.Notes, noiseIn(b.unit, b.name, values)...)
	}
}

// shares are those of a target in each round in which the ceiling is known.
func (r *Report) shares(b bound, name string) (all []float64) {
	for i, c := range r.Ceilings {
		m := r.Rounds[i][name]
		if most := b.most(r.Rounds[i], &c); most > 0 {
			all = append(all, b.reached(&m)/most)
		}
	}
	return all
}

// ceilingParts is a table for each target: the ceilings, what the target reached of them, and the share.
func (r *Report) ceilingParts() (parts []result.Part) {
	if len(r.Ceilings) == 0 {
		return nil
	}
	for _, name := range r.targets()[1:] {
		part := result.Part{Header: []string{name + " beside", "", "the most", name, "share", "least", "most"}}
		beside := r.Beside[name]
		for _, b := range r.bounds() {
			var most, reached []float64
			for i := range r.Ceilings {
				m := r.Rounds[i][name]
				most, reached = append(most, b.most(r.Rounds[i], &r.Ceilings[i])), append(reached, b.reached(&m))
			}
			share := b.share(&beside)
			part.Rows = append(part.Rows, []string{b.name, b.unit, figure("%.0f", middle(most)), figure("%.0f", middle(reached)), figure("%.3f", share.Median),
				figure("%.3f", share.Min), figure("%.3f", share.Max)})
		}
		parts = append(parts, part)
	}
	return parts
}

// shareCharts draws the shares of each target over the rounds.
func (r *Report) shareCharts() (all []chart.Chart) {
	if len(r.Ceilings) == 0 {
		return nil
	}
	for _, name := range r.targets()[1:] {
		c := chart.Chart{Title: "Share of the ceilings, " + name, X: chart.Axis{Label: "round"}}
		for _, b := range r.bounds() {
			line := chart.Line{Name: fmt.Sprintf("%s, %s", b.name, b.unit), Dots: true}
			for i, share := range r.shares(b, name) {
				line.Points = append(line.Points, chart.Point{X: float64(i + 1), Y: share})
			}
			c.Lines = append(c.Lines, line)
		}
		all = append(all, c)
	}
	return all
}
