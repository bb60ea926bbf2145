package dsn

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

var arrived = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func sample() *Report {
	return &Report{
		ReportingMTA: "mail.example.com",
		ID:           message.NextID(0, arrived.Add(5*24*time.Hour), 1),
		Date:         arrived.Add(5 * 24 * time.Hour),
		To:           "news@sender.example",
		Original:     message.NextID(0, arrived, 2),
		Arrived:      arrived,
		Recipients: []Recipient{
			{Address: "nobody@example.net", Status: "5.1.1", RemoteMTA: "mx1.example.net", Reply: "550 5.1.1 <nobody@example.net>: Recipient address rejected: User unknown in virtual mailbox table", LastAttempt: arrived.Add(time.Second)},
			{Address: "slow@example.org", Status: "4.7.1", RemoteMTA: "192.0.2.7", Reply: "451 4.7.1 Greylisted", Expired: true, LastAttempt: arrived.Add(4 * 24 * time.Hour)},
			{Address: "away@nowhere.example", Status: "5.1.2", Reason: "the domain nowhere.example does not exist"},
			{Address: "gone@silent.example", Reason: "connection timed out", Expired: true},
		},
		Content: []byte("From: News <news@sender.example>\r\nTo: you\r\nSubject: Hello,\r\n world\r\nMessage-ID: <1@sender.example>\r\n\r\nBody: not returned\r\n"),
	}
}

func successes() []Recipient {
	return []Recipient{
		{Address: "old@example.net", Original: "utf-8;\\x{FC}@example.net", Action: Relayed, Status: "2.1.5", RemoteMTA: "mx1.example.net", Reply: "250 2.1.5 Ok"},
		{Address: "sink@example.com", Action: Delivered, Reason: "discarded"},
		{Address: "new@example.net", Original: "utf-8;ü@example.net", Action: Relayed},
	}
}

// TestReturnedContent: the whole content is returned if it was asked for, with a failure, and can be.
func TestReturnedContent(t *testing.T) {
	const header, body = "Subject: x\r\n", "\r\nthe body\r\n"
	for name, c := range map[string]struct {
		full    bool
		action  Action
		content string
		want    bool
	}{
		"not asked":     {false, Failed, header + body, false},
		"asked":         {true, Failed, header + body, true},
		"delivered":     {true, Delivered, header + body, false},
		"relayed":       {true, Relayed, header + body, false},
		"at the limit":  {true, Failed, header + body + strings.Repeat("x\r\n", (DefaultReturnMax-len(header+body))/3), true},
		"too long":      {true, Failed, header + body + strings.Repeat("x\r\n", DefaultReturnMax/3), false},
		"long line":     {true, Failed, header + body + strings.Repeat("x", 999) + "\r\n", false},
		"no line end":   {true, Failed, header + body + "x", false},
		"bare CR":       {true, Failed, header + body + "a\rb\r\n", false},
		"NUL":           {true, Failed, header + body + "\x00\r\n", false},
		"carries a DSN": {true, Failed, header + body + "--=_0PQ55GP300001_0--\r\n", true},
	} {
		r := sample()
		r.Full, r.Content = c.full, []byte(c.content)
		for i := range r.Recipients {
			r.Recipients[i].Action = c.action
		}
		parts := check(t, r)
		if got := strings.HasPrefix(parts[2], c.content) && strings.Contains(parts[2], body); got != c.want || !strings.HasPrefix(parts[2], header) {
			t.Errorf("%s: returned %.200q", name, parts[2])
		}
	}
}

