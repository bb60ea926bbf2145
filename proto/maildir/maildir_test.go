package maildir

import (
	"errors"
	"path"
	"strings"
	"testing"

	"mailrace/proto/message"
)

func TestDir(t *testing.T) {
	long := strings.Repeat("x", 64)
	for _, c := range []struct{ template, local, domain, want string }{
		{"/var/mail", "a", "b.example", "/var/mail"},
		{"/var/mail/", "../../etc", "b.example", "/var/mail"},
		{"/m/{domain}/{local}/Maildir", "Bob", "b.example", "/m/b.example/bob/Maildir"},
		{"/m/{address}", "Bob+Tag", "b.example", "/m/bob+tag@b.example"},
		{"/m/{user}-{domain}", "bob+tag", "b.example", "/m/bob-b.example"},
		{"/m/{user}", "+tag", "b.example", "/m/+tag"},
		{"/m/{local}", `"john doe"`, "b.example", "/m/john doe"},
		{"/m/{local}", `"a\"b\\"`, "b.example", `/m/a"b\`},
		{"/m/{local}", "münchen", "b.example", "/m/münchen"},
		{"/m/{local}", "a..b", "b.example", "/m/a..b"},
		{"/m/{local}", "...", "b.example", ""},
		{"/m/{local}", "..", "b.example", ""},
		{"/m/{local}", ".", "b.example", ""},
		{"/m/{local}", ".ssh", "b.example", ""},
		{"/m/{local}", "../x", "b.example", ""},
		{"/m/{local}", "a/b", "b.example", ""},
		{"/m/{local}", `"../../etc/passwd"`, "b.example", ""},
		{"/m/{local}", `"a\/b"`, "b.example", ""},
		{"/m/{local}", `"\.."`, "b.example", ""},
		{"/m/{local}", `""`, "b.example", ""},
		{"/m/{local}", `"`, "b.example", ""},
		{"/m/{local}", `"a`, "b.example", ""},
		{"/m/{local}", `"a\"`, "b.example", ""},
		{"/m/{local}", "a\x00b", "b.example", ""},
		{"/m/{local}", "a\nb", "b.example", ""},
		{"/m/{local}", "\xff", "b.example", ""},
		{"/m/{local}", "", "b.example", ""},
		{"/m/{domain}", "a", "", ""},
		{"/m/{domain}", "a", "[192.0.2.1]", "/m/[192.0.2.1]"},
		{"/m/{domain}", "a", "..", ""},
		{"/m/{user}/x", ".+x", "b.example", ""},
		{"/m/{local}{local}{local}{local}", long, "b.example", ""},
		{"/m/{local}", long, "b.example", "/m/" + long},
	} {
		template, err := Parse(c.template)
		if err != nil {
			t.Fatal(err)
		}
		got, err := template.Dir(c.local, c.domain)
		if got != c.want || errors.Is(err, ErrAddress) != (c.want == "") {
			t.Errorf("%s for %q at %q: %q, %v; want %q", c.template, c.local, c.domain, got, err, c.want)
		}
	}
}

func TestParse(t *testing.T) {
	for text, fault := range map[string]string{
		"": "absolute", "/": "behind the root", "/..": "behind the root", "mail/{local}": "absolute", "/m/{name}": "no placeholder", "/m/{local": "no placeholder",
		"/m/local}": "brace", "/m/{{local}}": "no placeholder", "/m/{lo/cal}": "no placeholder", "/m/a\x00": "NUL",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if template, err := Parse("/m//x/../{local}/"); err != nil || template.String() != "/m/{local}" {
		t.Errorf("%q, %v", template, err)
	}
}

// FuzzDir: whatever address is filled in, nothing but the names in the place of the placeholders differs.
func FuzzDir(f *testing.F) {
	template, err := Parse("/mail/{domain}/{user}.x/{address}/Maildir")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"a", "../x", `"a\/b"`, "a+b", ".", "\x00"} {
		f.Add(seed, "b.example")
		f.Add("a", seed)
	}
	f.Fuzz(func(t *testing.T, local, domain string) {
		dir, err := template.Dir(local, domain)
		if err != nil {
			return
		}
		names := strings.Split(dir, "/")
		if len(names) != 6 || path.Clean(dir) != dir || names[1] != "mail" || names[5] != "Maildir" || strings.ContainsAny(dir, "\x00\r\n") {
			t.Fatalf("%q at %q: %q", local, domain, dir)
		}
		for _, name := range names[1:] {
			if name == "" || name[0] == '.' || len(name) > 255 {
				t.Fatalf("%q at %q: %q", local, domain, dir)
			}
		}
	})
}

func TestName(t *testing.T) {
	m := &message.Message{Arrived: 1795371903_000612_000}
	if got, want := Name(m, 3, "m/x:1,2", 77), `1795371903.M612Q`+m.ID.String()+`R3.m\057x\0721\0542,S=77`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := string(Head("", "a@b.example")); got != "Return-Path: <>\r\nDelivered-To: a@b.example\r\n" {
		t.Errorf("%q", got)
	}
}

// FuzzLines: in whatever parts a message comes, CRLF is LF, and nothing else differs.
func FuzzLines(f *testing.F) {
	f.Add("a\r\nb\r\n", 2)
	f.Add("\r\r\n\n\r", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(1, size%8)
		var l Lines
		var got []byte
		for rest := text; len(rest) > 0; {
			n := min(size, len(rest))
			got = l.Append(got, []byte(rest[:n]))
			rest = rest[n:]
		}
		if got = l.End(got); string(got) != strings.ReplaceAll(text, "\r\n", "\n") {
			t.Fatalf("%q in parts of %d: %q", text, size, got)
		}
	})
}
