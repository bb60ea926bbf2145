package ingress

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
)

// generous makes a door that holds messages for an hour, and takes priorities up to 5 from those who may relay.
func generous(d *Door, _ *shelf) {
	d.Terms = Terms{HoldMax: time.Hour, PriorityMax: 5}
	d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MinDeliverBy: 60}
	d.Pace.Messages = 30
}

// wishful hands a message in and returns what came of its wishes.
func wishful(r *rig, c *client, params string) (reply string, m arrival) {
	r.t.Helper()
	reply = c.say("MAIL FROM:<s@sender.example>"+params, 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.say("Subject: x\r\n.", 250)
	return reply, receive(r.t, r.accepted)
}

// TestWishes takes what is asked for the delivery into the message, counted from its arrival.
func TestWishes(t *testing.T) {
	t.Parallel()
	r := open(t, generous)
	c := r.greet()
	for _, w := range []struct {
		params, reply string
		release       time.Duration // after arrival
		deadline      time.Duration
		want          message.Wishes // the rest
	}{
		{" HOLDFOR=3600", "250 2.1.0 ", time.Hour, 0, message.Wishes{}},
		{" BY=60;R", "250 2.1.0 ", 0, time.Minute, message.Wishes{ByMode: message.ByReturn}},
		{" BY=0;NT", "250 2.1.0 ", 0, 0, message.Wishes{ByMode: message.ByNotify, ByTrace: true}},
		{" BY=-999999999;N", "250 2.1.0 ", 0, -999999999 * time.Second, message.Wishes{ByMode: message.ByNotify}},
		{" MT-PRIORITY=5", "250 2.1.0 ", 0, 0, message.Wishes{Priority: 5}},
		{" MT-PRIORITY=-9", "250 2.1.0 ", 0, 0, message.Wishes{Priority: -9}},
		{" MT-PRIORITY=6", "250 2.3.6 5 ", 0, 0, message.Wishes{Priority: 5}},
		{" HOLDFOR=60 BY=60;R MT-PRIORITY=1", "250 2.1.0 ", time.Minute, time.Minute, message.Wishes{ByMode: message.ByReturn, Priority: 1}},
	} {
		reply, m := wishful(r, c, w.params)
		if !strings.HasPrefix(reply, w.reply) || m.Wishes == nil {
			t.Errorf("%s: %q, %+v", w.params, reply, m.Wishes)
			continue
		}
		want := w.want
		if w.release != 0 {
			want.Release = m.Arrived + int64(w.release)
		}
		if want.ByMode != message.ByNone {
			want.Deadline = m.Arrived + int64(w.deadline)
		}
		if *m.Wishes != want {
			t.Errorf("%s: %+v, want %+v", w.params, *m.Wishes, want)
		}
		clause := ""
		if want.Priority != 0 {
			clause = "\r\n\tfor <a@far.example>\r\n\tpriority " + strconv.Itoa(int(want.Priority)) + "; "
		}
		if !strings.Contains(string(m.Trace), clause) || clause == "" && strings.Contains(string(m.Trace), "priority") {
			t.Errorf("%s: %q", w.params, m.Trace)
		}
	}
	until := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	if _, m := wishful(r, c, " HOLDUNTIL="+until.Format(time.RFC3339)); m.Wishes == nil || m.Wishes.Release != until.UnixNano() {
		t.Errorf("until %s: %+v", until, m.Wishes)
	}
	for _, nothing := range []string{"", " MT-PRIORITY=0", " HOLDUNTIL=2020-01-01T00:00:00Z", " HOLDUNTIL=0001-01-01T00:00:00Z"} {
		if _, m := wishful(r, c, nothing); m.Wishes != nil || m.Flags != 0 {
			t.Errorf("%q: %+v, flags %b", nothing, m.Wishes, m.Flags)
		}
	}
	c.Close()
	r.awaitQuiet()
}

// TestWishesRefused refuses what cannot be granted, and nothing of it stays for the next transaction.
func TestWishesRefused(t *testing.T) {
	t.Parallel()
	r := open(t, generous)
	c := r.greet()
	for params, reply := range map[string]string{
		" HOLDFOR=3601":                    "501 5.5.4 ",
		" HOLDUNTIL=2200-01-01T00:00:00Z":  "501 5.5.4 ",
		" HOLDUNTIL=9999-12-31T23:59:59Z":  "501 5.5.4 ",
		" HOLDFOR=61 BY=60;R":              "501 5.5.4 ",
		" HOLDFOR=1 BY=0;N MT-PRIORITY=1":  "501 5.5.4 ",
		" BY=59;R":                         "555 5.5.4 ",
		" REQUIRETLS":                      "530 5.7.10 ",
		" AUTH=<>":                         "555 5.5.4 ",
		" HOLDFOR=1 HOLDUNTIL=2020-01-01T": "501 5.5.4 ",
	} {
		if got := c.say("MAIL FROM:<s@sender.example>"+params, 5); !strings.HasPrefix(got, reply) {
			t.Errorf("%s: %q, want %q", params, got, reply)
		}
		if _, m := wishful(r, c, ""); m.Wishes != nil || m.Flags != 0 {
			t.Errorf("behind %s: %+v, flags %b", params, m.Wishes, m.Flags)
		}
	}
	c.Close()
	r.awaitQuiet()
}

// TestOffer announces what the client may have: holding where mail is handed in, MAILMAX to those who are bound to it.
func TestOffer(t *testing.T) {
	t.Parallel()
	hold := regexp.MustCompile(`250-FUTURERELEASE 3600 (\S+)\r\n`)
	stranger := func(d *Door) { d.RelayFrom = nil }
	for name, c := range map[string]struct {
		change  func(d *Door)
		hold    bool
		mailMax bool
		refusal string // to HOLDFOR=1
	}{
		"may relay":              {func(*Door) {}, true, false, ""},
		"a stranger":             {stranger, false, true, "555 5.5.4 "},
		"a stranger at 587":      {func(d *Door) { stranger(d); d.Terms.Submission = true }, true, true, "550 5.7.1 "},
		"exempt":                 {func(d *Door) { stranger(d); d.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }, false, false, "555 5.5.4 "},
		"nothing is held":        {func(d *Door) { d.Terms.HoldMax = 0 }, false, false, "555 5.5.4 "},
		"any number of messages": {func(d *Door) { stranger(d); d.Pace.Messages = 0 }, false, false, "555 5.5.4 "},
	} {
		r := open(t, func(d *Door, s *shelf) {
			generous(d, s)
			c.change(d)
		})
		before := time.Now().Add(time.Hour).Truncate(time.Second)
		d := r.connect()
		d.expect(220)
		greeting := d.say("EHLO client.example", 250)
		found := hold.FindStringSubmatch(greeting)
		if (found != nil) != c.hold || strings.Contains(greeting, "FUTURERELEASE") != c.hold {
			t.Errorf("%s: %q", name, greeting)
		}
		if found != nil { // the loop's clock stands still for as long as a turn takes
			if at, err := time.Parse(time.RFC3339, found[1]); err != nil || at.Before(before.Add(-patience)) || at.After(time.Now().Add(time.Hour)) {
				t.Errorf("%s: until %q", name, found[1])
			}
		}
		if want := "250-LIMITS RCPTMAX=1000\r\n"; strings.Contains(greeting, "MAILMAX=30\r\n") != c.mailMax || !c.mailMax && !strings.Contains(greeting, want) {
			t.Errorf("%s: %q", name, greeting)
		}
		d.send("MAIL FROM:<s@sender.example> HOLDFOR=1\r\n")
		if got, err := d.reply(); err != nil || !strings.HasPrefix(got, c.refusal) || c.refusal == "" && !strings.HasPrefix(got, "250 ") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.refusal)
		}
		d.Close()
		r.awaitQuiet()
	}
}