func TestGolden(t *testing.T) {
	utf8 := sample()
	utf8.SMTPUTF8 = true
	utf8.To = "grüße@sender.example"
	utf8.Recipients = []Recipient{{Address: "用户@例子.example", Status: "5.1.1", RemoteMTA: "mx.example", Reply: "550 5.1.1 unbekannter Empfänger"}}
	utf8.Content = []byte("From: grüße@sender.example\r\nSubject: übel\r\n\r\n")
	full := sample()
	full.Full, full.EnvelopeID = true, "job 77 + 1"
	full.Content = append(full.Content, "Zweite Zeile: sch\xc3\xb6n\r\n.dot\r\n"...)
	full.Recipients = full.Recipients[:1]
	full.Recipients[0].Original = "rfc822;Nobody+x@sender.example"
	delayed := sample()
	delayed.Recipients = []Recipient{
		{Address: "slow@example.org", Action: Delayed, Status: "4.4.7", Reason: "not delivered by the time that its sender set, attempts go on", RetryUntil: arrived.Add(5 * 24 * time.Hour)},
		{Address: "slower@example.org", Action: Delayed},
	}
	delayed.Recipients[0].LastAttempt, delayed.Recipients[0].Status = arrived.Add(4*time.Hour), "4.2.2"
	packed := sample()
	packed.SMTPUTF8, packed.Full = true, true
	packed.Recipients = []Recipient{{Address: "用户@例子.example", Original: "utf-8;ü@x.example", Status: "5.2.2", RemoteMTA: "mx.example", Reply: "552 5.2.2 mailbox full"}}
	packed.Content = []byte("From: news@sender.example\r\nSubject: übel\r\nMessage-ID: <2@sender.example>\r\n\r\nGrüße\r\n")
	double := sample()
	double.Double, double.Full, double.To, double.Recipients = true, true, "postmaster@example.com", double.Recipients[:1]
	asked := *packed
	asked.Full = false
	mixed := sample()
	mixed.Recipients = append(mixed.Recipients[:1], successes()...)
	success := sample()
	success.Full, success.Recipients = true, successes() // no content without a failure
	for file, r := range map[string]*Report{
		"testdata/report.eml": sample(), "testdata/report-utf8.eml": utf8, "testdata/report-full.eml": full, "testdata/report-mixed.eml": mixed,
		"testdata/report-success.eml": success, "testdata/report-delayed.eml": delayed,
		"testdata/report-double.eml": double, "testdata/report-global.eml": packed, "testdata/report-global-header.eml": &asked,
	} {
		got, _, err := r.Build()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s", file, got)
		}
		check(t, r)
	}
}

func TestRefuses(t *testing.T) {
	r := sample()
	r.To = ""
	if _, _, err := r.Build(); !errors.Is(err, ErrNullReversePath) {
		t.Errorf("null reverse-path: %v", err)
	}
	r = sample()
	r.Recipients = nil
	if _, _, err := r.Build(); !errors.Is(err, ErrNoRecipients) {
		t.Errorf("no recipients: %v", err)
	}
}

// TestFlags: the notification asks for no more than it needs.
func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Report)
		want   message.Flags
		has    string
	}{
		{"plain", func(r *Report) {}, 0, "message/delivery-status"},
		{"SMTPUTF8 unused", func(r *Report) { r.SMTPUTF8 = true }, 0, "message/delivery-status"},
		{"SMTPUTF8 used", func(r *Report) { r.SMTPUTF8 = true; r.Recipients[0].Address = "ü@x.example" }, 0, "Final-Recipient: utf-8; =C3=BC@x.example\r\n"},
		{"SMTPUTF8 to a mailbox that needs it", func(r *Report) { r.SMTPUTF8 = true; r.To = "ö@x.example"; r.Recipients[0].Address = "ü@x.example" }, message.SMTPUTF8 | message.Body8Bit, "To: <ö@x.example>\r\n"},
		{"SMTPUTF8 in header", func(r *Report) { r.SMTPUTF8 = true; r.Content = []byte("X: ü\r\n") }, 0, "X: =C3=BC\r\n"},
		{"SMTPUTF8 in header alone", func(r *Report) { r.SMTPUTF8 = true; r.Content = []byte("X: ü\r\n") }, 0, "report-type=delivery-status"},
		{"8-bit header without SMTPUTF8", func(r *Report) { r.Content = []byte("X: \xfc\r\n") }, 0, "X: =FC\r\n"},
		{"all of what is 8-bit", func(r *Report) { r.Full, r.Content = true, []byte("X: 1\r\n\r\n\xfc\r\n") }, message.Body8Bit, "\r\n\xfc\r\n"},
		{"all of what is in SMTPUTF8", func(r *Report) { r.SMTPUTF8, r.Full, r.Content = true, true, []byte("X: ü\r\n\r\nä\r\n") }, 0, "message/global\r\nContent-Description: Undelivered message\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nX: =C3=BC\r\n"},
		{"8-bit reply without SMTPUTF8", func(r *Report) { r.Recipients[0].Reply = "550 n\xf6" }, 0, "smtp; 550 n?\r\n"},
		{"8-bit recipient without SMTPUTF8", func(r *Report) { r.Recipients[0].Address = "ü@x.example" }, 0, "Final-Recipient: utf-8; \\x{FC}@x.example\r\n"},
		{"leading dot", func(r *Report) { r.Content = []byte(".dot: 1\r\n") }, message.LeadingDots, "\r\n.dot: 1\r\n"},
	} {
		r := sample()
		c.change(r)
		got, flags, err := r.Build()
		if err != nil || flags != c.want || !strings.Contains(string(got), c.has) {
			t.Errorf("%s: flags %b, want %b, err %v, %q in\n%s", c.name, flags, c.want, err, c.has, got)
		}
		check(t, r)
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status  string
		expired bool
		want    string
	}{
		{"5.1.1", false, "5.1.1"}, {"4.2.2", true, "4.2.2"}, {"5.7.1", true, "5.7.1"}, {"4.2.2", false, "5.2.2"},
		{"", false, "5.0.0"}, {"", true, "4.4.7"}, {"2.0.0", false, "5.0.0"}, {"5.1.1 x", false, "5.0.0"}, {"5.1", true, "4.4.7"},
		{"5.01.1", false, "5.0.0"}, {"5.999.999", false, "5.999.999"}, {"5.1000.1", false, "5.0.0"}, {"5.-1.1", false, "5.0.0"},
	} {
		if got := status(&Recipient{Status: c.status, Action: Relayed}); got != "2.0.0" && got != c.status {
			t.Errorf("%q of a success: %s", c.status, got)
		}
		if got := status(&Recipient{Status: c.status, Expired: c.expired}); got != c.want {
			t.Errorf("%q, expired %v: %s, want %s", c.status, c.expired, got, c.want)
		}
	}
}

