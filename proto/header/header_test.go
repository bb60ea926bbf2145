package header

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// splitSlowly is what Split must do, written to be read.
func splitSlowly(content string) (section string, fields, hops int, noTLS bool, end End) {
	for rest := content; rest != ""; {
		line, behind, whole := strings.Cut(rest, "\r\n")
		name, value, colon := strings.Cut(line, ":")
		name = strings.TrimRight(name, " \t")
		switch {
		case whole && line == "":
			return section, fields, hops, noTLS, EmptyLine
		case fields > 0 && line != "" && (line[0] == ' ' || line[0] == '\t'):
		case colon && printable(name) && len(name) <= nameMax:
			fields++
			if strings.EqualFold(name, "received") {
				hops++
			} else if whole && strings.EqualFold(name, "tls-required") {
				noTLS = strings.EqualFold(strings.Trim(value, " \t\r"), "no")
			}
		case !whole && !colon && undecided(line):
			return section, fields, hops, noTLS, Open
		default:
			return section, fields, hops, noTLS, NoField
		}
		if !whole {
			return section, fields, hops, noTLS, Open
		}
		section += line + "\r\n"
		rest = behind
	}
	return section, fields, hops, noTLS, Open
}

// undecided says whether the beginning of a line may become a field.
func undecided(line string) bool {
	name := strings.TrimRight(line, " \t")
	return line == "\r" || printable(name) && len(name) <= nameMax
}

func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

// scan runs a Scanner over content in pieces.
func scan(content string, next func(left int) int) (s Scanner) {
	for content != "" {
		n := next(len(content))
		s.Scan([]byte(content[:n]))
		content = content[n:]
	}
	return s
}

// checkSplit compares Scanner and Split with splitSlowly, in all ways to cut content.
func checkSplit(t testing.TB, content string) (section string, end End) {
	want, fields, hops, noTLS, wantEnd := splitSlowly(content)
	for _, next := range []func(int) int{
		func(left int) int { return left },
		func(int) int { return 1 },
		func(left int) int { return rand.IntN(left) + 1 },
	} {
		s := scan(content, next)
		if s.Size() != len(want) || s.End() != wantEnd || s.Fields() != fields || s.Hops() != hops || s.TLSOptional() != noTLS {
			t.Fatalf("%.300q: %d octets, %v, %d fields, %d hops, %v; want %d, %v, %d, %d, %v", content, s.Size(), s.End(), s.Fields(), s.Hops(), s.TLSOptional(),
				len(want), wantEnd, fields, hops, noTLS)
		}
	}
	got, rest, end := Split([]byte(content))
	if string(got) != want || string(got)+string(rest) != content {
		t.Fatalf("%.300q: parted into %q and %q", content, got, rest)
	}
	n, whole := 0, ""
	for f := range Fields(got) {
		n++
		whole += string(f.Raw)
		if name, _, _ := bytes.Cut(f.Raw, []byte(":")); len(f.Name) == 0 || string(bytes.TrimRight(name, " \t")) != string(f.Name) {
			t.Fatalf("%.300q: field %q", content, f.Name)
		}
		if v := f.AppendValue(nil); bytes.Contains(v, []byte("\r\n")) || len(v) > len(f.Value) {
			t.Fatalf("%.300q: value %q of %q", content, v, f.Value)
		}
	}
	if whole != want || end != Open && n != fields {
		t.Fatalf("%.300q: %d fields that make %q", content, n, whole)
	}
	return want, end
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		content, section string
		end              End
	}{
		{"", "", Open},
		{"\r\nbody: x\r\n", "", EmptyLine},
		{"A: 1\r\nB: 2\r\n\r\nbody: x\r\n", "A: 1\r\nB: 2\r\n", EmptyLine},
		{"A: 1\r\n\tfolded\r\n  twice\r\n\r\n", "A: 1\r\n\tfolded\r\n  twice\r\n", EmptyLine},
		{"A: 1\r\n \r\nB: 2\r\n\r\n", "A: 1\r\n \r\nB: 2\r\n", EmptyLine}, // RFC 5322 §4.2: a line of white space continues the field
		{"A : 1\r\n\r\n", "A : 1\r\n", EmptyLine},
		{"A:\r\n", "A:\r\n", Open},
		{"A: 1\r\nB: cut off", "A: 1\r\n", Open},
		{"A: 1\r\nB: cut off\r", "A: 1\r\n", Open},
		{"A: 1\r\n\r", "A: 1\r\n", Open},
		{"A: 1\r\nno more\r\nB: 2\r\n\r\n", "A: 1\r\n", NoField},
		{"no header\r\nA: 1\r\n", "", NoField},
		{"From a@b.example Thu Jan  1 00:00:00 1970\r\nA: 1\r\n", "", NoField}, // no special handling
		{"A: 1\r\n>From x\r\nB: 2\r\n", "A: 1\r\n", NoField},
		{" A: 1\r\n", "", NoField},
		{": x\r\n", "", NoField},
		{"A\x00: x\r\n", "", NoField},
		{"\xc3\xa4: x\r\n", "", NoField},
		{".dot: x\r\n\r\n", ".dot: x\r\n", EmptyLine},
		{"A: 1\r\n\rB: 2\r\n", "A: 1\r\n", NoField},
		{"A: 1\nB: 2\r\r\n\r\n", "A: 1\nB: 2\r\r\n", EmptyLine}, // of binary content: nothing but CRLF ends a line
	} {
		if section, end := checkSplit(t, c.content); section != c.section || end != c.end {
			t.Errorf("%q: %q, %v; want %q, %v", c.content, section, end, c.section, c.end)
		}
	}
}

