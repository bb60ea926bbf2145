package ingress

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"mailrace/proto/header"
	"mailrace/proto/message"
)

// labeling are rules that take labels out of header fields and ENVID.
func labeling() *HeadRules {
	return &HeadRules{Fields: [labels]string{"X-Tenant", "X-Campaign", "X-Key"}, EnvelopeID: []Label{Tenant, Key}}
}

func submitting() *HeadRules { return &HeadRules{Submission: true, Hostname: "mta.test.example"} }

var arrived = time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))

const (
	testID    = message.ID(1 << 40)
	completed = "Date: Wed, 04 Mar 2026 05:06:07 +0100\r\nFrom: <s@sender.example>\r\nMessage-ID: <0000100000000@mta.test.example>\r\n"
)

func TestHeadRules(t *testing.T) {
	sign := func(a []byte) bool { return strings.HasSuffix(string(a), "@sender.example") }
	full := "Date: x\r\nMessage-ID: y\r\n"
	for name, c := range map[string]struct {
		rules   *HeadRules
		in      Injection
		content string
		want    string // the section, or "" where it stays; or a reply
		labels  string
	}{
		"nothing to do":         {labeling(), Injection{Trusted: true}, "Subject: x\r\n\r\nbody", "", "|"},
		"all labels":            {labeling(), Injection{Trusted: true}, "A: 1\r\nx-tenant:  acme \r\nX-Campaign: spring\r\n sale\r\nX-KEY:k\r\nB: 2\r\n\r\n", "A: 1\r\nB: 2\r\n", "acme|spring sale|k"},
		"only labels":           {labeling(), Injection{Trusted: true}, "X-Tenant: acme\r\n\r\nX-Key: body\r\n", "\x00", "acme||"},
		"labels of a stranger":  {labeling(), Injection{EnvelopeID: "acme/k"}, "X-Tenant: acme\r\nX-Tenant: acme\r\nA: 1\r\nX-Key: \x01\r\n\r\n", "A: 1\r\n", "||"},
		"tenant of the user":    {labeling(), Injection{Trusted: true, Tenant: "users", EnvelopeID: "acme/k"}, "X-Tenant: acme\r\nA: 1\r\n\r\n", "A: 1\r\n", "users||k"},
		"stranger with a name":  {labeling(), Injection{Tenant: "users"}, "X-Key: k\r\nA: 1\r\n\r\n", "A: 1\r\n", "users||"},
		"ENVID":                 {labeling(), Injection{Trusted: true, EnvelopeID: "acme/a/b"}, "A: 1\r\n\r\n", "", "acme||a/b"},
		"ENVID and fields":      {labeling(), Injection{Trusted: true, EnvelopeID: "acme/a"}, "X-Key: k\r\nA: 1\r\n\r\n", "A: 1\r\n", "acme||k"},
		"ENVID of another form": {labeling(), Injection{Trusted: true, EnvelopeID: "QQ314159"}, "A: 1\r\n\r\n", "", "||"},
		"empty parts of ENVID":  {labeling(), Injection{Trusted: true, EnvelopeID: "/"}, "A: 1\r\n\r\n", "", "||"},
		"empty label":           {labeling(), Injection{Trusted: true, EnvelopeID: "acme/"}, "X-Tenant:\r\nA: 1\r\n\r\n", "A: 1\r\n", "acme||"},
		"behind the section":    {labeling(), Injection{Trusted: true}, "A: 1\r\n>From x\r\nX-Tenant: acme\r\n\r\n", "", "||"},
		"beyond ASCII":          {labeling(), Injection{Trusted: true}, "X-Tenant: Käse\r\nA: 1\r\n\r\n", "A: 1\r\n", "Käse||"},
		"I10 control character": {labeling(), Injection{Trusted: true}, "X-Tenant: a\x1bb\r\n\r\n", "554 5.6.0 Header field X-Tenant holds characters that cannot be printed", ""},
		"tab":                   {labeling(), Injection{Trusted: true}, "X-Tenant: a\tb\r\n\r\n", "554 5.6.0 Header field X-Tenant holds characters that cannot be printed", ""},
		"direction override":    {labeling(), Injection{Trusted: true}, "X-Campaign: a\u202eb\r\n\r\n", "554 5.6.0 Header field X-Campaign holds characters that cannot be printed", ""},
		"not UTF-8":             {labeling(), Injection{Trusted: true}, "X-Tenant: \xff\r\n\r\n", "554 5.6.0 Header field X-Tenant is not UTF-8", ""},
		"longest":               {labeling(), Injection{Trusted: true}, "X-Key: " + strings.Repeat("k", 255) + "\r\nA: 1\r\n\r\n", "A: 1\r\n", "||" + strings.Repeat("k", 255)},
		"too long":              {labeling(), Injection{Trusted: true}, "X-Key: " + strings.Repeat("k", 256) + "\r\n\r\n", "554 5.6.0 Header field X-Key is longer than 255 octets", ""},
		"twice":                 {labeling(), Injection{Trusted: true}, "X-Key: k\r\nA: 1\r\nX-Key: k\r\n\r\n", "554 5.6.0 Header field X-Key stands there twice", ""},
		"B12 too large":         {labeling(), Injection{}, "X: " + strings.Repeat("x", header.MaxSize) + "\r\n\r\n", "552 5.3.4 Header section larger than 102400 octets", ""},
		"B12 too many":          {labeling(), Injection{}, strings.Repeat("X:\r\n", header.MaxFields+1) + "\r\n", "554 5.6.0 More than 1000 header fields", ""},

		"complete":               {submitting(), Injection{}, full + "From: a@b\r\n\r\nbody", "", "||"},
		"nothing at all":         {submitting(), Injection{}, "", completed, "||"},
		"no header":              {submitting(), Injection{}, "\r\nbody", completed, "||"},
		"no header, no line":     {submitting(), Injection{}, "body text\r\nFrom: x\r\n", completed + "\r\n", "||"},
		"no body":                {submitting(), Injection{}, "Subject: x\r\n", "Subject: x\r\n" + completed, "||"},
		"no Date":                {submitting(), Injection{}, "Message-ID: y\r\nFrom: a@b\r\n\r\n", "Message-ID: y\r\nFrom: a@b\r\n" + strings.SplitAfter(completed, "\r\n")[0], "||"},
		"no Message-ID":          {submitting(), Injection{}, "date : y\r\nFrom: a@b\r\n\r\n", "date : y\r\nFrom: a@b\r\n" + strings.SplitAfter(completed, "\r\n")[2], "||"},
		"Bcc":                    {submitting(), Injection{}, full + "BCC: a@b,\r\n c@d\r\nFrom: a@b\r\nBcc:\r\nResent-Bcc: e@f\r\nX-Bcc: g\r\n\r\nBcc: body", full + "From: a@b\r\nX-Bcc: g\r\n", "||"},
		"no From, null sender":   {submitting(), Injection{From: "\x00"}, full + "\r\n", "554 5.6.0 From header field missing", ""},
		"two From":               {submitting(), Injection{}, full + "From: a@b\r\nFrom: c@d\r\n\r\n", "554 5.6.0 More than one From header field", ""},
		"text among the fields":  {submitting(), Injection{}, full + "From: a@b\r\nsome text\r\nBcc: c@d\r\n\r\n", "554 5.6.0 Line 4 of the header section is no header field", ""},
		"user without a list":    {&HeadRules{Submission: true, CheckFrom: true}, Injection{}, full + "From: who@ever\r\n\r\n", "", "||"},
		"From of the user":       {&HeadRules{Submission: true, CheckFrom: true}, Injection{MaySend: sign}, full + "From: \"x@y\" <a@sender.example>, b@sender.example\r\n\r\n", "", "||"},
		"From of another":        {&HeadRules{Submission: true, CheckFrom: true}, Injection{MaySend: sign}, full + "From: a@sender.example,\r\n (a@sender.example) boss@far.example\r\n\r\n", "550 5.7.1 From header field: <boss@far.example> is not an address of yours", ""},
		"From that is ambiguous": {&HeadRules{Submission: true, CheckFrom: true}, Injection{MaySend: sign}, full + "From: boss@far.example <a@sender.example>\r\n\r\n", "554 5.6.0 From header field: not a list of addresses", ""},
		"From of nobody":         {&HeadRules{Submission: true, CheckFrom: true}, Injection{MaySend: sign}, full + "From: undisclosed:;\r\n\r\n", "554 5.6.0 From header field: not a list of addresses", ""},
		"not checked":            {submitting(), Injection{MaySend: sign}, full + "From: boss@far.example\r\n\r\n", "", "||"},
	} {
		c.in.ID, c.in.Now = testID, arrived
		switch c.in.From {
		case "":
			c.in.From = "s@sender.example"
		case "\x00":
			c.in.From = ""
		}
		content := []byte(c.content)
		h, refusal := c.rules.Read(content, &c.in)
		got := string(h.Section)
		switch {
		case refusal != nil:
			got = fmt.Sprintf("%d %s %s", refusal.Code, refusal.Enhanced, refusal.Text)
		case h.Section != nil && got == "":
			got = "\x00"
		}
		clear(content)
		if got != c.want {
			t.Errorf("%s: got\n%q\nwant\n%q", name, got, c.want)
		}
		if labels := strings.Join(h.Labels[:], "|"); refusal == nil && strings.Trim(labels, "|") != strings.Trim(c.labels, "|") {
			t.Errorf("%s: labels %q, want %q", name, labels, c.labels)
		}
	}
}