func TestHeaderSection(t *testing.T) {
	for _, c := range []struct{ content, want string }{
		{"A: 1\r\nB: 2\r\n\r\nbody: x\r\n", "A: 1\r\nB: 2\r\n"},
		{"A: 1\r\n\tfolded\r\n", "A: 1\r\n\tfolded\r\n"},
		{"\r\nbody: x\r\n", ""},
		{"no header\r\nA: 1\r\n", ""},
		{" A: 1\r\n", ""},
		{": x\r\n", ""},
		{"A: 1\r\nB: cut off", "A: 1\r\n"},
		{"A: 1\r\nB: cut off\r", "A: 1\r\n"},
		{"A: 1\r\nno more\r\nB: 2\r\n", "A: 1\r\n"},
		{"", ""},
	} {
		if got := string(headerSection([]byte(c.content), DefaultReturnMax)); got != c.want {
			t.Errorf("%q: %q, want %q", c.content, got, c.want)
		}
	}
	if n := len(headerSection(append([]byte("Name: value\r\n"), bytes.Repeat([]byte("\tmore value\r\n"), 10_000)...), DefaultReturnMax)); n > DefaultReturnMax || n < DefaultReturnMax-13 {
		t.Errorf("%d octets, want at most %d", n, DefaultReturnMax)
	}
}

// TestBoundary: a message that carries the boundary does not end the part it is in.
func TestBoundary(t *testing.T) {
	r := sample()
	for range 3 {
		content, _, err := r.Build()
		if err != nil {
			t.Fatal(err)
		}
		m, _ := mail.ReadMessage(bytes.NewReader(content))
		_, params, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
		evil := "--" + params["boundary"] + "--"
		r.Content = append([]byte(evil+": x\r\n"), r.Content...)
		r.Recipients[0].Reply += " " + evil
	}
	check(t, r)
}

// TestManyRecipients: people read a few, machines all.
func TestManyRecipients(t *testing.T) {
	r := sample()
	for range 100 {
		r.Recipients = append(r.Recipients, r.Recipients[0])
	}
	content, _, _ := r.Build()
	if !strings.Contains(string(content), "... and 84 further recipients, listed in the delivery report.\r\n") {
		t.Errorf("got\n%s", content)
	}
	check(t, r)
}