// TestSplitMatchesReference runs all strings of the octets that matter up to a length.
func TestSplitMatchesReference(t *testing.T) {
	const alphabet = "\r\n: a\x00"
	input := make([]byte, 0, 10)
	var all func(n int)
	all = func(n int) {
		checkSplit(t, string(input))
		for i := 0; n > 0 && i < len(alphabet); i++ {
			input = append(input, alphabet[i])
			all(n - 1)
			input = input[:len(input)-1]
		}
	}
	all(6)
}

// TestLimitsB12: sections beyond the limits end, and nothing behind is looked at.
func TestLimitsB12(t *testing.T) {
	line := "X: " + strings.Repeat("x", 195) + "\r\n"
	for name, c := range map[string]struct {
		content string
		end     End
	}{
		"at the size":         {strings.Repeat(line, MaxSize/len(line)-1) + "Y: " + strings.Repeat("y", len(line)-5) + "\r\n\r\n", EmptyLine},
		"over the size":       {strings.Repeat(line, MaxSize/len(line)-1) + "Y: " + strings.Repeat("y", len(line)-4) + "\r\n\r\n", TooLarge},
		"one line":            {"X: " + strings.Repeat("x", 1<<20), TooLarge},
		"one name":            {strings.Repeat("x", 1<<20), NoField},
		"longest name":        {strings.Repeat("x", nameMax) + ":\r\n\r\n", EmptyLine},
		"name too long":       {strings.Repeat("x", nameMax+1) + ":\r\n\r\n", NoField},
		"100 MB":              {strings.Repeat(line, 1<<19), TooLarge},
		"at the fields":       {strings.Repeat("a:\r\n", MaxFields) + "\r\n", EmptyLine},
		"one field too many":  {strings.Repeat("a:\r\n", MaxFields+1) + "\r\n", TooMany},
		"100,000 fields":      {strings.Repeat("a:\r\n", 100_000), TooMany},
		"100,000 fold lines":  {"a:\r\n" + strings.Repeat(" \r\n", 100_000), TooLarge},
		"far body":            {"a:\r\n\r\n" + strings.Repeat("a:\r\n", 100_000), EmptyLine},
		"continued for 90 kB": {"a:\r\n" + strings.Repeat(" \r\n", 30_000) + "\r\n", EmptyLine},
	} {
		for _, next := range []func(int) int{func(left int) int { return left }, func(left int) int { return min(left, 1000) }} {
			if s := scan(c.content, next); s.End() != c.end || s.Size() > MaxSize {
				t.Errorf("%s: %v after %d octets, want %v", name, s.End(), s.Size(), c.end)
			}
		}
	}
}