// submit sends a message and returns what was passed on.
func (c *client) submit(r *rig, mail, content string) arrival {
	c.t.Helper()
	c.say("MAIL FROM:<s@sender.example>"+mail, 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.send(content + ".\r\n")
	c.expect(250)
	return receive(c.t, r.accepted)
}

// TestLabels come with the message, and nothing but their fields is missing from it (P5), whatever its size and however its header section lies
// in the chunks.
func TestLabels(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Head = labeling() })
	c := r.greet()
	for _, filler := range []int{0, 1, 60_000, 65_480, 65_490, 65_500, 65_510, 65_520, 65_530, 65_540, 100_000} {
		for _, body := range []int{0, 100, 70_000, 500_000} {
			before := "Subject: x\r\n" + strings.Repeat(" "+strings.Repeat("y", 97)+"\r\n", filler/100) + strings.Repeat(" \r\n", filler%100/3)
			behind := "X-After: 1\r\n\r\n" + lines(body)
			m := c.submit(r, fmt.Sprintf(" SIZE=%d ENVID=other/key+2B1", rand.IntN(2)*700_000), before+"X-Tenant: acme\r\n"+behind)
			if m.content != before+behind || m.Size != int64(len(before+behind)) || m.Chunks != (len(before+behind)+message.ChunkSize-1)/message.ChunkSize {
				t.Errorf("%d, %d: %d octets in %d chunks, want %d", filler, body, m.Size, m.Chunks, len(before+behind))
			}
			if m.Tenant != "acme" || m.Campaign != "" || m.DSN.EnvelopeID != "other/key+1" {
				t.Errorf("%d, %d: tenant %q, campaign %q", filler, body, m.Tenant, m.Campaign)
			}
		}
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}

