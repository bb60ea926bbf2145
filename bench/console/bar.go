package console

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Step is how far long work is in one of its steps.
type Step struct {
	Name, Unit  string // as in "copying" and "records"
	Done, Total int64  // of the unit; Total 0 = not known
	Rate        float64
	Left        time.Duration // negative = not known
}

// barCells is the width of a bar.
const barCells = 24

// String is a line for people, with a bar where the total is known.
func (s Step) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-10s ", s.Name)
	if s.Total > 0 {
		share := min(float64(s.Done)/float64(s.Total), 1)
		full := int(share * barCells)
		fmt.Fprintf(&b, "%s%s %3.0f %%  %s of %s %s", strings.Repeat("█", full), strings.Repeat("░", barCells-full), 100*share,
			Count(uint64(s.Done)), Count(uint64(s.Total)), s.Unit)
	} else {
		fmt.Fprintf(&b, "%s %s", Count(uint64(s.Done)), s.Unit)
	}
	if s.Rate > 0 {
		fmt.Fprintf(&b, "  %s/s", Count(uint64(s.Rate)))
	}
	if s.Left >= 0 && s.Done < s.Total {
		fmt.Fprintf(&b, "  %v left", s.Left.Round(time.Second))
	}
	return b.String()
}

// Bar shows the steps of long work on a Line: each finished step stays on a terminal, and is a line of its own elsewhere.
type Bar struct {
	line *Line
	w    io.Writer
	last Step
}

// NewBar returns a bar on w.
func NewBar(w io.Writer) *Bar { return &Bar{line: NewLine(w), w: w} }

// Show shows how far the work is. One goroutine at a time.
func (b *Bar) Show(s Step) {
	if s.Name != b.last.Name {
		b.finish()
		b.line.next = time.Now().Add(logEvery) // a short step is one line
	}
	b.last = s
	if s.Done > 0 {
		b.line.Show(s.String())
	}
}

// End leaves the last step there.
func (b *Bar) End() { b.finish() }

func (b *Bar) finish() {
	if b.last.Name == "" {
		return
	}
	b.line.Clear()
	fmt.Fprintln(b.w, b.last)
	b.last = Step{}
}