func TestHops(t *testing.T) {
	s := scan("Received: a\r\n\tby b\r\nreceived : c\r\nReceivedX: d\r\nReceive: e\r\nRECEIVED:\r\n\r\nReceived: body\r\n", func(int) int { return 1 })
	if s.Hops() != 3 || s.Fields() != 5 {
		t.Errorf("%d hops, %d fields", s.Hops(), s.Fields())
	}
}

// TestTLSOptional: TLS-Required: No is found wherever it stands and however the content is cut. RFC 8689 §5
func TestTLSOptional(t *testing.T) {
	for content, want := range map[string]bool{
		"TLS-Required: No\r\n\r\n":                              true,
		"Subject : x\r\nTLS-Required: No\r\nFrom: a\r\n\r\n":    true,
		"tls-required\t :\t nO \t\r\nTo: b\r\n\r\n":             true,
		"A: 1\n2\r\nTLS-Required:No\r\n\r\n":                    true, // binary content
		"TLS-Required: No\r\n folded\r\n\r\n":                   true,
		"TLS-Required: Yes\r\nTLS-Required: No\r\n\r\n":         true,
		"TLS-Required: No\r\nTLS-Required: Yes\r\n\r\n":         false,
		"Subject: x\r\n TLS-Required: No\r\n\r\n":               false,
		"TLS-Required:\r\n No\r\n\r\n":                          false,
		"TLS-Required: N o\r\n\r\n":                             false,
		"TLS-Required: No, please\r\n\r\n":                      false,
		"TLS-Required: No\nX\r\n\r\n":                           false,
		"TLS-Required: Non\r\nTLS-RequiredX: No\r\n\r\n":        false,
		"TLS-Require: No\r\nXTLS-Required: No\r\nT: No\r\n\r\n": false,
		"A: 1\r\n\r\nTLS-Required: No\r\n":                      false,
		"TLS-Required: No":                                      false, // more may follow
	} {
		for i := range len(content) + 1 {
			for j := i; j <= len(content); j++ {
				var s Scanner
				for _, piece := range []string{content[:i], content[i:j], content[j:]} {
					s.Scan([]byte(piece))
				}
				if s.TLSOptional() != want {
					t.Errorf("%q | %q | %q: %v", content[:i], content[i:j], content[j:], !want)
				}
			}
		}
		checkSplit(t, content)
	}
}

func TestValues(t *testing.T) {
	section, _, _ := Split([]byte("Subject:  a\r\n b\r\n\t c \r\nX-Tenant:acme\r\nEmpty:\r\nBlank:  \r\n \r\nx-TENANT \t: two\r\n\r\n"))
	var got []string
	for f := range Fields(section) {
		got = append(got, fmt.Sprintf("%s=%s %v", f.Name, f.AppendValue(nil), f.Is("X-Tenant")))
	}
	want := []string{"Subject=a b\t c false", "X-Tenant=acme true", "Empty= false", "Blank= false", "x-TENANT=two true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for name, want := range map[string]bool{"X-Tenant": true, "": false, "a b": false, "a:": false, "ü": false, strings.Repeat("x", 77): false} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{"A: 1\r\n b\r\n\r\nc", "Received: x\r\nbad\r\n", "\r\n", "A : \r\n\t\r\n", "A: \n\r\r\n\r", "From x\r\n", "A : 1\r\nTLS-Required : nO \r\n\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		if len(content) < MaxSize && strings.Count(content, ":") < MaxFields {
			checkSplit(t, content)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	content := []byte("Received: from client.example ([192.0.2.1])\r\n\tby mta.example with ESMTP id 0123456789ABC; Mon, 02 Jan 2026 03:04:05 +0000\r\n" +
		"Date: Mon, 02 Jan 2026 03:04:05 +0000\r\nFrom: Somebody <somebody@example.com>\r\nTo: somebody.else@example.net\r\nSubject: What you asked for\r\n" +
		"Message-ID: <0123456789ABC@mta.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nList-Unsubscribe: <https://example.com/u/123>\r\n\r\nbody\r\n")
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		var s Scanner
		if s.Scan(content) != EmptyLine {
			b.Fatal(s.End())
		}
	}
}