// TestLabelsOfStrangers are taken out and not heeded.
func TestLabelsOfStrangers(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) {
		d.Head, d.RelayFrom, d.RelayDomains = labeling(), nil, NewDomains([]string{"far.example"})
	})
	c := r.greet()
	m := c.submit(r, " ENVID=acme/k", "X-Tenant: acme\r\nA: 1\r\n\r\n")
	if m.content != "A: 1\r\n\r\n" || m.Tenant != "" {
		t.Errorf("%q, tenant %q", m.content, m.Tenant)
	}
	c.Close()
	r.awaitQuiet()
}

// TestBadLabels are refused at the end of data, before anything of the message was stored.
func TestBadLabels(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Head = labeling() })
	c := r.greet()
	for _, body := range []int{0, 500_000} {
		c.envelope()
		c.send("X-Tenant: a\x7f\r\n\r\n" + lines(body))
		if got := c.say(".", 554); !strings.HasPrefix(got, "554 5.6.0 Header field X-Tenant holds") {
			t.Errorf("%q", got)
		}
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
	if appended, chunks, aborted := r.store.counts(); appended+chunks+aborted != 0 || r.door.Stats.BadHeader.Get() != 2 {
		t.Errorf("%d appended, %d chunks, %d aborted", appended, chunks, aborted)
	}
}

// TestSubmission gives a message what it lacks, by DATA and in chunks, at every cut between two octets.
func TestSubmission(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Head = submitting() })
	c := r.greet()
	content := "Subject: x\r\nBcc: secret@far.example\r\n\r\nbody\r\n"
	check := func(m arrival) {
		t.Helper()
		want := "Subject: x\r\nDate: " + time.Unix(0, m.Arrived).Format(DateLayout) + "\r\nFrom: <s@sender.example>\r\nMessage-ID: <" + m.ID.String() +
			"@mta.test.example>\r\n\r\nbody\r\n"
		if m.content != want || m.Size != int64(len(want)) {
			t.Fatalf("got\n%s\nwant\n%s", m.content, want)
		}
	}
	check(c.submit(r, "", content))
	for cut := range len(content) + 1 {
		c.send(fmt.Sprintf("MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%s", cut, content[:cut], len(content)-cut, content[cut:]))
		for range 4 {
			c.expect(250)
		}
		check(receive(t, r.accepted))
	}
	if m := c.submit(r, "", ""); !strings.HasPrefix(m.content, "Date: ") || strings.Count(m.content, "\r\n") != 3 {
		t.Errorf("of nothing: %q", m.content)
	}
	if m := c.submit(r, "", "no header\r\n"); !strings.HasSuffix(m.content, ">\r\n\r\nno header\r\n") {
		t.Errorf("of a body: %q", m.content)
	}
	c.Close()
	r.awaitQuiet()
}

