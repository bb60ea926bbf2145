package engine

import (
	"bufio"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"
)

// notification is a DSN taken apart by a parser that is not ours.
type notification struct {
	header     mail.Header
	human      string
	message    textproto.MIMEHeader   // the per-message fields
	recipients []textproto.MIMEHeader // the per-recipient fields
	returned   string                 // header of the original, or all of it
	kind       string                 // its type
	status     string                 // that of the fields
}

// parseReport takes a DSN apart. RFC 3464 §2, RFC 6522
func parseReport(t *testing.T, l letter) (n notification) {
	t.Helper()
	if !strings.HasPrefix(l.mail, "MAIL FROM:<>") {
		t.Errorf("a DSN came with %s", l.mail)
	}
	m, err := mail.ReadMessage(strings.NewReader(l.content))
	if err != nil {
		t.Fatalf("%v: %q", err, l.content)
	}
	n.header = m.Header
	typ, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	status := "message/" + params["report-type"] // of RFC 6533, too
	if err != nil || typ != "multipart/report" || !slices.Contains([]string{"message/delivery-status", "message/global-delivery-status"}, status) {
		t.Fatalf("%s %v, %v", typ, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []string{"text/plain", status, "text/rfc822-headers message/rfc822 message/global-headers message/global"} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if typ, _, err := mime.ParseMediaType(p.Header.Get("Content-Type")); err != nil || !slices.Contains(strings.Fields(want), typ) {
			t.Errorf("part %q, want %s: %v", typ, want, err)
		} else {
			n.kind = typ
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		switch want {
		case "text/plain":
			n.human = string(body)
		case status:
			n.status = status
			n.fields(t, string(body))
		default:
			n.returned = string(body)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("more than three parts: %v", err)
	}
	return n
}

// fields reads the groups of the report for machines.
func (n *notification) fields(t *testing.T, body string) {
	t.Helper()
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(body + "\r\n")))
	for {
		group, err := r.ReadMIMEHeader()
		if len(group) > 0 {
			if n.message == nil {
				n.message = group
			} else {
				n.recipients = append(n.recipients, group)
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("%v: %q", err, body)
		}
	}
}

// TestBounceReports tells the sender of two recipients that failed together in one DSN.
func TestBounceReports(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(p *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<no") {
			return "550-5.1.1 no such user\r\n550 5.1.1 \x1b[31msorry"
		}
		return ""
	}))
	r := start(t, settings(t, f.route("*")))
	id := r.send("s@sender.example", hello, "no1@far.example", "no2@far.example")
	d := parseReport(t, f.next())
	r.awaitEmpty()
	f.none()

	if d.header.Get("To") != "<s@sender.example>" || d.header.Get("Auto-Submitted") != "auto-replied" || d.header.Get("Message-ID") == "" {
		t.Errorf("header: %v", d.header)
	}
	if got := d.message.Get("Reporting-MTA"); got != "dns; mta.test.example" {
		t.Errorf("Reporting-MTA: %q", got)
	}
	if _, err := mail.ParseDate(d.message.Get("Arrival-Date")); err != nil {
		t.Errorf("Arrival-Date: %v", err)
	}
	if len(d.recipients) != 2 {
		t.Fatalf("%d recipients: %v", len(d.recipients), d.recipients)
	}
	for i, rcpt := range []string{"no1@far.example", "no2@far.example"} {
		for name, want := range map[string]string{
			"Final-Recipient": "rfc822; " + rcpt, "Action": "failed", "Status": "5.1.1", "Remote-Mta": "dns; [127.0.0.1]",
		} {
			if got := d.recipients[i].Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", rcpt, name, got, want)
			}
		}
		got := d.recipients[i].Get("Diagnostic-Code")
		if !strings.HasPrefix(got, "smtp; 550 5.1.1 no such user") || strings.Contains(got, "\x1b") {
			t.Errorf("Diagnostic-Code: %q", got)
		}
	}
	if header, _, _ := strings.Cut(hello, "\r\n\r\n"); !strings.Contains(d.returned, header) {
		t.Errorf("returned: %q, want %q", d.returned, header)
	}
	if strings.Contains(d.returned, "How do you do") {
		t.Error("the body was returned")
	}
	if !strings.Contains(d.human, "no1@far.example") || !strings.Contains(d.human+d.returned, id) {
		t.Logf("for people: %q", d.human)
	}
	if r.stats.dsns.Get() != 1 {
		t.Errorf("%d DSNs", r.stats.dsns.Get())
	}
}

// TestNullSenderGetsNoReport is P7.
func TestNullSenderGetsNoReport(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(p *peer, line string) string {
		if strings.HasPrefix(line, "RCPT") {
			return "550 5.1.1 no"
		}
		return ""
	}))
	r := start(t, settings(t, f.route("*")))
	r.send("", hello, "a@far.example", "b@far.example")
	r.record("bounce", "a@far.example", 1)
	r.record("bounce", "b@far.example", 1)
	r.awaitEmpty()
	if dsns, none, in := r.stats.dsns.Get(), r.stats.unreported.Get(), len(r.records("reception")); dsns != 0 || none == 0 || in != 1 {
		t.Errorf("%d DSNs, %d suppressed, %d receptions", dsns, none, in)
	}
}

// TestReportThatBounces makes no report of a report.
func TestReportThatBounces(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(p *peer, line string) string {
		if line == "." {
			return "554 5.7.1 we do not like it"
		}
		return ""
	}))
	r := start(t, settings(t, f.route("*")))
	r.send("s@sender.example", hello, "a@far.example")
	r.record("bounce", "a@far.example", 1)
	if got := r.record("bounce", "s@sender.example", 1); got.Sender != "" || got.Code != 554 || got.Enhanced != "5.7.1" {
		t.Errorf("%+v", got)
	}
	r.awaitEmpty()
	if dsns, none, in := r.stats.dsns.Get(), r.stats.unreported.Get(), len(r.records("reception")); dsns != 1 || none != 1 || in != 2 {
		t.Errorf("%d DSNs, %d suppressed, %d receptions", dsns, none, in)
	}
}

// TestExpiry gives up after the lifetime and says so to the sender.
func TestExpiry(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(p *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<slow@") {
			return "451 4.3.0 not today"
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.Queue.Expire = 500 * time.Millisecond
	r := start(t, c)
	r.send("s@sender.example", hello, "slow@far.example")
	d := parseReport(t, f.next())
	r.awaitEmpty()
	f.none()
	if len(d.recipients) != 1 {
		t.Fatalf("recipients: %v", d.recipients)
	}
	rcpt := d.recipients[0]
	if rcpt.Get("Action") != "failed" || !strings.HasPrefix(rcpt.Get("Status"), "4.") || !strings.Contains(rcpt.Get("Diagnostic-Code"), "451 4.3.0 not today") {
		t.Errorf("%v", rcpt)
	}
	got := r.record("expiry", "slow@far.example", 1)
	if got.Code != 451 || got.Attempt != len(r.records("deferral"))+1 {
		t.Errorf("%+v after %d deferrals", got, len(r.records("deferral")))
	}
	if len(r.records("bounce")) != 0 {
		t.Error("an expiry is no bounce")
	}
}
