package smtp

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// mendSlowly is the mending decoder as one would write it to be read, a line at a time.
func mendSlowly(input string) (d decoded) {
	before := "\r\n"
	for rest := input; ; {
		text, behind, whole := strings.Cut(rest, "\n")
		ending := ""
		switch {
		case whole && strings.HasSuffix(text, "\r"):
			text, ending = text[:len(text)-1], "\r\n"
		case whole:
			ending = "\n"
		default:
			text = strings.TrimSuffix(text, "\r") // it may belong to a CRLF
		}
		nul := strings.IndexByte(text, 0)
		switch {
		case nul >= 0:
			d.found, text = DecodedNUL, text[:nul]+"\x00"
		case text == "." && before == "\r\n" && ending == "\r\n":
			d.found, d.rest = DecodedEnd, behind
			return d
		case text == "." && before == "\r\r\n" && ending == "\r\n":
			d.found = DecodedBareCR
			return d
		case text == "." && ending == "":
			return d
		}
		if strings.HasPrefix(text, ".") && text != "." {
			text = text[1:]
		}
		if strings.HasSuffix(text, "\r") && ending == "\r\n" {
			ending = "\r\r\n"
		}
		line := strings.ReplaceAll(strings.TrimSuffix(text, "\x00"), "\r", " ")
		d.dots = d.dots || strings.HasPrefix(line, ".")
		if d.content += line; d.found != DecodedNothing || ending == "" {
			return d
		}
		d.content += "\r\n"
		before, rest = ending, behind
	}
}

// checkMend compares the mending Decoder with mendSlowly in all ways to cut input, and with the strict one.
func checkMend(t testing.TB, input string) decoded {
	want := mendSlowly(input)
	var mending Decoder
	mending.ResetMending()
	for _, cut := range []func(int) int{whole, bytewise, randomly, randomly} {
		got := decodeBy(t, mending, input, cut)
		if got.found > DecodedEnd {
			got.dots = want.dots
		}
		if got != want {
			t.Fatalf("%.300q:\n got %v\nwant %v", input, got, want)
		}
	}
	if strict := decodeSlowly(input); strict.found <= DecodedEnd && strict != want {
		t.Fatalf("%.300q: nothing is to be mended, but\n got %v\nwant %v", input, want, strict)
	}
	if want.found == DecodedEnd && !strings.HasPrefix(input, ".\r\n") && !strings.HasSuffix(strings.TrimSuffix(input, want.rest), "\r\n.\r\n") {
		t.Fatalf("%.300q ended by something else than CRLF.CRLF", input)
	}
	return want
}

func TestMending(t *testing.T) {
	for _, tc := range []struct {
		input string
		want  decoded
	}{
		{"a\nb\n\r\n.\r\nQUIT\r\n", decoded{content: "a\r\nb\r\n\r\n", found: DecodedEnd, rest: "QUIT\r\n"}},
		{"a\nb\r\n.\r\n", decoded{content: "a\r\nb\r\n", found: DecodedEnd}},
		{"a\r\r\nb\r\n.\r\n", decoded{content: "a \r\nb\r\n", found: DecodedEnd}},
		{"a\rb\r\n.\r\n", decoded{content: "a b\r\n", found: DecodedEnd}},
		{"Subject: a\rBcc: b\r\n.\r\n", decoded{content: "Subject: a Bcc: b\r\n", found: DecodedEnd}}, // no header field comes of a CR
		{"a\n..b\n.c\r\n.\r\n", decoded{content: "a\r\n.b\r\nc\r\n", found: DecodedEnd, dots: true}},
		{"a\n.\nb\r\n.\r\n", decoded{content: "a\r\n.\r\nb\r\n", found: DecodedEnd, dots: true}},
		{"a\n.\r\nb\r\n.\r\n", decoded{content: "a\r\n.\r\nb\r\n", found: DecodedEnd, dots: true}},
		{"a\r\n.\rb\r\n.\r\n", decoded{content: "a\r\n b\r\n", found: DecodedEnd}},
		{"a\r\r\n.\r\n", decoded{content: "a \r\n", found: DecodedBareCR}},
		{".\r\n", decoded{found: DecodedEnd}},
		{"\n.\r\n", decoded{content: "\r\n.\r\n", dots: true}},
		{"a\n\x00.\r\n", decoded{content: "a\r\n", found: DecodedNUL}},
		{"a\r", decoded{content: "a"}},
		{"a\n.\r", decoded{content: "a\r\n"}},
	} {
		if got := checkMend(t, tc.input); got != tc.want {
			t.Errorf("%q:\n got %v\nwant %v", tc.input, got, tc.want)
		}
	}
}

