package console

import (
	"strings"
	"testing"
	"time"
)

func TestStep(t *testing.T) {
	for want, s := range map[string]Step{
		"counting   1,234 records":          {Name: "counting", Unit: "records", Done: 1234, Left: -1},
		"counting   1,234 records  5,000/s": {Name: "counting", Unit: "records", Done: 1234, Rate: 5000.4, Left: -1},
		"copying    " + strings.Repeat("█", 12) + strings.Repeat("░", 12) + "  50 %  2,000 of 4,000 records  400/s  5s left": {
			Name: "copying", Unit: "records", Done: 2000, Total: 4000, Rate: 400, Left: 5 * time.Second},
		"copying    " + strings.Repeat("█", 24) + " 100 %  5 of 4 records": {Name: "copying", Unit: "records", Done: 5, Total: 4, Left: -1},
	} {
		if got := s.String(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestBarOutsideATerminal(t *testing.T) {
	var b strings.Builder
	bar := NewBar(&b)
	for i := range int64(3) {
		bar.Show(Step{Name: "one", Unit: "x", Done: i, Left: -1})
	}
	bar.Show(Step{Name: "two", Unit: "x", Done: 7, Left: -1})
	bar.End()
	bar.End()
	if want := "one        2 x\ntwo        7 x\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
