package event

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mailrace/proto/message"
)

var (
	at     = time.Date(2026, 3, 4, 5, 6, 7, 89_000, time.UTC)
	sample = Record{
		Time: at.UnixNano(), Type: Deferral, ID: message.NextID(0, at, 3),
		Sender: "news@sender.example", Recipient: "user@example.com", Queue: "example.com", Site: "mx1.example.com",
		Source: netip.MustParseAddr("192.0.2.1"), Peer: netip.MustParseAddrPort("198.51.100.7:25"),
		Code: 451, Enhanced: "4.7.1", Text: "Greylisted, please try again in 300 seconds",
		Attempt: 2, Size: 10240, User: "app@sender.example", Tenant: "shop", Campaign: "spring \"26\"", Latency: 1234567 * time.Microsecond,
	}
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		name string
		r    Record
		want string
	}{
		{"all", sample, `{"time":"2026-03-04T05:06:07.000089Z","type":"deferral","id":"` + sample.ID.String() + `","sender":"news@sender.example","recipient":"user@example.com","queue":"example.com","site":"mx1.example.com","source":"192.0.2.1","peer":"198.51.100.7","peer_port":25,"code":451,"enhanced":"4.7.1","text":"Greylisted, please try again in 300 seconds","attempt":2,"size":10240,"user":"app@sender.example","tenant":"shop","campaign":"spring \"26\"","latency":1.234567}` + "\n"},
		{"none", Record{Time: at.UnixNano()}, `{"time":"2026-03-04T05:06:07.000089Z","type":"reception","id":"0000000000000","sender":""}` + "\n"},
		{"many", Record{Time: at.UnixNano(), Recipient: "a@b.c", Recipients: 50, Peer: netip.MustParseAddrPort("[2001:db8::1%eth0]:9")},
			`{"time":"2026-03-04T05:06:07.000089Z","type":"reception","id":"0000000000000","sender":"","recipient":"a@b.c","recipients":50,"peer":"2001:db8::1","peer_port":9}` + "\n"},
		{"wishes", Record{Time: at.UnixNano(), Release: at.UnixNano() + 1e9, Deadline: at.UnixNano() - 1e9, Priority: -3},
			`{"time":"2026-03-04T05:06:07.000089Z","type":"reception","id":"0000000000000","sender":"","release":"2026-03-04T05:06:08.000089Z","deadline":"2026-03-04T05:06:06.000089Z","priority":-3}` + "\n"},
		// HOSTILE I10
		{"hostile", Record{Time: at.UnixNano(), Type: Bounce, Sender: "a\"\\b", Text: "x\r\n{\"type\":\"delivery\"}\x00\x1b[31m%s\x7f\xff\xc3ü\u2028😀"},
			`{"time":"2026-03-04T05:06:07.000089Z","type":"bounce","id":"0000000000000","sender":"a\"\\b","text":"x\u000d\u000a{\"type\":\"delivery\"}\u0000\u001b[31m%s\u007f\ufffd\ufffd\u00fc\u2028\ud83d\ude00"}` + "\n"},
	} {
		if got := string(c.r.Append(nil)); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// TestLineMax: no record is longer than a writer leaves room for.
func TestLineMax(t *testing.T) {
	long := strings.Repeat("\x00", 10_000)
	r := Record{
		Time: at.UnixNano(), Type: Reception, ID: ^message.ID(0), Sender: long, Recipient: long, Recipients: -1 << 63, Queue: long, Site: long,
		Source: netip.MustParseAddr("2001:db8:1111:2222:3333:4444:5555:6666"), Peer: netip.MustParseAddrPort("[2001:db8:1111:2222:3333:4444:5555:6666]:65535"),
		Code: -1 << 63, Enhanced: long, Text: long, User: long, Tenant: long, Campaign: long, Attempt: -1 << 63, Size: -1 << 63, Latency: -1 << 63,
		Release: 1, Deadline: 1, Priority: -9,
	}
	if n := len(r.Append(nil)); n > lineMax {
		t.Errorf("%d bytes, want at most %d", n, lineMax)
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		s     string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"aüb", 2, "a"}, {"a😀", 4, "a"}, {"\x80\x80\x80\x80\x80\x80", 5, "\x80\x80\x80\x80\x80"}} {
		if got := cut(c.s, c.limit); got != c.want {
			t.Errorf("%q to %d: %q, want %q", c.s, c.limit, got, c.want)
		}
	}
}

func TestAppendAllocates(t *testing.T) {
	buf := make([]byte, 0, lineMax)
	if n := testing.AllocsPerRun(100, func() { buf = sample.Append(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations per record, want none", n)
	}
}

// FuzzRecord: whatever the strings hold, the line is 7-bit, one line, and reads back through encoding/json as what went in, with
// U+FFFD for each octet that is not UTF-8.
func FuzzRecord(f *testing.F) {
	f.Add("a@b", "c@d", "text", 250, int64(1), int64(1e9))
	f.Add("\xff\xfe", "ü\r\n", "\x00\u2028\U0010ffff\\\"", -1, int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, sender, recipient, text string, code int, size, ns int64) {
		r := Record{Time: ns, Type: Type(uint(code) % uint(types)), ID: message.ID(size), Sender: sender, Recipient: recipient, Text: text, Code: code, Size: size, Latency: time.Duration(ns)}
		line := r.Append(nil)
		for i, c := range line {
			if (c < ' ' || c > '~') && i != len(line)-1 {
				t.Fatalf("octet %#x in %q", c, line)
			}
		}
		var got struct {
			Time                          time.Time
			Type, ID, Sender, Recipient   string
			Queue, Site, Source, Enhanced string
			Text                          string
			Code                          int
			Size                          int64
			Latency                       float64
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		id := r.ID.String()
		if !r.Type.ofMessage() {
			sender, id = "", ""
		}
		if got.Sender != valid(cut(sender, addressMax)) || got.Recipient != valid(cut(recipient, addressMax)) || got.Text != valid(cut(text, textMax)) {
			t.Fatalf("strings changed: %q", line)
		}
		if got.Code != code || got.Size != size || got.Type != r.Type.String() || got.ID != id {
			t.Fatalf("numbers changed: %q", line)
		}
		if want := time.Unix(0, ns).UTC().Truncate(time.Microsecond); want.Year() >= 1970 && !got.Time.Equal(want) {
			t.Fatalf("time %v, want %v", got.Time, want)
		}
	})
}

// valid replaces each octet that is not part of UTF-8 by U+FFFD.
func valid(s string) string {
	var b strings.Builder
	for _, c := range s {
		b.WriteRune(c)
	}
	if got := b.String(); utf8.ValidString(got) {
		return got
	}
	panic("not UTF-8")
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, lineMax)
	b.ReportAllocs()
	for b.Loop() {
		buf = sample.Append(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}