func TestLifetime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 minute", 5 * time.Minute: "5 minutes", time.Hour: "1 hour", 47 * time.Hour: "47 hours",
		5 * 24 * time.Hour: "5 days", 5*24*time.Hour - time.Second: "5 days", 60 * time.Hour: "3 days",
	} {
		if got := lifetime(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// check builds r and reads it back as any mail program would.
func check(t *testing.T, r *Report) []string {
	t.Helper()
	content, flags, err := r.Build()
	if err != nil {
		t.Fatal(err)
	}
	checkWire(t, content, flags)
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatalf("%v in\n%s", err, content)
	}
	for name := range m.Header {
		if !slices.Contains([]string{"Date", "From", "To", "Subject", "Message-Id", "In-Reply-To", "References", "Auto-Submitted", "Mime-Version", "Content-Type", "Content-Transfer-Encoding"}, name) {
			t.Fatalf("field %q slipped in: %v", name, m.Header)
		}
	}
	if len(m.Header) < 8 || (m.Header.Get("Content-Transfer-Encoding") != "") != (bytes.Contains(content, []byte("\r\nContent-Transfer-Encoding: 8bit\r\n"))) || m.Header.Get("Auto-Submitted") != "auto-replied" {
		t.Fatalf("header %v", m.Header)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" {
		t.Fatalf("%s: %v", kind, err)
	}
	var parts []string
	mr := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, content)
		}
		for name := range p.Header {
			if !slices.Contains([]string{"Content-Type", "Content-Description", "Content-Language", "Content-Transfer-Encoding"}, name) {
				t.Fatalf("field %q slipped in: %v", name, p.Header)
			}
		}
		var from io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			from = quotedprintable.NewReader(p)
		}
		body, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, string(body))
	}
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3, in\n%s", len(parts), content)
	}
	checkMachine(t, r, parts[1])
	return parts
}

// checkWire checks what SMTP asks of content.
func checkWire(t *testing.T, content []byte, flags message.Flags) {
	t.Helper()
	dots := false
	if !bytes.HasSuffix(content, []byte("\r\n")) {
		t.Fatalf("does not end with CRLF: %q", content)
	}
	for line := range bytes.SplitSeq(content[:len(content)-2], []byte("\r\n")) {
		if len(line) > 998 || bytes.ContainsAny(line, "\r\n\x00") || flags&message.Body8Bit == 0 && !isASCII(line) {
			t.Fatalf("line %q in\n%s", line, content)
		}
		dots = dots || bytes.HasPrefix(line, []byte("."))
	}
	if dots != (flags&message.LeadingDots != 0) {
		t.Fatalf("leading dots %v, flags %b", dots, flags)
	}
}

// checkMachine reads the groups of fields of message/delivery-status.
func checkMachine(t *testing.T, r *Report, body string) {
	t.Helper()
	tp := textproto.NewReader(bufio.NewReader(strings.NewReader(body + "\r\n\r\n")))
	head, err := tp.ReadMIMEHeader()
	fields := 3
	if r.EnvelopeID != "" {
		fields++
	}
	if err != nil || len(head) != fields || !strings.HasPrefix(head.Get("Reporting-MTA"), "dns; ") {
		t.Fatalf("%v: %v in\n%s", err, head, body)
	}
	for i := range r.Recipients {
		group, err := tp.ReadMIMEHeader()
		if err != nil || group.Get("Action") != r.Recipients[i].Action.String() || (group.Get("Original-Recipient") != "") != (r.Recipients[i].Original != "") || len(group["Final-Recipient"]) != 1 || len(group["Status"]) != 1 {
			t.Fatalf("recipient %d: %v: %v in\n%s", i, err, group, body)
		}
		for name := range group {
			switch name {
			case "Final-Recipient", "Original-Recipient", "Action", "Status", "Remote-Mta", "Diagnostic-Code", "Last-Attempt-Date", "Will-Retry-Until", "Final-Log-Id":
			default:
				t.Fatalf("recipient %d: field %q slipped in: %v", i, name, group)
			}
		}
	}
	if more, _ := tp.ReadMIMEHeader(); len(more) != 0 {
		t.Fatalf("more groups than recipients: %v", more)
	}
}