// TestPriorityOfStrangers is lowered, as they ask, and never raised. RFC 6710 §4.1
func TestPriorityOfStrangers(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		generous(d, s)
		d.RelayFrom, d.RelayDomains = nil, NewDomains([]string{"far.example"})
	})
	c := r.greet()
	if reply, m := wishful(r, c, " MT-PRIORITY=3"); !strings.HasPrefix(reply, "250 2.3.6 0 ") || m.Wishes != nil {
		t.Errorf("%q, %+v", reply, m.Wishes)
	}
	if reply, m := wishful(r, c, " MT-PRIORITY=-3"); !strings.HasPrefix(reply, "250 2.1.0 ") || m.Wishes == nil || m.Wishes.Priority != -3 {
		t.Errorf("%q, %+v", reply, m.Wishes)
	}
	c.Close()
	r.awaitQuiet()
}

// TestHeldByXClient: who speaks for others cannot lend them what it is offered itself.
func TestHeldByXClient(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		spoken(d, s)
		d.Terms.HoldMax = time.Hour
	})
	c := r.greet()
	c.say("XCLIENT ADDR=2001:db8::9 HELO=other.example", 220)
	c.say("MAIL FROM:<s@sender.example> HOLDFOR=1", 555)
	c.say("XCLIENT ADDR=192.0.2.7 HELO=other.example", 220)
	c.say("MAIL FROM:<s@sender.example> HOLDFOR=1", 250)
	c.Close()
	r.awaitQuiet()
}

