package console

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	var b strings.Builder
	if err := Table(&b, []string{"", "messages/s", "µs"}, [][]string{{"ceiling", "43000", "18.2"}, {"mta", "9", "–"}}); err != nil {
		t.Fatal(err)
	}
	const want = `         messages/s    µs
─────────────────────────
ceiling       43000  18.2
mta               9     –
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestLineOutsideATerminal(t *testing.T) {
	var b strings.Builder
	l := NewLine(&b)
	l.Show("one")
	l.Show("two")
	l.Clear()
	if b.String() != "one\n" || l.Terminal() {
		t.Errorf("%q", b.String())
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", 1234: "1.23µs", 123456: "123µs", 12345678: "12.3ms", 1234567890: "1.23s", 12345678901: "12.3s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d: %q, want %q", d, got, want)
		}
	}
}
