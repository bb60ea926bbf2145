package smtp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestI4Submitter reads AUTH of MAIL: "<>" or a mailbox in xtext, and nothing that could be a line of a file (CVE-2020-28021).
func TestI4Submitter(t *testing.T) {
	for value, want := range map[string]bool{
		"<>": true, "a@b.example": true, "e+3Dmc2@example.com": true, "+22a+20b+22@c.example": true, "a+2Bb@c": true, "a@[192.0.2.1]": true,
		"": false, "a": false, "postmaster": false, "a@b+0A": false, "a@b+0aX": false, "a@b+00": false, "+0D@b": false, "a=b@c": false, "a+@b": false,
		"a@b+3E": false, "<a@b>": false, "+3Ca@b+3E": false, "@x:a@b": false, "a@b+20": false, "+3C+3E": false, "\xc3\xbc@b": false,
		strings.Repeat("a", 64) + "@b": true, strings.Repeat("+61", 200) + "@b": false, strings.Repeat("a", 600): false,
	} {
		var m MailParams
		if got := m.parse([]byte("AUTH="+value), ^mailParam(0)) == ""; got != want {
			t.Errorf("AUTH=%s: %v", value, got)
		}
	}
	var m MailParams
	if refusal := m.parse([]byte("AUTH=<>"), paramsServed); refusal != replyUnknownParm {
		t.Errorf("where AUTH is not served: %q", refusal)
	}
}

// TestDateTime reads what RFC 3339 allows, and nothing else.
func TestDateTime(t *testing.T) {
	for text, want := range map[string]string{
		"2030-01-01T00:00:00Z": "2030-01-01T00:00:00Z", "2030-01-01t00:00:00z": "2030-01-01T00:00:00Z", "2030-01-01T00:00:00+00:00": "2030-01-01T00:00:00Z",
		"2030-01-01T00:30:00+01:00": "2029-12-31T23:30:00Z", "2030-01-01T00:00:00.000000001Z": "2030-01-01T00:00:01Z",
		"2030-01-01T00:00:00.0Z": "2030-01-01T00:00:00Z", "2028-02-29T12:00:00-23:59": "2028-03-01T11:59:00Z", "0001-01-01T00:00:00Z": "0001-01-01T00:00:00Z",
		"": "", "2030-01-01": "", "2030-01-01T00:00:00": "", "2030-01-01T24:00:00Z": "", "2029-02-29T00:00:00Z": "", "2030-1-01T00:00:00Z": "",
		"2030-01-01T0:00:00Z": "", "2030-01-01T00:00:00,5Z": "", "2030-01-01T00:00:00+24:00": "", "2030-01-01_00:00:00Z": "", "1893456000": "",
		"2030-01-01T00:00:00." + strings.Repeat("0", 100) + "Z": "", "+2030-01-01T00:00:00Z": "", "\"2030-01-01T00:00:00Z\"": "",
	} {
		seconds, ok := parseDateTime([]byte(text))
		if got := time.Unix(seconds, 0).UTC().Format(time.RFC3339); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %v, %s, want %q", text, ok, got, want)
		}
	}
}

// FuzzMailParameters: what the server takes is within the bounds of the RFCs, was allowed, and says the same when it is written out.
func FuzzMailParameters(f *testing.F) {
	f.Add("SIZE=5 BODY=BINARYMIME REQUIRETLS", uint16(0xffff))
	f.Add("HOLDFOR=5 BY=-10;NT MT-PRIORITY=-3 AUTH=<>", uint16(0xffff))
	f.Add("HOLDUNTIL=2030-01-01T00:00:00Z BY=+999999999;r AUTH=a+2Bb@c.example", uint16(0xffff))
	f.Add("HOLDFOR=1000000000", uint16(paramHold))
	f.Add("REQUIRETLS", uint16(paramsServed))
	f.Add("AUTH=a@b+0AX", uint16(0xffff))
	f.Fuzz(func(t *testing.T, text string, served uint16) {
		var m MailParams
		if controlIn([]byte(text)) != noControl || m.parse([]byte(text), mailParam(served)) != "" {
			return
		}
		again, used := writtenOut(&m)
		if used&^mailParam(served) != 0 {
			t.Fatalf("%q: %b was taken, %b is served", text, used, served)
		}
		const most = 999_999_999
		if m.HoldFor < 0 || m.HoldFor > most || m.By.Seconds < -most || m.By.Seconds > most || m.By.Mode == message.ByReturn && m.By.Seconds <= 0 ||
			m.Priority < -message.PriorityMax || m.Priority > message.PriorityMax || m.HoldFor != 0 && m.HoldUntil != 0 {
			t.Fatalf("%q: %+v", text, m)
		}
		var n MailParams
		if refusal := n.parse(again, mailParam(served)); refusal != "" || notedWishes(&m) != notedWishes(&n) {
			t.Fatalf("%q is written %q, which is %q: %s", text, again, notedWishes(&n), refusal)
		}
	})
}

// writtenOut is the parameters of m that are not read by other tests, as a client writes them.
func writtenOut(m *MailParams) (text []byte, used mailParam) {
	add := func(param mailParam, format string, args ...any) {
		text, used = fmt.Appendf(text, " "+format, args...), used|param
	}
	if m.Body == BodyBinary {
		add(paramBody|paramBinary, "BODY=BINARYMIME")
	}
	if m.RequireTLS {
		add(paramRequireTLS, "REQUIRETLS")
	}
	if m.HoldFor != 0 {
		add(paramHold, "HOLDFOR=%d", m.HoldFor)
	}
	if m.HoldUntil != 0 {
		add(paramHold, "HOLDUNTIL=%s", time.Unix(m.HoldUntil, 0).UTC().Format(time.RFC3339))
	}
	if m.By.Mode != message.ByNone {
		add(paramBy, "BY=%d;%c", m.By.Seconds, " RN"[m.By.Mode])
		if m.By.Trace {
			text = append(text, 'T')
		}
	}
	if m.Priority != 0 {
		add(paramPriority, "MT-PRIORITY=%d", m.Priority)
	}
	if len(m.Submitter) > 0 {
		add(paramSubmitter, "AUTH=%s", m.Submitter)
	}
	return text, used
}

