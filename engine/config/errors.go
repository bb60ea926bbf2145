package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File         string // "" when the configuration did not come from a file
	Line, Column int    // from 1; 0 when the configuration did not come from a file
	Key          string // as in "queue.retry_min"; elements of lists have an index when there is no file: "listener[0].address"
	Text         string // what was found and what would be right
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Line > 0 {
		fmt.Fprintf(&b, "%s:%d:%d: ", p.File, p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Text
}

// Errors is everything that is wrong with a configuration, in the order of the file. It is what Load, Parse and Validate return when
// the configuration itself is at fault.
type Errors []Problem

// Error is one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// foundMax is how much of a wrong value a complaint repeats.
const foundMax = 60

func shorten(s string) string {
	if len(s) > foundMax {
		return strings.ToValidUTF8(s[:foundMax], "") + "…"
	}
	return s
}

func quote(s string) string { return strconv.QuoteToASCII(shorten(s)) }

// nearest returns the name that s most likely was meant to be, or "". Case and two slips are forgiven, fewer slips in short names.
func nearest(s string, names []string) string {
	s = strings.ToLower(s)
	best, bestDistance := "", min(2, len(s)/3)+1
	for _, n := range names {
		if d := distance(s, strings.ToLower(n), bestDistance); d < bestDistance {
			best, bestDistance = n, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b, or limit when it is not below limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