// TestHeaderLimitsB12 holds on every door: the message is read to its true end, and the session goes on.
func TestHeaderLimitsB12(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string]*HeadRules{"plain": nil, "labels": labeling(), "submission": submitting()} {
		r := open(t, func(d *Door, _ *shelf) { d.Head = rules })
		c := r.greet()
		for _, m := range []struct{ content, reply string }{
			{"From: a@b\r\nX: x\r\n" + strings.Repeat(" y\r\n", header.MaxSize/4+1), "552 5.3.4 "},
			{"From: a@b\r\nX: " + strings.Repeat("x", 200_000) + "\r\n", "552 5.3.4 "},
			{"From: a@b\r\n" + strings.Repeat("X:\r\n", 100_000), "554 5.6.0 "},
			{"From: a@b\r\n" + strings.Repeat("X:\r\n", header.MaxFields-1) + "\r\n", "250"},
			{"From: a@b\r\n\r\n" + strings.Repeat("X:\r\n", 100_000), "250"},
			{"From: a@b\r\n\r\n" + strings.Repeat("x", 200_000) + "\r\n", "250"}, // text lines are passed on as long as they are
		} {
			for _, more := range []int{0, 300_000} {
				c.envelope()
				c.send(m.content + lines(more))
				c.send(".\r\n")
				if got, err := c.reply(); err != nil || !strings.HasPrefix(got, m.reply) {
					t.Errorf("%s: %.40q: %q, want %s", name, m.content, got, m.reply)
				}
			}
		}
		c.say("QUIT", 221)
		c.end()
		for len(r.accepted) > 0 {
			receive(t, r.accepted)
		}
		r.awaitQuiet()
	}
}

// FuzzHeadRules: what the rules leave is what they were given, but for the fields that they name, and they find nothing more to do in it.
func FuzzHeadRules(f *testing.F) {
	for _, seed := range []string{"A: 1\r\nX-Tenant: a\r\n b\r\n\r\nbody", "Bcc: x\r\nFrom : a@b\r\n", "x", "\r\n", "From: a\r\nx\r\n", "X-Key:\r\n \r\n\r\n"} {
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, content string, submission bool) {
		rules := labeling()
		rules.Submission, rules.Hostname = submission, "mta.test.example"
		in := Injection{ID: testID, Now: arrived, From: "s@sender.example", Trusted: true}
		h, refusal := rules.Read([]byte(content), &in)
		if refusal != nil {
			return
		}
		section, rest, _ := header.Split([]byte(content))
		want := ""
		for f := range header.Fields(section) {
			if !rules.dropped(&f) {
				want += string(f.Raw)
			}
		}
		got := string(section)
		if h.Section != nil {
			got = string(h.Section)
		}
		if !strings.HasPrefix(got, want) || !submission && got != want {
			t.Fatalf("%q became %q, want %q", content, got, want)
		}
		again, refusal := rules.Read([]byte(got+string(rest)), &in)
		if refusal != nil || again.Section != nil || again.Labels != [labels]string{} {
			t.Fatalf("%q became %q, which became %q, %v", content, got, again.Section, refusal)
		}
	})
}

func BenchmarkHeadRules(b *testing.B) {
	content := []byte("Date: Mon, 02 Jan 2026 03:04:05 +0000\r\nFrom: Somebody <somebody@example.com>\r\nTo: somebody.else@example.net\r\n" +
		"Subject: What you asked for\r\nMessage-ID: <0123456789ABC@mta.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nbody\r\n")
	for name, prefix := range map[string]string{"complete": "", "labeled": "X-Tenant: acme\r\nX-Key: order 77\r\n"} {
		content := append([]byte(prefix), content...)
		rules := labeling()
		rules.Submission = true
		in := Injection{ID: testID, Now: arrived, From: "s@sender.example", Trusted: true}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, refusal := rules.Read(content, &in); refusal != nil {
					b.Fatal(refusal)
				}
			}
		})
	}
}