// TestRequireTLS is offered and taken under TLS only. RFC 8689 §2
func TestRequireTLS(t *testing.T) {
	c := newSession(t, tlsConfig)
	c.feed(hello + "MAIL FROM:<a@a.example> REQUIRETLS\r\n")
	if c.last() != "530 5.7.10 REQUIRETLS needs a session under TLS" || bytes.Contains(c.replies, []byte("250-REQUIRETLS")) {
		t.Errorf("in clear: %s", c.replies)
	}
	c.secure()
	c.replies = nil
	c.feed(hello + "MAIL FROM:<a@a.example> REQUIRETLS=yes\r\nMAIL FROM:<a@a.example> REQUIRETLS requiretls\r\nMAIL FROM:<a@a.example> REQUIRETLS\r\n")
	if want := `Mail "a@a.example" size=0 8bit=false utf8=false requiretls`; !bytes.Contains(c.replies, []byte("250-REQUIRETLS\r\n")) || c.events[len(c.events)-1] != want {
		t.Errorf("under TLS: %s%s", c.replies, c.events)
	}
	if n := strings.Count(string(c.replies), "501 5.5.4"); n != 2 {
		t.Errorf("under TLS: %s", c.replies)
	}
}

// TestOffer: what a client is not offered is neither announced nor taken, and a new Offer is what counts.
func TestOffer(t *testing.T) {
	s := greetedServer()
	hold := []byte("EHLO a\r\nMAIL FROM:<a@b> HOLDFOR=5\r\nRSET\r\n")
	for _, c := range []struct {
		offer Offer
		want  string
	}{
		{Offer{}, "\r\n250-LIMITS RCPTMAX=1000\r\n250-DELIVERBY\r\n|555 5.5.4 "},
		{Offer{MaxMessages: 1_000_000}, "\r\n250-LIMITS RCPTMAX=1000\r\n250-DELIVERBY\r\n|555 5.5.4 "},
		{Offer{MaxMessages: 7, HoldMax: 4, HoldUntil: 1893456000}, "\r\n250-LIMITS RCPTMAX=1000 MAILMAX=7\r\n250-FUTURERELEASE 4 2030-01-01T00:00:00Z\r\n|501 5.5.4 "},
		{Offer{HoldMax: 5}, "\r\n250-FUTURERELEASE 5 1970-01-01T00:00:00Z\r\n|250 2.1.0 Ok"},
	} {
		s.Offer(c.offer)
		for p := hold; len(p) > 0; {
			n, _ := s.Feed(p)
			p = p[n:]
			s.Accept()
		}
		for part := range strings.SplitSeq(c.want, "|") {
			if !strings.Contains(string(s.Pending()), part) {
				t.Errorf("%+v: %s, want %q", c.offer, s.Pending(), part)
			}
		}
		s.Flushed()
	}
	s.cfg = &ServerConfig{Hostname: "mx.example.com", MaxRecipients: 1_000_000, NoBinary: true}
	s.Offer(Offer{})
	s.Feed(hold)
	s.Accept()
	if p := string(s.Pending()); strings.Contains(p, "LIMITS") || strings.Contains(p, "BINARYMIME") {
		t.Errorf("no limits that could be told, and no binary content: %s", p)
	}
	s.Flushed()
	s.Feed([]byte("MAIL FROM:<a@b> BODY=BINARYMIME\r\n"))
	if got := string(s.Pending()); got != replyUnknownParm {
		t.Errorf("binary content, unasked: %q", got)
	}
	s.Flushed()
	s.cfg = &ServerConfig{Hostname: "mx.example.com", NoChunking: true}
	s.Feed(hold)
	s.Accept()
	if p := string(s.Pending()); strings.Contains(p, "CHUNKING") || strings.Contains(p, "BINARYMIME") {
		t.Errorf("no chunks: %s", p)
	}
}

// FuzzBinary: content of BINARYMIME comes through as it is, whatever it holds, however it is cut, and nothing behind it is lost.
func FuzzBinary(f *testing.F) {
	for seed, content := range []string{"", ".", "\r\n.\r\n", "a\rb\nc\x00", strings.Repeat("x", 600), "QUIT\r\n"} {
		f.Add(content, uint64(seed))
	}
	f.Fuzz(func(t *testing.T, content string, seed uint64) {
		content = content[:min(len(content), 1000)]
		cfg := &ServerConfig{Hostname: "mx.example.com", MaxSize: 500, MaxErrors: 1000}
		input := begunBinary + inChunks(content, rand.New(rand.NewPCG(seed, 0)))
		c := converseAnyhow(t, cfg, input+"VRFY x\r\n")
		refused := len(content) > 500 || strings.Contains(content, "spam")
		if want := fmt.Sprintf("EndOfData size=%d dots=false %q", len(content), content); c.has(want) != (len(content) <= 500) || c.over || c.s.InTransaction() {
			t.Fatalf("%q: %q", content, c.events)
		}
		if !strings.HasPrefix(c.last(), "252 ") || refused != strings.Contains(string(c.replies), "\r\n55") {
			t.Fatalf("%q: %s", content, c.replies)
		}
	})
}
