package engine

import (
	"slices"
	"strings"
	"testing"
)

const hello = "Subject: hello\r\nMessage-ID: <1@sender.example>\r\n\r\nHow do you do?\r\n.a line with a dot\r\n"

// TestOutcomePerRecipient sends to three recipients at one site in one transaction. One is taken, one deferred, one refused, and each has its
// own fate in the spool, in the event log and in the end (P2).
func TestOutcomePerRecipient(t *testing.T) {
	t.Parallel()
	again := make(chan struct{})
	tries := 0
	f := listen(t, answering(func(p *peer, line string) string {
		switch {
		case strings.HasPrefix(line, "RCPT TO:<never@"):
			return "550 5.1.1 no such user"
		case strings.HasPrefix(line, "RCPT TO:<later@"):
			if tries++; tries == 1 {
				return "450 4.2.1 come again"
			}
			<-again
		}
		return ""
	}))
	c := settings(t, f.route("*"))
	c.Egress.Connections = 1
	r := start(t, c)
	id := r.send("s@sender.example", hello, "ok@far.example", "later@far.example", "never@far.example")

	first := f.next()
	if want := []string{"ok@far.example"}; !slices.Equal(first.to, want) || first.peer != 1 {
		t.Errorf("taken for %v on connection %d, want %v on 1", first.to, first.peer, want)
	}
	want := map[string]string{"ok@far.example": "delivered", "later@far.example": "deferred", "never@far.example": "bounced"}
	r.await("states of the recipients", func() bool {
		states := r.states()
		for address, state := range want {
			if states[address] != state {
				return false
			}
		}
		return true
	})
	for _, m := range r.queue() {
		if m.ID != id {
			continue
		}
		if got := m.Recipients[1]; got.Reply != "450 4.2.1 come again" || got.Attempts != 1 || got.Due.IsZero() {
			t.Errorf("deferred recipient: %+v", got)
		}
		if got := m.Recipients[2]; got.Reply != "550 5.1.1 no such user" || got.Attempts != 1 || !got.Due.IsZero() {
			t.Errorf("bounced recipient: %+v", got)
		}
	}
	close(again)

	letters := []letter{f.next(), f.next()}
	slices.SortFunc(letters, func(a, b letter) int { return strings.Compare(a.mail, b.mail) })
	report, retry := letters[0], letters[1]
	if !slices.Equal(retry.to, []string{"later@far.example"}) || withoutTrace(t, retry.content) != hello || retry.content != first.content {
		t.Errorf("the second attempt was for %v: %q", retry.to, retry.content)
	}
	if d := parseReport(t, report); len(d.recipients) != 1 || d.recipients[0].Get("Final-Recipient") != "rfc822; never@far.example" {
		t.Errorf("report: %+v", d)
	}
	r.awaitEmpty()
	f.none()
	checkRecords(t, r, f, id)
}

// checkRecords checks the event log of TestOutcomePerRecipient.
func checkRecords(t *testing.T, r *rig, f *far, id string) {
	t.Helper()
	for _, want := range []record{
		{Type: "reception", Recipient: "ok@far.example", Recipients: 3, ID: id, Sender: "s@sender.example", Size: int64(len(hello))},
		{Type: "delivery", Recipient: "ok@far.example", ID: id, Sender: "s@sender.example", Code: 250, Enhanced: "2.0.0", Text: "Ok", Attempt: 1, Size: int64(len(hello))},
		{Type: "deferral", Recipient: "later@far.example", ID: id, Sender: "s@sender.example", Code: 450, Enhanced: "4.2.1", Text: "come again", Attempt: 1, Size: int64(len(hello))},
		{Type: "bounce", Recipient: "never@far.example", ID: id, Sender: "s@sender.example", Code: 550, Enhanced: "5.1.1", Text: "no such user", Attempt: 1, Size: int64(len(hello))},
		{Type: "delivery", Recipient: "later@far.example", ID: id, Sender: "s@sender.example", Code: 250, Enhanced: "2.0.0", Text: "Ok", Attempt: 2, Size: int64(len(hello))},
	} {
		got := r.record(want.Type, want.Recipient, 1)
		if want.Type != "reception" {
			want.Queue, want.Site, want.Source = "far.example", f.l.Addr().String(), "127.0.0.1"
		}
		want.Time, want.Peer, want.Latency = got.Time, "127.0.0.1", got.Latency
		if got.Site = strings.Trim(strings.Replace(got.Site, "]:", ":", 1), "["); got != want {
			t.Errorf("record\n got %+v\nwant %+v", got, want)
		}
	}
	if got := r.records("reception"); len(got) != 2 || got[1].Sender != "" || got[1].Recipient != "s@sender.example" {
		t.Errorf("receptions: %+v", got)
	}
	r.record("delivery", "s@sender.example", 1)
	if n := len(r.records("deferral", "bounce", "expiry")); n != 2 {
		t.Errorf("%d records of failures, want 2", n)
	}
	if s := r.Status(); s.Accepted != 1 || s.Delivered != 3 || s.Deferrals != 1 || s.Bounced != 1 {
		t.Errorf("status: %+v", s)
	}
}

// withoutTrace is the content behind our Received header, which must be there.
func withoutTrace(t *testing.T, content string) string {
	t.Helper()
	if !strings.HasPrefix(content, "Received: ") {
		t.Errorf("no trace header: %.200q", content)
	}
	for line := range strings.SplitAfterSeq(content, "\n") {
		if !strings.HasPrefix(line, "Received: ") && !strings.HasPrefix(line, "\t") {
			break
		}
		content = content[len(line):]
		if strings.HasPrefix(content, "Received: ") { // one that was there before
			break
		}
	}
	return content
}
