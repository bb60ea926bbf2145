package ledger

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/proto/smtp"
)

func shape() Shape {
	return Shape{Run: 0x0123456789abcdef, Size: 2048, Recipients: 3, Sender: "a@b.example", Date: "Thu, 01 Jan 2026 00:00:00 +0000"}
}

// content is what a receiver makes of the wire octets.
func content(t *testing.T, wire []byte) []byte {
	t.Helper()
	var d smtp.Decoder
	d.Reset()
	wire = append(bytes.Clone(wire), ".\r\n"...)
	var out []byte
	for {
		n, span, found := d.Decode(wire)
		wire = wire[n:]
		switch found {
		case smtp.DecodedSpan:
			out = append(out, span...)
		case smtp.DecodedEnd:
			if len(wire) > 0 {
				t.Fatalf("%d octets behind the end", len(wire))
			}
			return out
		default:
			t.Fatalf("decoder found %v", found)
		}
	}
}

func scan(s *Scanner, spans ...[]byte) Kind {
	s.Reset()
	for _, p := range spans {
		s.Content(p)
	}
	return s.End()
}

func TestTemplateHead(t *testing.T) {
	tpl, err := NewTemplate(shape())
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(tpl.Number(42, 17)), "\r\nDate:")
	want := "Message-ID: <mr-0123456789abcdef.000000000042@bench.mailrace>\r\n" +
		"X-Mailrace-Bench: 2 recipients=0003 stream=000017 crc32c="
	if len(head) != len(want)+8 || !strings.HasPrefix(head, want) {
		t.Errorf("got %q, want %q and a checksum", head, want)
	}
}

func TestSizesAreExact(t *testing.T) {
	for _, dots := range []bool{false, true} {
		for size := 300; size < 800; size++ {
			s := shape()
			s.Size, s.Dots = size, dots
			tpl, err := NewTemplate(s)
			if err != nil {
				t.Fatal(err)
			}
			c := content(t, tpl.Number(7, 17))
			if len(c) != size || tpl.Size() != size {
				t.Fatalf("content of %d octets, Size %d, want %d", len(c), tpl.Size(), size)
			}
			if stuffed := len(tpl.Number(7, 17)) > size; stuffed != dots {
				t.Fatalf("size %d: stuffed %v, want %v", size, stuffed, dots)
			}
			var sc Scanner
			if kind := scan(&sc, c); kind != Intact {
				t.Fatalf("size %d: kind %d", size, kind)
			}
		}
	}
	s := shape()
	s.Size = 10
	if _, err := NewTemplate(s); !errors.Is(err, ErrSize) {
		t.Errorf("a size below the headers: %v", err)
	}
}

func TestScannerInAnySplit(t *testing.T) {
	tpl, _ := NewTemplate(shape())
	whole := append([]byte("Received: from x\r\n\tby y; now\r\nX-Other: 1\r\n"), tpl.Number(12345, 17)...)
	check := func(spans ...[]byte) {
		t.Helper()
		var s Scanner
		if kind := scan(&s, spans...); kind != Intact || s.Run != shape().Run || s.Number != 12345 || s.Recipients != 3 || s.Stream != 17 {
			t.Fatalf("kind %d, run %v, number %d, recipients %d, stream %d", kind, s.Run, s.Number, s.Recipients, s.Stream)
		}
	}
	check(whole)
	for i := range whole {
		check(whole[:i], whole[i:])
	}
	var single [][]byte
	for i := range whole {
		single = append(single, whole[i:i+1])
	}
	check(single...)
}