// TestMendingMatchesReference runs strings of the octets that matter, all up to a length and random longer ones.
func TestMendingMatchesReference(t *testing.T) {
	const alphabet = "\r\n.\x00a"
	input := make([]byte, 0, 10)
	var all func(n int)
	all = func(n int) {
		checkMend(t, string(input))
		for i := 0; n > 0 && i < len(alphabet); i++ {
			input = append(input, alphabet[i])
			all(n - 1)
			input = input[:len(input)-1]
		}
	}
	all(6)
	pieces := []string{"\r\n", "\n", "\r\n.", "\n.", "\n..", "a", "bcd", "\r\n.\r", "\r", "\r\r\n", "\x00", strings.Repeat("x", mendedAtOnce-1), strings.Repeat("x", 2*mendedAtOnce)}
	for range 20_000 {
		var b strings.Builder
		for range rand.IntN(30) {
			b.WriteString(pieces[min(rand.IntN(len(pieces)), rand.IntN(len(pieces)*2))%len(pieces)])
		}
		checkMend(t, b.String())
	}
}

func FuzzMending(f *testing.F) {
	for _, seed := range []string{"a\n.\r\nb\r\n.\r\n", "\n..\r.\r\n", "a\r\r\n.\r\n", "\r\n.\r\r\n", "a\x00", strings.Repeat("\r", 600) + "\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		checkMend(t, input)
		checkMendedChunks(t, input)
	})
}

// checkMendedChunks takes content by BDAT, cut anyhow, and compares it with the same by DATA.
func checkMendedChunks(t testing.TB, content string) {
	want := mendSlowly(byData(content)[len("DATA\r\n"):])
	if want.found == DecodedBareCR || want.found == DecodedNothing { // DATA cannot end behind such a newline
		return
	}
	for _, cut := range []func(int) int{whole, bytewise, randomly} {
		var d Decoder
		d.ResetMending()
		got, ok := "", true
		for rest := content; rest != "" && ok; {
			p := rest[:cut(len(rest))]
			rest = rest[len(p):]
			for len(p) > 0 && ok {
				var n int
				var span []byte
				n, span, ok = d.TakeMending([]byte(p))
				got, p = got+string(span), p[n:]
			}
		}
		if ok && d.cr {
			got += string(d.TakeEnd())
		}
		if ok != (want.found == DecodedEnd) {
			t.Fatalf("%q: ok %v, by DATA %v", content, ok, want)
		}
		if ok && !strings.HasSuffix(got, "\n") && got != "" {
			got += "\r\n"
			d.size += 2
		}
		if ok && (got != want.content || d.Size() != int64(len(got)) || d.LeadingDots() != want.dots) {
			t.Fatalf("%q: %q, %d octets, dots %v; by DATA %v", content, got, d.Size(), d.LeadingDots(), want)
		}
	}
}

var mendingConfig = &ServerConfig{Hostname: "mx.example.com", MendNewlines: true}