// TestBinaryHead refuses a header section that others could read otherwise, also where the content is binary.
func TestBinaryHead(t *testing.T) {
	t.Parallel()
	filler := strings.Repeat("X-Filler: "+strings.Repeat("x", 90)+"\r\n", 900) // more than a chunk
	r := open(t, nil)
	c := r.greet()
	for content, code := range map[string]int{
		"Subject: x\nFrom: evil@example.com\r\n\r\nx": 550,
		"Subject: x\rFrom: evil@example.com\r\n\r\nx": 550,
		"Subject: x\x00\r\n\r\nx":                     550,
		"Subject: x\n\nFrom: evil@example.com":        550,
		"Subject: x\nFrom: evil@example.com":          550,
		"Subject: x\r\n y\nFrom: z\r\n.\r\n\r\n":      550,
		"Subject: x\r":                                550,
		filler + "Subject: x\nFrom: evil@example.com\r\n\r\n" + strings.Repeat("x", 1<<20): 550,
		filler + "Subject: x\r\n\r\n" + strings.Repeat("x\n", 1<<20):                       250,
		"Subject: x\r\n\r\n\n\r\x00": 250,
		"Subject: x":                 250,
		"x\nFrom: a body":            250,
	} {
		c.say("MAIL FROM:<s@sender.example> BODY=BINARYMIME", 250)
		c.say("RCPT TO:<a@far.example>", 250)
		c.send("BDAT " + strconv.Itoa(len(content)) + " LAST\r\n" + content)
		if got, err := c.reply(); err != nil || !strings.HasPrefix(got, strconv.Itoa(code)) {
			t.Errorf("%.60q: %q, %v, want %d", content, got, err, code)
		}
		if code == 250 {
			receive(t, r.accepted)
		}
	}
	c.say("NOOP", 250)
	c.Close()
	r.awaitQuiet()
}

// TestBinaryContent is stored as it came: small, and so long that it streams; with octets that would be violations elsewhere.
func TestBinaryContent(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	c := r.greet()
	for _, content := range []string{"", "\x00", "Subject: x\r\n\r\na\rb\nc\x00\xff\r\n.\r\n", strings.Repeat("\n.\r\x00x", 100_000)} {
		c.say("MAIL FROM:<s@sender.example> BODY=BINARYMIME SIZE="+strconv.Itoa(len(content)), 250)
		c.say("RCPT TO:<a@far.example>", 250)
		c.say("DATA", 503)
		half := len(content) / 2
		c.send("BDAT " + strconv.Itoa(half) + "\r\n" + content[:half])
		c.expect(250)
		c.send("BDAT " + strconv.Itoa(len(content)-half) + " LAST\r\n" + content[half:])
		c.expect(250)
		m := receive(t, r.accepted)
		want := message.Binary
		if strings.Contains(content, "\xff") {
			want |= message.Body8Bit
		}
		if m.content != content || m.Size != int64(len(content)) || m.Flags != want {
			t.Errorf("%d octets, %d stored, flags %b, want %d and %b", m.Size, len(m.content), m.Flags, len(content), want)
		}
	}
	c.Close()
	r.awaitQuiet()
}