func TestEveryAlteredOctetShows(t *testing.T) {
	tpl, _ := NewTemplate(shape())
	original := bytes.Clone(tpl.Number(99, 17))
	var s Scanner
	for i := range original {
		c := bytes.Clone(original)
		c[i] ^= 1
		switch kind := scan(&s, c); {
		case kind == Altered:
		case (kind == Foreign || kind == Anonymous) && i < len(idPrefix)+markDigits+len(idSuffix): // no longer ours: the ledger misses it
		default:
			t.Fatalf("octet %d changed: kind %d", i, kind)
		}
	}
	for i := tpl.patched; i < len(original); i++ { // cut short, one missing, one twice
		if kind := scan(&s, original[:i]); kind != Altered {
			t.Fatalf("cut at %d: kind %d", i, kind)
		}
		if kind := scan(&s, original[:i], original[i+1:]); kind != Altered {
			t.Fatalf("without octet %d: kind %d", i, kind)
		}
		if kind := scan(&s, original[:i], original[i-1:]); kind != Altered {
			t.Fatalf("octet %d twice: kind %d", i-1, kind)
		}
	}
	// The body of one message of the run behind the header of another is a change only if they differ.
	if kind := scan(&s, original[:tpl.patched], []byte("other\r\n")); kind != Altered {
		t.Errorf("another body: kind %d", kind)
	}
}

func TestForeignMessages(t *testing.T) {
	var s Scanner
	if kind := scan(&s, []byte("Subject: x\r\nmessage-id:  <a@b> \r\n\r\nMessage-ID: <no@header>\r\n")); kind != Foreign {
		t.Fatalf("kind %d", kind)
	}
	first := s.Hash
	scan(&s, []byte("Message-Id: <a@b>\r\n\r\n"))
	if s.Hash != first {
		t.Error("the same Message-ID has two hashes")
	}
	scan(&s, []byte("Message-Id: <a@c>\r\n\r\n"))
	if s.Hash == first {
		t.Error("two Message-IDs have the same hash")
	}
	for _, text := range []string{"", "Subject: x\r\n\r\nMessage-ID: <no@header>\r\n", "Message-ID:\r\n\r\n", "no line end"} {
		if kind := scan(&s, []byte(text)); kind != Anonymous {
			t.Errorf("%q: kind %d", text, kind)
		}
	}
	if kind := scan(&s, bytes.Repeat([]byte("X: y\r\n"), 100_000)); kind != Anonymous || len(s.header) > headerLimit*10 {
		t.Errorf("an endless header: kind %d", kind)
	}
}