// TestMendingSmuggling: none of the sequences that some mail system takes for the end of data is one, by DATA or in chunks.
func TestMendingSmuggling(t *testing.T) {
	for _, tc := range []struct {
		id, sequence string
		becomes      string // or a reply
	}{
		{"S1", "\n.\n", "\r\n.\r\n"},
		{"S2", "\n.\r", "\r\n "},
		{"S3", "\r.\n", " .\r\n"},
		{"S4", "\r.\r", " . "},
		{"S5", "\n.\r\n", "\r\n.\r\n"},
		{"S6", "\r.\r\n", " .\r\n"},
		{"S7", "\r\n.\n", "\r\n.\r\n"},
		{"S8", "\r\n.\r", "\r\n "},
		{"S9", "\r\n\x00.\r\n", "550 5.6.0 NUL"},
		{"S10", "\r\n.\x00\r\n", "550 5.6.0 NUL"},
		{"S11", "\r\n.\r\r\n", "\r\n \r\n"},
		{"S12", "\r\r\n.\r\n", "550 5.5.2 bare <CR>"},
		{"S13", "\r\r\n.\r\r\n", " \r\n \r\n"},
	} {
		for where, before := range map[string]string{
			"start":             "",
			"header":            "Subject: x\r\nX-Half: ",
			"body":              "Subject: x\r\n\r\ntext",
			"after line of 998": strings.Repeat("x", 998) + "\r\ny",
			"in line of 5000":   strings.Repeat("x", 5000),
		} {
			t.Run(tc.id+"/"+where, func(t *testing.T) {
				behind := "MAIL FROM:<evil@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nevil"
				c := converseAnyhow(t, mendingConfig, hello+envelope+before+tc.sequence+behind+"\r\n.\r\nNOOP\r\n")
				if strings.HasPrefix(tc.becomes, "550") {
					if !strings.HasPrefix(c.last(), tc.becomes) || !c.over || c.has("EndOfData") || c.has(`Mail "evil`) {
						t.Errorf("events %q, last reply %q", c.events, c.last())
					}
					return
				}
				want := fmt.Sprintf("%q", before+tc.becomes+behind+"\r\n")
				if c.has(`Mail "evil`) || c.last() != "250 2.0.0 Ok" || !strings.HasSuffix(c.events[len(c.events)-1], want) {
					t.Errorf("events %q, last reply %q, want %s", c.events, c.last(), want)
				}
				dotted := strings.Contains(tc.sequence, "\n.")
				stuffed, content := strings.ReplaceAll(before+tc.sequence+behind, "\n.", "\n.."), before+tc.sequence+behind
				byData := converseAnyhow(t, mendingConfig, hello+envelope+stuffed+"\r\n.\r\nNOOP\r\n")
				chunked := converseAnyhow(t, mendingConfig, fmt.Sprintf("%sBDAT %d LAST\r\n%sNOOP\r\n", begun, len(content), content))
				if a, b := byData.events[len(byData.events)-1], chunked.events[len(chunked.events)-1]; a != b || !strings.Contains(a, fmt.Sprintf("dots=%v", dotted)) {
					t.Errorf("by DATA   %s\nin chunks %s", a, b)
				}
			})
		}
	}
}

// TestMendingCommands: newlines of commands are not mended, so that no argument can carry another command.
func TestMendingCommands(t *testing.T) {
	for _, line := range []string{"NOOP\n", "\n", "MAIL FROM:<a@a.example>\nRCPT TO:<b@b>\r\n", "NOOP\rNOOP\n"} {
		c := converseAnyhow(t, mendingConfig, hello+line+envelope)
		if c.last() != "500 5.5.2 Line ends in bare <LF>" || !c.over || c.has("Mail") {
			t.Errorf("%q: %q, %q", line, c.events, c.last())
		}
	}
}

// TestMendingTooLarge: what mending adds counts.
func TestMendingTooLarge(t *testing.T) {
	small := &ServerConfig{Hostname: "mx.example.com", MendNewlines: true, MaxSize: 100}
	for size, reply := range map[int]string{50: "250 ", 51: "552 5.3.4 "} {
		content := strings.Repeat("\n", size)
		for _, input := range []string{"DATA\r\n" + strings.Repeat("\n", size-1) + "\r\n.\r\n", fmt.Sprintf("BDAT %d LAST\r\n%s", size, content)} {
			if c := converseAnyhow(t, small, begun+input); !strings.HasPrefix(c.last(), reply) || c.over {
				t.Errorf("%q: %q", input, c.last())
			}
		}
	}
	if c := converseAnyhow(t, mendingConfig, hello+"MAIL FROM:<a@a> BODY=BINARYMIME\r\nRCPT TO:<b@b>\r\nBDAT 3 LAST\r\n\n\r\x00"); !c.has(`EndOfData size=3 dots=false "\n\r\x00"`) {
		t.Errorf("binary content: %q", c.events)
	}
}

func BenchmarkMending(b *testing.B) {
	for name, input := range map[string]string{
		"CRLF": string(lines(10 << 10)), "LF": strings.ReplaceAll(string(lines(10<<10)), "\r", ""), "only-LF": strings.Repeat("\n", 10<<10), "only-CR": strings.Repeat("\r", 10<<10),
	} {
		input := []byte(input + "\r\n\r\n.\r\n")
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(input)))
			var d Decoder
			for b.Loop() {
				d.ResetMending()
				for p := input; ; {
					n, _, found := d.Decode(p)
					if p = p[n:]; found == DecodedEnd {
						break
					}
				}
			}
		})
	}
}
