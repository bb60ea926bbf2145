package chart

import (
	"encoding/xml"
	"flag"
	"io"
	"math"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestSVG compares a chart of all scales with a file, and reads it as XML.
func TestSVG(t *testing.T) {
	rate := Chart{Title: "Rate <1>", X: Axis{Label: "s"}, Y: Axis{Label: "messages/s"}, Lines: []Line{
		{Name: "ceiling & co", Points: []Point{{0, 100_000}, {1, 110_000}, Gap(2), {3, 90_000}, {4, 95_000}}},
		{Name: "mta", Points: []Point{{2, 52_000}}},
		{Name: "nothing", Points: []Point{Gap(1)}}}}
	tail := Chart{Title: "Latency", X: Axis{Scale: Tail}, Y: Axis{Label: "ms", Scale: Log},
		Lines: []Line{{Name: "mta", Dots: true, Points: []Point{{0.5, 2}, {0.99, 12}, {0.999, 90}, {1, 1000}, {0.5, 0}}}}}
	svg := string(rate.SVG()) + string(tail.SVG())
	const path = "testdata/charts.svg"
	if *update {
		if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if svg != string(want) {
		t.Errorf("got\n%s\nwant\n%s", svg, want)
	}
	d := xml.NewDecoder(strings.NewReader("<svg>" + svg + "</svg>"))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothing: what has no place on the axes draws nothing at all.
func TestNothing(t *testing.T) {
	for _, c := range []Chart{
		{},
		{Lines: []Line{{Name: "a"}}},
		{Lines: []Line{{Points: []Point{Gap(1), {math.Inf(1), 1}}}}},
		{Y: Axis{Scale: Log}, Lines: []Line{{Points: []Point{{1, 0}, {2, -1}}}}},
		{X: Axis{Scale: Tail}, Lines: []Line{{Points: []Point{{1, 1}, {-1, 1}}}}},
	} {
		if svg := c.SVG(); svg != nil {
			t.Errorf("%+v: %s", c, svg)
		}
	}
}

// TestMarks: every axis has a few marks, within its ends, whatever the values.
func TestMarks(t *testing.T) {
	for _, span := range []float64{1e-9, 0.3, 1, 7, 10, 99, 12_345, 1e12} {
		for _, s := range []Scale{Linear, Log} {
			lo, hi := s.place(span/100), s.place(span)
			all, from, to := s.marks(lo, hi)
			if from > lo || to < hi || len(all) < 2 || len(all) > 12 {
				t.Errorf("span %v, scale %d: %d marks from %v to %v", span, s, len(all), from, to)
			}
			for _, m := range all {
				if slack := (to - from) * 1e-9; m.at < from-slack || m.at > to+slack {
					t.Errorf("span %v, scale %d: mark %v outside of %v to %v", span, s, m, from, to)
				}
			}
		}
	}
	for v, want := range map[float64]string{0: "0", 0.25: "0.25", 9999: "9999", 12_000: "12k", 1.5e6: "1.5M", 2e9: "2G"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

// TestThin: a long line is bounded, keeps its mean, and a gap in it stays.
func TestThin(t *testing.T) {
	var points []Point
	for i := range 10 * mostPoints {
		points = append(points, Point{float64(i), 3})
	}
	points[5000] = Gap(5000)
	thinned, gaps := thin(points), 0
	for _, p := range thinned {
		if math.IsNaN(p.Y) {
			gaps++
		} else if p.Y != 3 {
			t.Fatalf("%+v", p)
		}
	}
	if len(thinned) > mostPoints || gaps != 1 {
		t.Errorf("%d points, %d gaps", len(thinned), gaps)
	}
	if short := points[:10]; &thin(short)[0] != &short[0] {
		t.Error("a short line was thinned")
	}
}