func TestNumberAllocatesNothing(t *testing.T) {
	tpl, _ := NewTemplate(shape())
	var s Scanner
	n := uint64(0)
	if a := testing.AllocsPerRun(100, func() {
		n++
		if scan(&s, tpl.Number(n, 17)) != Intact {
			t.Fatal("not intact")
		}
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestAccountIsExact loses, doubles and invents known numbers.
func TestAccountIsExact(t *testing.T) {
	const recipients = 3
	rng := rand.New(rand.NewPCG(7, 7))
	acked, arrived := NewTally(1, recipients), NewTally(1, recipients)
	var want Account
	for n := range uint64(100_000) {
		for j := range recipients {
			ack, copies := rng.IntN(10) > 0, [...]int{0, 1, 1, 1, 1, 2, 3}[rng.IntN(7)]
			if ack {
				acked.Add(n, j)
				want.Acknowledged++
			}
			for range copies {
				arrived.Add(n, j)
			}
			want.Doubled += uint64(max(0, copies-1))
			switch {
			case copies > 0:
				want.Arrived++
				if !ack {
					want.Unacknowledged++
				}
			case ack:
				want.Lost++
			}
		}
	}
	arrived.AddAltered()
	want.Altered = 1
	if got := Compare(acked, arrived); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	path := filepath.Join(t.TempDir(), "ledger")
	if err := Save(path, acked, NewTally(2, 1)); err != nil {
		t.Fatal(err)
	}
	b, err := LoadBook(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := Compare(b.Run(1), arrived); got != want {
		t.Errorf("from the file: got %+v, want %+v", got, want)
	}
	if got := Compare(acked, nil); got.Lost != want.Acknowledged {
		t.Errorf("nothing arrived: %+v", got)
	}
}

// TestOrder: only the first sight of a message counts, against those of its own stream for the same recipient.
func TestOrder(t *testing.T) {
	tally := NewTally(1, 2)
	for i, c := range []struct {
		number            uint64
		recipient, stream int
		path              uint64
		reordered         bool
	}{
		{5, 0, 1, 7, false}, {4, 0, 2, 7, false}, // another stream
		{3, 1, 1, 8, false},                     // another recipient
		{3, 0, 1, 7, true}, {3, 0, 1, 7, false}, // seen
		{4, 1, 1, 8, false}, {2, 0, 1, 7, true}, {6, 0, 1, 7, false}, {1, 0, 1, 7, true}, {0, 2, 1, 7, false}, // cannot be
	} {
		before := tally.Totals().Reordered
		tally.Arrive(c.number, c.recipient, c.stream, c.path)
		if got := tally.Totals().Reordered > before; got != c.reordered {
			t.Errorf("%d: reordered %v", i, got)
		}
	}
	if a := Compare(NewTally(1, 2), tally); a.Reordered != 3 || a.Doubled != 1 || a.Add(a).Reordered != 6 {
		t.Errorf("%+v", a)
	}
	path := filepath.Join(t.TempDir(), "ledger")
	if err := Save(path, tally); err != nil {
		t.Fatal(err)
	}
	if ts, err := Load(path); err != nil || ts[0].Totals() != tally.Totals() {
		t.Errorf("%v", err)
	}
}

func TestTallyRefusesWhatCannotBe(t *testing.T) {
	tally := NewTally(1, 2)
	tally.Add(5, 2)
	tally.Add(5, -1)
	for n := range uint64(300) {
		tally.Add(5, 0)
		_ = n
	}
	if got := tally.Totals(); got != (Totals{Distinct: 1, Doubled: 299, Beyond: 2}) {
		t.Errorf("%+v", got)
	}
	if c := tally.Count(5, 0); c != 255 {
		t.Errorf("count %d, want 255", c)
	}
}

func TestBook(t *testing.T) {
	b := NewBook()
	if first := b.Open(1, 2); b.Open(1, 2) != first || b.Open(2, 1) == first {
		t.Error("a run has one tally")
	}
	if b.Open(1, 3) != nil {
		t.Error("a run with another number of recipients has a tally")
	}
	if !b.Foreign(7) || b.Foreign(7) || !b.Foreign(8) {
		t.Error("foreign hashes")
	}
	if distinct, duplicates := b.ForeignTotals(); distinct != 2 || duplicates != 1 {
		t.Errorf("%d distinct, %d duplicates", distinct, duplicates)
	}
	if ts := b.Runs(); len(ts) != 2 || ts[0].Run() != 1 {
		t.Errorf("runs %v", ts)
	}
}

func TestRecipientIndex(t *testing.T) {
	for _, n := range []int{0, 1, 42, 9999} {
		if got := RecipientIndex(AppendLocalPart(nil, n)); got != n {
			t.Errorf("%d came back as %d", n, got)
		}
	}
	for _, s := range []string{"", "r", "x1", "r1x", "r123456", "R1"} {
		if got := RecipientIndex([]byte(s)); got != -1 {
			t.Errorf("%q is index %d", s, got)
		}
	}
}

func BenchmarkNumber10KiB(b *testing.B) {
	s := shape()
	s.Size = 10 << 10
	tpl, _ := NewTemplate(s)
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		tpl.Number(n, 17)
	}
}

func BenchmarkScan10KiB(b *testing.B) {
	s := shape()
	s.Size = 10 << 10
	tpl, _ := NewTemplate(s)
	wire := tpl.Number(1, 17)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	var sc Scanner
	for b.Loop() {
		scan(&sc, wire)
	}
}

// FuzzScanner: any octets in any split give the same result, and never a panic.
func FuzzScanner(f *testing.F) {
	tpl, _ := NewTemplate(shape())
	f.Add(bytes.Clone(tpl.Number(3, 17)), uint16(40))
	f.Add([]byte("Message-ID: <x@y>\r\n\r\n"), uint16(3))
	f.Fuzz(func(t *testing.T, p []byte, at uint16) {
		var a, b Scanner
		cut := min(int(at), len(p))
		if x, y := scan(&a, p), scan(&b, p[:cut], p[cut:]); x != y || a.Number != b.Number || x == Foreign && a.Hash != b.Hash {
			t.Errorf("whole %d, in two %d", x, y)
		}
	})
}
