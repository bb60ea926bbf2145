package smtp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// decoded is everything that can be known of a message from outside a decoder.
type decoded struct {
	content string
	found   Decoded // DecodedEnd, a violation, or DecodedNothing where the input ends first
	rest    string  // what stands behind the end of data
	dots    bool
}

func (d decoded) String() string {
	return fmt.Sprintf("found %d, content %.200q, rest %.200q, leading dots %v", d.found, d.content, d.rest, d.dots)
}

// decodeSlowly is the decoder as one would write it to be read, an octet at a time.
func decodeSlowly(input string) (d decoded) {
	content := []byte{}
	for i := 0; i < len(input); {
		bol := len(content) == 0 || content[len(content)-1] == '\n'
		rest := input[i:]
		switch {
		case bol && strings.HasPrefix(rest, ".\r\n"):
			d.found, d.content, d.rest = DecodedEnd, string(content), rest[3:]
			return d
		case bol && (rest == "." || rest == ".\r") || rest == "\r":
			d.content = string(content)
			return d
		case bol && rest[0] == '.' && rest[1] == '\r':
			d.found = DecodedBareCR
		case bol && rest[0] == '.' && rest[1] == '\n':
			d.found = DecodedBareLF
		case bol && rest[0] == '.' && rest[1] == 0:
			d.found = DecodedNUL
		case bol && rest[0] == '.':
			d.dots = d.dots || rest[1] == '.'
			content = append(content, rest[1])
			i += 2
		case strings.HasPrefix(rest, "\r\n"):
			content = append(content, "\r\n"...)
			i += 2
		case rest[0] == '\r':
			d.found = DecodedBareCR
		case rest[0] == '\n':
			d.found = DecodedBareLF
		case rest[0] == 0:
			d.found = DecodedNUL
		default:
			content = append(content, rest[0])
			i++
		}
		if d.found != DecodedNothing {
			break
		}
	}
	d.content = string(content)
	return d
}

// decode runs the Decoder over input, which next cuts into pieces: it gets how much is left and says how much to present more.
func decode(t testing.TB, input string, next func(left int) int) decoded {
	var dec Decoder
	dec.Reset()
	return decodeBy(t, dec, input, next)
}

func decodeBy(t testing.TB, dec Decoder, input string, next func(left int) int) (d decoded) {
	var content, held []byte
	for {
		for {
			presented := bytes.Clone(held)
			n, span, found := dec.Decode(presented)
			content = append(content, span...)
			held = held[n:]
			clear(presented) // nothing may point there any more
			if found == DecodedNothing {
				break
			}
			if found != DecodedSpan {
				d.found = found
				if found == DecodedEnd {
					d.rest = string(held) + input
				}
				break
			}
			if n == 0 || len(span) == 0 {
				t.Fatalf("a span of %d octets that used up %d", len(span), n)
			}
		}
		if len(held) > 2 && d.found == DecodedNothing {
			t.Fatalf("%q left over", held)
		}
		if d.found != DecodedNothing || len(input) == 0 {
			break
		}
		n := next(len(input))
		held = append(held, input[:n]...)
		input = input[n:]
	}
	if int64(len(content)) != dec.Size() {
		t.Fatalf("size %d of %d octets", dec.Size(), len(content))
	}
	d.content, d.dots = string(content), dec.LeadingDots()
	return d
}

// The ways to cut input into pieces.
func whole(left int) int    { return left }
func bytewise(int) int      { return 1 }
func randomly(left int) int { return rand.IntN(min(left, 1+rand.IntN(40))) + 1 }

// checkDecode compares the Decoder with decodeSlowly in all ways to cut input.
func checkDecode(t testing.TB, input string) decoded {
	want := decodeSlowly(input)
	for _, cut := range []func(int) int{whole, bytewise, randomly, randomly} {
		got := decode(t, input, cut)
		if got.found > DecodedEnd { // whether a line that holds a violation begins with a dot is nobody's business
			got.dots = want.dots
		}
		if got != want {
			t.Fatalf("%.300q:\n got %v\nwant %v", input, got, want)
		}
	}
	return want
}

