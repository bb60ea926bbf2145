// Package chart draws lines over an axis, as SVG for a page that needs nothing from elsewhere.
//
// It is its own few hundred lines because it is linked into the node: see the README's section on libraries for what was measured of others.
package chart

import (
	"math"
	"slices"
	"strconv"
)

// Scale is how an axis is divided.
type Scale uint8

const (
	Linear Scale = iota
	Log          // decades; what is not above 0 is left out
	Tail         // shares of 0 to below 1, each further nine as wide as the one before: 0, 90, 99, 99.9 %
)

// Axis is one of the two axes.
type Axis struct {
	Label string // with the unit
	Scale Scale
}

// Point is a value; a Y that is not a number breaks the line.
type Point struct{ X, Y float64 }

// Gap is a point that breaks a line at x.
func Gap(x float64) Point { return Point{x, math.NaN()} }

// Line is a row of points, in the order of their X.
type Line struct {
	Name   string
	Points []Point
	Dots   bool // mark each point, too; its values show when a pointer rests on it
}

// Chart is what is drawn. A linear Y axis begins at 0.
type Chart struct {
	Title string
	X, Y  Axis
	Lines []Line
}

// Empty says that there is nothing to draw.
func (c *Chart) Empty() bool {
	return !slices.ContainsFunc(c.Lines, func(l Line) bool { return slices.ContainsFunc(l.Points, c.drawn) })
}

// drawn says whether a point has a place on the axes.
func (c *Chart) drawn(p Point) bool { return c.X.Scale.has(p.X) && c.Y.Scale.has(p.Y) }

func (s Scale) has(v float64) bool {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return false
	case s == Log:
		return v > 0
	case s == Tail:
		return v >= 0 && v < 1
	}
	return true
}

// place is where a value stands on an axis, before the axis is stretched to its length.
func (s Scale) place(v float64) float64 {
	switch s {
	case Log:
		return math.Log10(v)
	case Tail:
		return -math.Log10(1 - v)
	}
	return v
}

// mark is a value that an axis names.
type mark struct {
	at   float64 // a place
	name string
}

// marks divides the axis from place lo to place hi, and moves both outwards to the marks next to them where the axis has room for that.
func (s Scale) marks(lo, hi float64) (_ []mark, from, to float64) {
	var all []mark
	switch s {
	case Log:
		lo, hi = math.Floor(lo), math.Ceil(hi)
		hi = max(hi, lo+1)
		for e := lo; e <= hi; e++ {
			all = append(all, mark{e, number(math.Pow(10, e))})
			if hi-lo <= 3 && e < hi {
				all = append(all, mark{e + math.Log10(2), number(2 * math.Pow(10, e))}, mark{e + math.Log10(5), number(5 * math.Pow(10, e))})
			}
		}
	case Tail:
		lo = math.Floor(lo)
		for n := lo; n <= hi+0.05; n++ {
			all = append(all, mark{n, strconv.FormatFloat(100-math.Pow(10, 2-n), 'f', max(0, int(n)-2), 64) + " %"})
		}
	default:
		step := division(hi - lo)
		for n := math.Ceil(lo/step - 1e-9); n*step <= hi+step*1e-9; n++ {
			all = append(all, mark{n * step, number(n * step)})
		}
	}
	return all, lo, hi
}

// division is 1, 2 or 5 times a power of ten, so that a span has four to ten of it.
func division(span float64) float64 {
	if span <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(span/4)))
	for _, n := range []float64{1, 2, 5} {
		if next := n * power; span/next <= 8 {
			return next
		}
	}
	return 10 * power
}

// number writes a value short: 1200, 12k, 1.5M.
func number(v float64) string {
	unit := ""
	if v == 0 {
		return "0" // also for the negative one
	}
	switch a := math.Abs(v); {
	case a >= 1e9:
		v, unit = v/1e9, "G"
	case a >= 1e6:
		v, unit = v/1e6, "M"
	case a >= 1e4:
		v, unit = v/1e3, "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + unit
}

// mostPoints is how many points of a line are drawn: more than the picture has room for would only make the page large.
const mostPoints = 1200

// thin puts the mean of neighbours in place of the points of a long line. A gap among them stays one.
func thin(points []Point) []Point {
	group := (len(points) + mostPoints - 1) / mostPoints
	if group <= 1 {
		return points
	}
	thinned := make([]Point, 0, mostPoints)
	for len(points) > 0 {
		n := min(group, len(points))
		var sum Point
		for _, p := range points[:n] {
			sum.X += p.X
			sum.Y += p.Y
		}
		thinned = append(thinned, Point{sum.X / float64(n), sum.Y / float64(n)})
		points = points[n:]
	}
	return thinned
}
