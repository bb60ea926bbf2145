package header

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for value, want := range map[string]string{
		"":                                      "",
		" a@b.example":                          "a@b.example",
		"a@b.example, ,c@d.example,":            "a@b.example c@d.example",
		" Ann Example <a@b.example>\r\n":        "a@b.example",
		"=?utf-8?q?A?= <a@b.example>":           "a@b.example",
		"Ann\r\n Example\r\n <a@b.example>":     "a@b.example",
		`"Example, Ann <x@y>" <a@b.example>`:    "a@b.example",
		`"a b"@c.example`:                       `"a b"@c.example`,
		`"a\"@x b"@c.example`:                   `"a\"@x b"@c.example`,
		"a (x@y (z@q) \\) ,) @ (c) b . example": "a@b.example",
		"(a@b) <c@d>(e@f)":                      "c@d",
		"friends: a@b, Ann <c@d>;":              "a@b c@d",
		"friends:;, e@f":                        "e@f",
		"undisclosed-recipients:;":              "",
		"a@[IPv6:2001:db8::1]":                  "a@[IPv6:2001:db8::1]",
		"jürgen@bücher.example":                 "jürgen@bücher.example",
		"a@b <c@d>":                             "fault", // a name that passes for an address
		"<a@b> c@d":                             "fault",
		"<a@b> c":                               "fault",
		"<a@b><c@d>":                            "fault",
		"a@b@c":                                 "fault",
		"<a@b@c>":                               "fault",
		"a b@c":                                 "fault",
		"<a b@c>":                               "fault",
		"<@x,@y:a@b>":                           "fault", // source routes
		"Ann":                                   "fault",
		"<>":                                    "fault",
		"@b":                                    "fault",
		"a@":                                    "fault",
		"<a@b":                                  "fault",
		"a@b>":                                  "fault",
		"x: a@b":                                "fault",
		"x: y: a@b;;":                           "fault",
		"a@b;":                                  "fault",
		"(a@b":                                  "fault",
		`"a@b`:                                  "fault",
		"a\x00@b":                               "fault",
		"\"a\x01\"@b":                           "fault",
		`a\@b`:                                  "fault",
		`a@b.example"@x".c.example`:             "fault", // a domain that holds another "@"
		`a@"b"`:                                 "fault",
		"a@b.example[@x].c.example":             "fault",
		"a@[x].c.example":                       "fault",
		"a@[x][y]":                              "fault",
	} {
		got, err := AppendAddresses(nil, []byte(value))
		text := string(bytes.Join(got, []byte(" ")))
		if err != nil {
			text = "fault"
		}
		if text != want {
			t.Errorf("%q: %q, want %q", value, text, want)
		}
	}
}

// TestAddressesA12: what made Go's own parser take gigabytes and minutes (CVE-2025-61725, CVE-2026-42499, CVE-2026-39820) is read in one pass.
func TestAddressesA12(t *testing.T) {
	const size = 1 << 20
	for _, piece := range []string{"[", "a@[", "(", "()", "((a)", "a ", "\"", "\"a\" ", ",", "<", "a@b,", ":", "x:;", "\\", "(\\", "\xff", ". ", "=?utf-8?q?a?= "} {
		value := []byte(strings.Repeat(piece, size/len(piece)))
		for _, end := range []string{"", "@b.example", ">", ")", "]"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			AppendAddresses(nil, append(value[:len(value):len(value)], end...))
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > 16*size {
				t.Errorf("%q: %d bytes for %d", piece, took, len(value))
			}
		}
	}
	if got, err := AppendAddresses(nil, bytes.Repeat([]byte("a@b,"), addressesMax)); len(got) != addressesMax || err != nil {
		t.Errorf("%d addresses, %v", len(got), err)
	}
	if _, err := AppendAddresses(nil, bytes.Repeat([]byte("a@b,"), addressesMax+1)); err == nil {
		t.Error("too many addresses were taken")
	}
}

func FuzzAddresses(f *testing.F) {
	for _, seed := range []string{"a@b.example, c <d@e>", "x:(y)a@b;", `"a\"b"@[c]`, "<@a:b@c>", "a (\\) b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, err := AppendAddresses(nil, []byte(value))
		if err != nil {
			return
		}
		for _, a := range got {
			// What was found is found again, alone and in angle brackets.
			for _, form := range []string{string(a), "<" + string(a) + ">", "\"x@y\" <" + string(a) + ">"} {
				again, err := AppendAddresses(nil, []byte(form))
				if err != nil || len(again) != 1 || !bytes.Equal(again[0], a) {
					t.Fatalf("%q gave %q, which gives %q, %v", value, a, again, err)
				}
			}
			if bytes.ContainsAny(a, "\x00<>,") && !bytes.ContainsAny(a, "\"[") {
				t.Fatalf("%q gave %q", value, a)
			}
		}
	})
}

func BenchmarkAddresses(b *testing.B) {
	value := []byte(`"Example, Ann" <ann@example.com>`)
	b.ReportAllocs()
	var dst [][]byte
	for b.Loop() {
		dst, _ = AppendAddresses(dst[:0], value)
	}
}