func TestDecoder(t *testing.T) {
	for _, tc := range []struct {
		input string
		want  decoded
	}{
		{".\r\n", decoded{found: DecodedEnd}},
		{"\r\n.\r\n", decoded{content: "\r\n", found: DecodedEnd}},
		{"a\r\n.\r\nQUIT\r\n", decoded{content: "a\r\n", found: DecodedEnd, rest: "QUIT\r\n"}},
		{"a\r\n..\r\n...\r\n.b\r\n.\r\n", decoded{content: "a\r\n.\r\n..\r\nb\r\n", found: DecodedEnd, dots: true}},
		{".b\r\n.\r\n", decoded{content: "b\r\n", found: DecodedEnd}},
		{"a.\r\n.\r\n.\r\n", decoded{content: "a.\r\n", found: DecodedEnd, rest: ".\r\n"}},
		{"a\r\n.", decoded{content: "a\r\n"}},
		{"a\r\n.\r", decoded{content: "a\r\n"}},
		{"a\r", decoded{content: "a"}},
		{"", decoded{}},
		{"a\rb", decoded{content: "a", found: DecodedBareCR}},
		{"a\r\r\n", decoded{content: "a", found: DecodedBareCR}},
		{"a\nb", decoded{content: "a", found: DecodedBareLF}},
		{"\n", decoded{found: DecodedBareLF}},
		{"a\x00b\n\r", decoded{content: "a", found: DecodedNUL}},
		{"a\r\n\x00.\r\n", decoded{content: "a\r\n", found: DecodedNUL}},
		{"a\r\n.\x00\r\n", decoded{content: "a\r\n", found: DecodedNUL}},
		{"a\r\n.\r\r\n", decoded{content: "a\r\n", found: DecodedBareCR}},
		{"a\r\n.\n", decoded{content: "a\r\n", found: DecodedBareLF}},
	} {
		if got := checkDecode(t, tc.input); got != tc.want {
			t.Errorf("%q:\n got %v\nwant %v", tc.input, got, tc.want)
		}
	}
}

// TestDecoderMatchesReference runs strings of the octets that matter, all up to a length and random longer ones.
func TestDecoderMatchesReference(t *testing.T) {
	const alphabet = "\r\n.\x00a"
	input := make([]byte, 0, 300)
	var all func(n int)
	all = func(n int) {
		want := decodeSlowly(string(input))
		for _, cut := range []func(int) int{whole, bytewise} {
			got := decode(t, string(input), cut)
			if got.found > DecodedEnd {
				got.dots = want.dots
			}
			if got != want {
				t.Fatalf("%q:\n got %v\nwant %v", input, got, want)
			}
		}
		for i := 0; n > 0 && i < len(alphabet); i++ {
			input = append(input, alphabet[i])
			all(n - 1)
			input = input[:len(input)-1]
		}
	}
	all(6)
	pieces := []string{"\r\n", "\r\n", "\r\n.", "\r\n..", "a", "bcd", "\r\n.\r", "\r", "\n", "\x00", strings.Repeat("x", 70)}
	for range 20_000 {
		var b strings.Builder
		for range rand.IntN(30) {
			b.WriteString(pieces[min(rand.IntN(len(pieces)), rand.IntN(len(pieces)*2))%len(pieces)])
		}
		checkDecode(t, b.String())
	}
}

// TestLinesAreNeverSplit (B12): a line of any length comes out as it went in.
func TestLinesAreNeverSplit(t *testing.T) {
	long := strings.Repeat("x", 100_000) + "\r\n"
	if got := checkDecode(t, long+"y\r\n.\r\n"); got.content != long+"y\r\n" || got.found != DecodedEnd {
		t.Fatalf("got %v", got)
	}
}

// TestStuffingRoundTrip: what AppendStuffed writes, in any pieces, is read back by the Decoder.
func TestStuffingRoundTrip(t *testing.T) {
	for _, content := range []string{"", ".\r\n", "..\r\n.a\r\n\r\n.\r\n", "a\r\nb.\r\n", string(lines(1000))} {
		for range 20 {
			var wire []byte
			bol := true
			for rest := []byte(content); len(rest) > 0; {
				n := randomly(len(rest))
				wire, bol = AppendStuffed(wire, rest[:n], bol)
				rest = rest[n:]
			}
			got := decodeSlowly(string(wire) + ".\r\n")
			if !bol || got.content != content || got.found != DecodedEnd || got.rest != "" {
				t.Fatalf("%q became %q, which is %v", content, wire, got)
			}
			if dots := strings.HasPrefix(content, ".") || strings.Contains(content, "\n."); got.dots != dots {
				t.Fatalf("%q: leading dots %v, want %v", content, got.dots, dots)
			}
		}
	}
}

func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{"a\r\n.\r\nQUIT\r\n", "..\r\n.b\r\n.\r\n", "a\r\n.\r\r\n", "a\n.\n", "\x00", string(lines(300)) + ".\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) { checkDecode(t, input) })
}

// lines returns content of about size octets in lines of 76 columns, as base64 has.
func lines(size int) []byte {
	line := strings.Repeat("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJ", 2)[:76] + "\r\n"
	return []byte(strings.Repeat(line, size/len(line)+1))
}

func BenchmarkDecoder(b *testing.B) {
	dotted := bytes.ReplaceAll(lines(10<<10), []byte("\nabc"), []byte("\n..bc"))
	short := bytes.Repeat([]byte("ab\r\n"), 10<<8)
	for _, bc := range []struct {
		name  string
		input []byte
	}{{"76-columns", lines(10 << 10)}, {"every-line-stuffed", dotted}, {"2-columns", short}, {"one-line", append(bytes.Repeat([]byte("x"), 10<<10), "\r\n"...)}} {
		input := append(bc.input, ".\r\n"...)
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(input)))
			b.ReportAllocs()
			var d Decoder
			for b.Loop() {
				d.Reset()
				for p := input; ; {
					n, _, found := d.Decode(p)
					p = p[n:]
					if found == DecodedEnd {
						break
					}
				}
			}
		})
	}
}
