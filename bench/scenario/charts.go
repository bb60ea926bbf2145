package scenario

import (
	"fmt"
	"slices"
	"time"

	"mailrace/bench/chart"
	"mailrace/bench/latency"
)

// sinceBegan is the axis of time.
var sinceBegan = chart.Axis{Label: "seconds since the bench began"}

// charts draws what was measured under each name: rates, latencies, CPU time, queue and syncs over all rounds. Charts without anything in them are
// left out when they are drawn.
func charts(rounds []Round, names []string) []chart.Chart {
	over := func(title, unit string, of func(*Sample) float64) chart.Chart {
		return overTime(rounds, names, title, unit, of)
	}
	accepted := over("Accepted", "messages/s", func(s *Sample) float64 { return s.Accepted })
	arrived := over("Arrived at the sink", "messages/s", func(s *Sample) float64 { return s.Arrived })
	late := over("Latency of replies, p99 of a moment", "ms", func(s *Sample) float64 { return milliseconds(s.P99) })
	late.Y.Scale = chart.Log
	queue := over("Queue", "recipients", func(s *Sample) float64 { return s.Queue })
	syncs := over("Syncs", "1/s", func(s *Sample) float64 { return s.Syncs })
	all := []chart.Chart{accepted, arrived, distribution(rounds, names), late}
	for _, name := range names {
		c := chart.Chart{Title: "CPU, " + name, X: sinceBegan, Y: chart.Axis{Label: "cores"}}
		for _, process := range []struct {
			name string
			of   func(*Sample) float64
		}{{"sink", func(s *Sample) float64 { return s.Sink }}, {"MTA", func(s *Sample) float64 { return s.MTA }},
			{"generator", func(s *Sample) float64 { return s.Generator }}} {
			line := lineOf(rounds, name, process.of)
			if flat(line) {
				line = nil // keeps its colour
			}
			c.Lines = append(c.Lines, chart.Line{Name: process.name, Points: line})
		}
		all = append(all, c)
	}
	return slices.DeleteFunc(append(all, queue, syncs), func(c chart.Chart) bool { return c.Empty() })
}

// overTime draws one figure of the samples, a line for each name for which it is not nought all the time.
func overTime(rounds []Round, names []string, title, unit string, of func(*Sample) float64) chart.Chart {
	c := chart.Chart{Title: title, X: sinceBegan, Y: chart.Axis{Label: unit}}
	for _, name := range names {
		line := lineOf(rounds, name, of)
		if flat(line) {
			line = nil // keeps its colour
		}
		c.Lines = append(c.Lines, chart.Line{Name: name, Points: line})
	}
	return c
}

// lineOf is one figure of what was measured under a name, with a gap between two rounds.
func lineOf(rounds []Round, name string, of func(*Sample) float64) (points []chart.Point) {
	for _, round := range rounds {
		m := round[name]
		for i := range m.Samples {
			points = append(points, chart.Point{X: m.Samples[i].At.Seconds(), Y: of(&m.Samples[i])})
		}
		if n := len(points); n > 0 {
			points = append(points, chart.Gap(points[n-1].X))
		}
	}
	return points
}

// flat says that a line is nought all the time: the figure was not there to be taken.
func flat(points []chart.Point) bool {
	return !slices.ContainsFunc(points, func(p chart.Point) bool { return p.Y > 0 })
}

// distribution draws the latencies of the replies to the generator: the median over the rounds at each share.
func distribution(rounds []Round, names []string) chart.Chart {
	c := chart.Chart{Title: "Latency of replies", X: chart.Axis{Label: "share of the messages", Scale: chart.Tail},
		Y: chart.Axis{Label: "ms", Scale: chart.Log}}
	for _, name := range names {
		line := chart.Line{Name: name, Dots: true}
		for i, share := range latency.Shares {
			var values []float64
			for _, round := range rounds {
				if m := round[name]; i < len(m.Curve) {
					values = append(values, milliseconds(m.Curve[i]))
				}
			}
			if len(values) > 0 {
				line.Points = append(line.Points, chart.Point{X: share, Y: middle(values)})
			}
		}
		c.Lines = append(c.Lines, line)
	}
	return c
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// noise notes rates of the same thing that lie far apart: the machine was not the same all the time.
func noise(what string, rates []float64) []string {
	return noiseIn("messages/s", "rate of the "+what, rates)
}

// noiseIn notes values of the same thing that lie far apart, in their unit.
func noiseIn(unit, what string, values []float64) []string {
	s := spreadOf(values)
	if len(values) < 2 || s.Median <= 0 || (s.Max-s.Min)/s.Median <= noiseLimit {
		return nil
	}
	return []string{fmt.Sprintf("NOISE: the %s varies by %.0f%% between the rounds (%.0f to %.0f %s)", what, 100*(s.Max-s.Min)/s.Median, s.Min, s.Max, unit)}
}

// noiseLimit is the spread of a ceiling's rates, of their median, beyond which a report says so.
const noiseLimit = 0.15
