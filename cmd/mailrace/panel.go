package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"mailrace/bench/console"
	"mailrace/bench/load"
	"mailrace/bench/sink"
	"mailrace/engine"
)

// panel shows the demo: in place on a terminal, as a line a second anywhere else.
type panel struct {
	out    io.Writer
	tty    bool
	drawn  int // lines that stand on the terminal
	before engine.Status
	at     float64   // seconds
	rates  []float64 // accepted per second, of the last while
}

// history is how many seconds the curve shows.
const history = 48

func newPanel(out io.Writer) *panel {
	f, ok := out.(*os.File)
	return &panel{out: out, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// update shows what happened since the last time.
func (p *panel) update(s engine.Status, l load.Progress, far sink.Report) {
	now := l.Elapsed.Seconds()
	d := max(now-p.at, 1e-3)
	rate := func(now, before uint64) float64 { return float64(now-before) / d }
	accepted, delivered := rate(s.Accepted, p.before.Accepted), rate(s.Delivered, p.before.Delivered)
	deferred := rate(s.Deferrals, p.before.Deferrals)
	p.before, p.at = s, now
	p.rates = append(p.rates, accepted)
	if len(p.rates) > history {
		p.rates = p.rates[1:]
	}
	if !p.tty {
		fmt.Fprintf(p.out, "%4.0fs  accepted %6.0f/s  delivered %6.0f/s  deferred %5.0f/s  queue %s  p50 %s  p99 %s\n", now, accepted,
			delivered, deferred, queued(s), console.Duration(l.Latency.P50), console.Duration(l.Latency.P99))
		return
	}
	p.draw(
		fmt.Sprintf("            %12s %14s", "per second", "total"),
		fmt.Sprintf("accepted    %12.0f %14s   %s", accepted, console.Count(s.Accepted), curve(p.rates)),
		fmt.Sprintf("delivered   %12.0f %14s", delivered, console.Count(s.Delivered)),
		fmt.Sprintf("deferred    %12.0f %14s", deferred, console.Count(s.Deferrals)),
		fmt.Sprintf("bounced     %12s %14s", "", console.Count(s.Bounced)),
		fmt.Sprintf("queue       %12s %14s", "", queued(s)),
		fmt.Sprintf("latency      p50 %s   p99 %s   p99.9 %s", console.Duration(l.Latency.P50), console.Duration(l.Latency.P99),
			console.Duration(l.Latency.P999)),
		fmt.Sprintf("sink         %s received, %d doubled, %d altered", console.Count(far.Messages), far.Duplicates, far.Altered),
		fmt.Sprintf("\x1b[2m%.0f s, Ctrl-C ends\x1b[0m", now),
	)
}

// queued is the length of the queue, as far as it is known.
func queued(s engine.Status) string {
	n := console.Count(uint64(s.Queue))
	if s.Counting {
		n += ", counting"
	}
	return n
}

// draw replaces what stands on the terminal.
func (p *panel) draw(lines ...string) {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, line := range lines {
		b.WriteString("\r\x1b[K" + line + "\n")
	}
	p.drawn = len(lines)
	io.WriteString(p.out, b.String())
}

// end says what came of it.
func (p *panel) end(s engine.Status, far sink.Report) {
	fmt.Fprintf(p.out, "accepted %s, delivered %s, sink received %s, %d doubled, %d altered; %s left in the queue with the demo's spool\n",
		console.Count(s.Accepted), console.Count(s.Delivered), console.Count(far.Messages), far.Duplicates, far.Altered,
		console.Count(uint64(s.Queue)))
}

// curve draws values as a line of blocks.
func curve(values []float64) string {
	top := 1.0
	for _, v := range values {
		top = max(top, v)
	}
	const blocks = "▁▂▃▄▅▆▇█"
	var b strings.Builder
	for _, v := range values {
		b.WriteRune([]rune(blocks)[int(v/top*7)])
	}
	return b.String()
}