// FuzzBuild: HOSTILE I9. Whatever a peer says, the notification has the fields and parts that it should, and is fit for the wire.
func FuzzBuild(f *testing.F) {
	f.Add("mail.example.com", "a@b.example", "c@d.example", "5.1.1", "mx.example", "550 no\r\nX: y", "why", []byte("A: 1\r\n\r\n"), false, false, "", "", uint8(0), false)
	f.Add("h", "ü@x", "\r\n\r\n--=_", "4.0.0\r\n", "a) b\x00", strings.Repeat("€", 500), "\x1b[31m", []byte(".a:\r\n \r\xff\r\n\x00:"+strings.Repeat("x", 3000)+"\r\n"), true, true, "a\r\nb: c", "rfc822;a\r\n\r\nX: y", uint8(0), true)
	f.Add("h", "x@x", "a@b", "", "", "", "", []byte("A: 1\r\n\r\n--=_\xff\r\n"), false, false, "\x00", ";\u2028", uint8(2), true)
	f.Fuzz(func(t *testing.T, host, to, rcpt, code, mta, reply, reason string, content []byte, utf8, expired bool, envelope, original string, action uint8, full bool) {
		if to == "" {
			return
		}
		check(t, &Report{
			ReportingMTA: host, To: to, ID: 7, Original: 8, Date: arrived, Arrived: arrived, SMTPUTF8: utf8, Content: content, EnvelopeID: envelope, Full: full,
			Recipients: []Recipient{{Address: rcpt, Status: code, RemoteMTA: mta, Reply: reply, Reason: reason, Expired: expired, Original: original, Action: Action(action % 3)}, {Address: to}},
		})
	})
}

// TestHeadersOnly: what returns a message of 8 bits returns its header section instead, and is the same otherwise.
func TestHeadersOnly(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*Report)
		content string
		want    string // of the third part; "" = nothing is done
	}{
		"8 bits":           {nil, "Subject: x\r\n\r\nschön\r\n--=_0PQ55GP300001--\r\n", "Subject: x\r\n"},
		"in the header":    {nil, "Subject: schön\r\n.x: y\r\n\r\nschön\r\n", "Subject: schön\r\n.x: y\r\n"},
		"header only":      {func(r *Report) { r.Full = false }, "Subject: schön\r\n\r\nbody\r\n", ""},
		"7 bits":           {nil, "Subject: x\r\n\r\nbody\r\n", "Subject: x\r\n"},
		"wide":             {func(r *Report) { r.SMTPUTF8, r.To = true, "ü@sender.example" }, "Subject: schön\r\n\r\nschön\r\n", ""},
		"of another mould": {func(r *Report) { r.ID++ }, "Subject: x\r\n\r\nschön\r\n", ""},
	} {
		r := sample()
		id := r.ID
		r.Full, r.Content = true, []byte(c.content)
		if c.change != nil {
			c.change(r)
		}
		whole, _, err := r.Build()
		if err != nil {
			t.Fatal(err)
		}
		narrow, flags, ok := HeadersOnly(whole, id)
		if ok != (c.want != "") {
			t.Errorf("%s: done: %v", name, ok)
		}
		if !ok {
			continue
		}
		if !isASCII(narrow) || flags&^message.LeadingDots != 0 || (flags != 0) != leadingDots(narrow) {
			t.Errorf("%s: flags %v of %q", name, flags, narrow)
		}
		r.Full, r.Content = false, []byte(c.want)
		if want, _, err := r.Build(); err != nil || !bytes.Equal(narrow[bytes.Index(narrow, []byte("--=_")):], want[bytes.Index(want, []byte("--=_")):]) {
			t.Errorf("%s:\n%s\nwant\n%s", name, narrow, want)
		}
		if _, _, again := HeadersOnly(narrow, id); again {
			t.Errorf("%s: done again", name)
		}
	}
}

// FuzzHeadersOnly: whatever stands in place of a notification of ours, what comes out has 7 bits, and is done once.
func FuzzHeadersOnly(f *testing.F) {
	r := sample()
	r.Full, r.Content = true, []byte("Subject: schön\r\n\r\nschön\r\n")
	whole, _, err := r.Build()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(bytes.Replace(whole, []byte("_0"), []byte("_1"), 1))
	f.Fuzz(func(t *testing.T, content []byte) {
		before := bytes.Clone(content)
		narrow, _, ok := HeadersOnly(content, r.ID)
		if !bytes.Equal(content, before) {
			t.Fatal("the content was changed")
		}
		if !ok {
			return
		}
		if !isASCII(narrow) {
			t.Errorf("%q", narrow)
		}
		if _, _, again := HeadersOnly(narrow, r.ID); again {
			t.Errorf("done again: %q", narrow)
		}
	})
}
