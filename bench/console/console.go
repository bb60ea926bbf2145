// Package console shows live progress and tables, on a terminal or in a log.
package console

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// Line is a line of progress that is rewritten in place on a terminal. Anywhere else each text is a line of its own, at most one in five
// seconds. One goroutine at a time.
type Line struct {
	w    io.Writer
	tty  bool
	next time.Time
	live bool // a text stands on the terminal's last line
}

// logEvery keeps a progress that nobody watches from filling a log.
const logEvery = 5 * time.Second

// NewLine returns a line on w.
func NewLine(w io.Writer) *Line {
	f, ok := w.(*os.File)
	return &Line{w: w, tty: ok && term.IsTerminal(int(f.Fd()))}
}

// Terminal says whether somebody watches.
func (l *Line) Terminal() bool { return l.tty }

// Show replaces the text.
func (l *Line) Show(text string) {
	if l.tty {
		fmt.Fprintf(l.w, "\r\x1b[K%s", text)
		l.live = true
		return
	}
	if now := time.Now(); !now.Before(l.next) {
		l.next = now.Add(logEvery)
		fmt.Fprintln(l.w, text)
	}
}

// Clear takes the text away, before something else is printed.
func (l *Line) Clear() {
	if l.live {
		fmt.Fprint(l.w, "\r\x1b[K")
		l.live = false
	}
}

// Table writes rows under a header, columns aligned: the first to the left, all others to the right.
func Table(w io.Writer, header []string, rows [][]string) error {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	line := func(row []string) {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				b.WriteString(cell + pad)
			} else {
				b.WriteString("  " + pad + cell)
			}
		}
		b.WriteByte('\n')
	}
	line(header)
	total := 2 * (len(header) - 1)
	for _, n := range widths {
		total += n
	}
	b.WriteString(strings.Repeat("─", total) + "\n")
	for _, row := range rows {
		line(row)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Count prints a number with separators: 1,234,567.
func Count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Duration prints three significant digits.
func Duration(d time.Duration) string {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}
