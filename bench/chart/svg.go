package chart

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"slices"
)

// Measures of the picture, in its own units; a page scales it.
const (
	width  = 720
	height = 270
	left   = 58  // of the plot
	right  = 692 //
	top    = 46
	bottom = 228

	// Colours is how many colours a page must define, as the CSS variables --c0, --c1, …; a chart takes them in turn.
	Colours = 8
)

// frame carries values to where they are drawn.
type frame struct {
	*Chart
	xFrom, xTo, yFrom, yTo float64 // places at the ends of the axes
	xMarks, yMarks         []mark
}

func (c *Chart) frame() frame {
	f := frame{Chart: c, xFrom: math.Inf(1), xTo: math.Inf(-1), yFrom: math.Inf(1), yTo: math.Inf(-1)}
	for i := range c.Lines {
		for _, p := range c.Lines[i].Points {
			if c.drawn(p) {
				x, y := c.X.Scale.place(p.X), c.Y.Scale.place(p.Y)
				f.xFrom, f.xTo, f.yFrom, f.yTo = min(f.xFrom, x), max(f.xTo, x), min(f.yFrom, y), max(f.yTo, y)
			}
		}
	}
	if c.Y.Scale == Linear {
		f.yFrom, f.yTo = min(f.yFrom, 0), max(f.yTo*1.05, 0)
	}
	if f.xTo <= f.xFrom {
		f.xTo = f.xFrom + 1
	}
	if f.yTo <= f.yFrom {
		f.yTo = f.yFrom + 1
	}
	f.xMarks, f.xFrom, f.xTo = c.X.Scale.marks(f.xFrom, f.xTo)
	f.yMarks, f.yFrom, f.yTo = c.Y.Scale.marks(f.yFrom, f.yTo)
	return f
}

func (f *frame) x(place float64) float64 { return left + (place-f.xFrom)/(f.xTo-f.xFrom)*(right-left) }
func (f *frame) y(place float64) float64 {
	return bottom - (place-f.yFrom)/(f.yTo-f.yFrom)*(bottom-top)
}

// SVG draws the chart as one element for an HTML page, or nothing where there is nothing to draw. Texts take the page's colour, lines those of
// Colours.
func (c *Chart) SVG() []byte {
	if c.Empty() {
		return nil
	}
	f := c.frame()
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s" fill="currentColor" font-size="11">`+"\n", width, height,
		html.EscapeString(c.Title))
	fmt.Fprintf(&b, `<text x="%d" y="14" font-size="13" font-weight="600">%s</text>`+"\n", 4, html.EscapeString(c.Title))
	f.axes(&b)
	at := 4.0
	for i := range c.Lines {
		l := &c.Lines[i]
		if !slices.ContainsFunc(l.Points, c.drawn) {
			continue // and its colour is not another's
		}
		fmt.Fprintf(&b, `<rect x="%.0f" y="24" width="10" height="10" fill="var(--c%d)"/><text x="%.0f" y="33">%s</text>`+"\n", at, i%Colours, at+14,
			html.EscapeString(l.Name))
		at += 26 + 6.2*float64(len([]rune(l.Name)))
		f.line(&b, l, i%Colours)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// axes draws what the lines are read by.
func (f *frame) axes(b *bytes.Buffer) {
	for _, m := range f.yMarks {
		y := f.y(m.at)
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="currentColor" opacity=".15"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", left, y, right,
			left-6, y+4, html.EscapeString(m.name))
	}
	for _, m := range f.xMarks {
		x := f.x(m.at)
		fmt.Fprintf(b, `<path d="M%.1f %dv5" stroke="currentColor" opacity=".5"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x, bottom, x,
			bottom+17, html.EscapeString(m.name))
	}
	fmt.Fprintf(b, `<path d="M%d %dH%d" stroke="currentColor" opacity=".5"/>`+"\n", left, bottom, right)
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" opacity=".75">%s</text>`+"\n", right, bottom+34, html.EscapeString(f.X.Label))
	fmt.Fprintf(b, `<text x="%d" y="14" text-anchor="end" opacity=".75">%s</text>`+"\n", right, html.EscapeString(f.Y.Label))
}

// line draws one line, in pieces between its gaps. A piece of one point is a dot.
func (f *frame) line(b *bytes.Buffer, l *Line, colour int) {
	points := thin(l.Points)
	var path, dots bytes.Buffer
	for i, p := range points {
		if !f.drawn(p) {
			continue
		}
		x, y := f.x(f.X.Scale.place(p.X)), f.y(f.Y.Scale.place(p.Y))
		follows := i > 0 && f.drawn(points[i-1])
		command := 'M'
		if follows {
			command = 'L'
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", command, x, y)
		if lone := !follows && (i+1 == len(points) || !f.drawn(points[i+1])); l.Dots || lone {
			fmt.Fprintf(&dots, `<circle cx="%.1f" cy="%.1f" r="3" fill="var(--c%d)"><title>%s: %.5g, %s</title></circle>`+"\n", x, y, colour,
				html.EscapeString(l.Name), p.X, number(p.Y))
		}
	}
	fmt.Fprintf(b, `<path d="%s" fill="none" stroke="var(--c%d)" stroke-width="1.6" stroke-linejoin="round"><title>%s</title></path>`+"\n", path.Bytes(),
		colour, html.EscapeString(l.Name))
	b.Write(dots.Bytes())
}
