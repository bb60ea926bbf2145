package smtp

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	x := strings.Repeat
	for _, tc := range []struct {
		in, path, rest string
		err            error
	}{
		{"<>", "", "", nil},
		{"<> SIZE=1", "", " SIZE=1", nil},
		{"<a@b>", "a@b", "", nil},
		{"<a@b>x", "a@b", "x", nil},
		{"<a.b+c=d@b-c.example>", "a.b+c=d@b-c.example", "", nil},
		{"<@r.example:a@b>", "a@b", "", nil},
		{"<@r,@s.example:a@b>", "a@b", "", nil},
		{"<postmaster>", "postmaster", "", nil},
		{"<PostMaster>", "PostMaster", "", nil},
		{`<"a b\"\\>"@b>`, `"a b\"\\>"@b`, "", nil},
		{`<""@b>`, `""@b`, "", nil},
		{"<a@[1.2.3.4]>", "a@[1.2.3.4]", "", nil},
		{"<a@[ipv6:::]>", "a@[ipv6:::]", "", nil},
		{"<a@[IPv6:1:2:3:4:5:6:1.2.3.4]>", "a@[IPv6:1:2:3:4:5:6:1.2.3.4]", "", nil},
		{"<ü@ü.example>", "ü@ü.example", "", nil},
		{"<" + x("a", 64) + "@b>", x("a", 64) + "@b", "", nil},
		{"<a@" + x("b", 63) + ".example>", "a@" + x("b", 63) + ".example", "", nil},

		{"", "", "", ErrPathSyntax},
		{"<", "", "", ErrPathSyntax},
		{"a@b", "", "", ErrPathSyntax},
		{"<a@b", "", "", ErrPathSyntax},
		{"<a@b c>", "", "", ErrPathSyntax},
		{"<@r>", "", "", ErrPathSyntax},
		{"<@r;a@b>", "", "", ErrPathSyntax},
		{"<@r,a@b>", "", "", ErrPathSyntax},
		{"<@r:>", "", "", ErrLocalPart},
		{"<@>", "", "", ErrDomain},
		{"<a>", "", "", ErrNoDomain},
		{"<@r:root>", "", "", ErrNoDomain},
		{"<;cmd;>", "", "", ErrLocalPart},
		{"< >", "", "", ErrLocalPart},
		{"<.a@b>", "", "", ErrLocalPart},
		{"<a.@b>", "", "", ErrLocalPart},
		{"<a..b@b>", "", "", ErrLocalPart},
		{"<a\rX: y@b>", "", "", ErrNoDomain},
		{"<a\x00@b>", "", "", ErrNoDomain},
		{"<\"a\r\n\"@b>", "", "", ErrLocalPart},
		{`<"a@b>`, "", "", ErrLocalPart},
		{`<"a\`, "", "", ErrLocalPart},
		{"<\"\\\x7f\"@b>", "", "", ErrLocalPart},
		{"<a@>", "", "", ErrDomain},
		{"<a@.b>", "", "", ErrDomain},
		{"<a@b.>", "", "", ErrDomain},
		{"<a@b-.example>", "", "", ErrDomain},
		{"<a@b..c>", "", "", ErrDomain},
		{"<a@b@c>", "", "", ErrPathSyntax},
		{"<a@[]>", "", "", ErrLiteral},
		{"<a@[1.2.3]>", "", "", ErrLiteral},
		{"<a@[01.2.3.4]>", "", "", ErrLiteral},
		{"<a@[1.2.3.4>", "", "", ErrLiteral},
		{"<a@[tag:content]>", "", "", ErrLiteral},
		{"<a@[IPv6:1.2.3.4]>", "", "", ErrLiteral},
		{"<a@[IPv6:fe80::1%eth0]>", "", "", ErrLiteral},
		{"<a@[IPv6:" + x("1:", 50) + "]>", "", "", ErrLiteral},
		{"<" + x("a", 65) + "@b>", "", "", ErrLocalPart},
		{`<"` + x("a", 63) + `"@b>`, "", "", ErrLocalPart},
		{"<a@" + x("b", 64) + ">", "", "", ErrDomain},
		{"<a@" + x("b.", 127) + "bc>", "", "", ErrDomain},
		{"<a@" + x("b.", 126) + "bc>", "", "", ErrPathLong},
		{"<ü\xff@b>", "", "", ErrUTF8},
		{"<\u0085@b>", "", "", ErrUTF8},
	} {
		path, rest, err := ParsePath([]byte(tc.in), true)
		if string(path.Path) != tc.path || string(rest) != tc.rest || !errors.Is(err, tc.err) {
			t.Errorf("%.100q: path %q, rest %q, %v; want %q, %q, %v", tc.in, path.Path, rest, err, tc.path, tc.rest, tc.err)
		}
	}
	if _, _, err := ParsePath([]byte("<ü@b>"), false); err != ErrUTF8 {
		t.Errorf("8-bit where SMTPUTF8 is not in force: %v", err)
	}
}

// TestNarrowRunes (I3): U+760D and U+760A hold the octets 0D and 0A only when somebody narrows runes.
func TestNarrowRunes(t *testing.T) {
	path, _, err := ParsePath([]byte("<a\u760d\u760ab@b>"), true)
	if err != nil || string(path.Local) != "a\u760d\u760ab" || !path.UTF8 {
		t.Errorf("%q, %v", path.Local, err)
	}
}

func TestValidHello(t *testing.T) {
	for name, want := range map[string]bool{"a.example": true, "localhost": true, "[192.0.2.1]": true, "[IPv6:::1]": true, "1.2.3.4": true,
		"a) by x; (": false, "[1.2.3]": false, "": false, "a..b": false, "-a": false, "ü": false, "a.example.": false, "[192.0.2.1]x": false} {
		if got := ValidHello([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestParsePathDoesNotAllocate(t *testing.T) {
	for _, in := range []string{"<someone@recipient.example.net>", `<"a b"@[IPv6:2001:db8::1]>`, "<ü@b>", "<a@[1.2.3]>"} {
		p := []byte(in)
		if n := testing.AllocsPerRun(100, func() { ParsePath(p, true) }); n != 0 {
			t.Errorf("%s: %v allocations", in, n)
		}
	}
}

func BenchmarkParsePath(b *testing.B) {
	p := []byte("<bounce-123456=user@news.mailer.example.com>")
	b.ReportAllocs()
	for b.Loop() {
		ParsePath(p, true)
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"<a@b>", "<@r,@s:a@b> X", `<"a\"b"@[IPv6:1::2]>`, "<postmaster>", "<ü@ü>", "<>", "<a@[1.2.3.4]>"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		path, rest, err := ParsePath(in, true)
		if err != nil {
			return
		}
		if len(path.Path) == 0 {
			if !bytes.HasPrefix(in, []byte("<>")) {
				t.Fatalf("%q is no null path", in)
			}
			return
		}
		length := len(in) - len(rest)
		if length > 256 || len(path.Local) > 64 || len(path.Domain) > 255 || controlIn(in[:length]) != noControl {
			t.Fatalf("accepted %q", in[:length])
		}
		joined := string(path.Local)
		if len(path.Domain) > 0 {
			joined += "@" + string(path.Domain)
		}
		if joined != string(path.Path) {
			t.Fatalf("%q has the parts %q, %q", path.Path, path.Local, path.Domain)
		}
		if again, rest, err := ParsePath([]byte("<"+joined+">"), path.UTF8); err != nil || len(rest) > 0 || string(again.Path) != joined {
			t.Fatalf("%q parsed again: %q, %v", joined, again.Path, err)
		}
	})
}

// FuzzAddressLiteral compares our reading of literals with net/netip's.
func FuzzAddressLiteral(f *testing.F) {
	for _, seed := range []string{"1.2.3.4", "::", "1::", "::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::2:3::4", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "12345::", ":1", "1:", "01.2.3.4", "1.2.3.256", ":::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		addr, err := netip.ParseAddr(in)
		want4, want6 := err == nil && addr.Is4(), err == nil && addr.Is6() && addr.Zone() == ""
		if got := validIPv4([]byte(in)); got != want4 {
			t.Fatalf("IPv4 %q: %v, netip says %v", in, got, want4)
		}
		if got := validIPv6([]byte(in)); got != want6 {
			t.Fatalf("IPv6 %q: %v, netip says %v", in, got, want6)
		}
	})
}
