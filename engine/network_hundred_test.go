package engine

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
)

var hundredSeed = flag.Uint64("hundred.seed", 1, "of TestHundredHosts: which messages go where")

// conduct is how the hosts of a domain behave, and what becomes of mail for it.
type conduct struct {
	play    script
	until   time.Duration // from then on they are polite; 0 = never
	manners manners
	records string // of the domain D, divided by "|", in place of an MX record of its host, mx.D
	backup  bool   // it has a second host, which is polite
	dead    bool   // nobody listens at the first one
	want    string // state and enhanced code
	odd     string // the same for local-parts that begin with "odd"; "" = the same
	doubts  bool   // mail may come in doubt
	taken   bool   // and was delivered each time
}

// conducts are those of TestHundredHosts.
func conducts(t *testing.T) map[string]conduct {
	good, _ := certified(t, "other.example")
	const hour = time.Hour
	return map[string]conduct{
		"good":                       {want: "delivery 2.0.0"},
		"offers nothing":             {manners: manners{extensions: []string{}}, want: "delivery 2.0.0"},
		"late":                       {play: script{"RCPT": late + "250 2.1.5 ok", ".": late}, want: "delivery 2.0.0"},
		"late greeting":              {play: script{"": late + "220 far.example"}, want: "delivery 2.0.0"},
		"banner 421, for a time":     {play: script{"": "421 4.3.2 busy"}, until: 20 * hour, want: "delivery 2.0.0"},
		"banner 554":                 {play: script{"": "554 5.7.1 go away"}, want: "expiry 4.3.0"},
		"banner of another protocol": {play: script{"": "* OK IMAP4rev1"}, want: "expiry 4.4.1"},
		"MAIL 450":                   {play: script{"MAIL": "450 4.2.0 later"}, want: "expiry 4.2.0"},
		"MAIL 450, for a time":       {play: script{"MAIL": "450 4.2.0 later"}, until: 30 * hour, want: "delivery 2.0.0"},
		"MAIL 421, for a time":       {play: script{"MAIL": "421 4.3.2 busy"}, until: 8 * hour, want: "delivery 2.0.0"},
		"RCPT 452, for a time":       {play: script{"RCPT": "452 4.2.2 full"}, until: 3 * hour, want: "delivery 2.0.0"},
		"RCPT 550":                   {play: script{"RCPT": "550 5.1.1 no such user"}, want: "bounce 5.1.1"},
		"RCPT 550, of some":          {play: script{"RCPT TO:<odd": "550 5.1.1 no such user"}, want: "delivery 2.0.0", odd: "bounce 5.1.1"},
		"RCPT 451, of some":          {play: script{"RCPT TO:<odd": "451 4.2.1 not now"}, want: "delivery 2.0.0", odd: "expiry 4.2.1"},
		"DATA 554":                   {play: script{"DATA": "554 5.7.1 no"}, want: "bounce 5.7.1"},
		"end 550":                    {play: script{".": "550 5.6.0 what is this"}, want: "bounce 5.6.0"},
		"end 451, for a time":        {play: script{".": "451 4.3.0 disk trouble"}, until: 10 * hour, want: "delivery 2.0.0"},
		"end 421, for a time":        {play: script{".": "421 4.3.2 busy"}, until: 6 * hour, want: "delivery 2.0.0"},
		"hangs up":                   {play: script{"": hangUp}, want: "expiry 4.4.1"},
		"hangs up at EHLO":           {play: script{"EHLO": hangUp}, until: 12 * hour, want: "delivery 2.0.0"},
		"hangs up at RCPT":           {play: script{"RCPT": hangUp}, until: 2 * hour, want: "delivery 2.0.0"},
		"hangs up at DATA":           {play: script{"DATA": hangUp}, want: "expiry 4.4.2"},
		"hangs up at the end":        {play: script{".": hangUp}, until: 4 * hour, want: "delivery 2.0.0", doubts: true},
		"takes and hangs up":         {play: script{".": takeAndHangUp}, until: hour, want: "delivery 2.0.0", doubts: true, taken: true},
		"hangs up, and has a backup": {play: script{".": hangUp}, backup: true, want: "delivery 2.0.0", doubts: true},
		"silent at EHLO, for a time": {play: script{"EHLO": silence}, until: 3 * hour, want: "delivery 2.0.0"},
		"silent at RCPT":             {play: script{"RCPT": silence}, want: "expiry 4.4.2"},
		"silent at the end":          {play: script{".": silence}, until: 2 * hour, want: "delivery 2.0.0", doubts: true},
		"TLS broken":                 {manners: manners{tls: unfriendly}, want: "delivery 2.0.0"},
		"TLS refused":                {play: script{"STAR": "454 4.7.0 not now"}, manners: manners{tls: good}, want: "delivery 2.0.0"},
		"TLS":                        {manners: manners{tls: good}, want: "delivery 2.0.0"},
		"dead":                       {dead: true, want: "expiry 4.4.1"},
		"dead, and has a backup":     {dead: true, backup: true, want: "delivery 2.0.0"},
		"silent, and has a backup":   {play: script{"": silence}, backup: true, want: "delivery 2.0.0"},
		"null MX":                    {records: "D. 300 IN MX 0 .", want: "bounce 5.1.10"},
		"no such domain":             {records: "nobody.example. 300 IN A 127.0.9.9", want: "bounce 5.1.2"},
		"name service in trouble":    {records: "SERVFAIL", want: "expiry 4.4.3"},
		"no MX":                      {records: "D. 300 IN CNAME mx.D.", want: "delivery 2.0.0"},
		"an MX without an address":   {records: "D. 300 IN MX 10 nowhere.D.", want: "bounce 5.4.4"},
	}
}

// TestHundredHosts: hosts of every sort at once, several hundred messages to them over days, and each recipient is accounted for exactly: it has its mail once, and
// once more only for each time that a connection was lost behind the end of data; or its sender has a notification with the right code.
func TestHundredHosts(t *testing.T) {
	t.Parallel()
	const rounds, messages = 3, 300
	n := newNetwork(t, false)
	n.cfg.Queue.Expire = 2 * 24 * time.Hour
	home := n.add("sender.example", "127.0.1.1", nil)
	kinds := conducts(t)
	var domains []string
	of := map[string]conduct{}
	for round := range rounds {
		for _, name := range slices.Sorted(maps.Keys(kinds)) {
			c := kinds[name]
			domain := fmt.Sprintf("%s-%d.example", strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(name)), round)
			domains, of[domain] = append(domains, domain), c
			n.settleDown(domain, c, len(domains))
		}
	}
	n.crowd = true
	n.serve()

	t.Logf("-hundred.seed %d", *hundredSeed)
	r := rand.New(rand.NewPCG(*hundredSeed, 0))
	sender := map[string]string{} // of each recipient
	for i := range messages {
		from := "s@sender.example"
		if r.IntN(8) == 0 {
			from = ""
		}
		var to []string
		for range 1 + r.IntN(5) {
			local := []string{"odd", "even"}[r.IntN(2)]
			rcpt := fmt.Sprintf("%s%d@%s", local, len(sender), domains[r.IntN(len(domains))])
			to, sender[rcpt] = append(to, rcpt), from
		}
		n.inject(func(*message.Message) {}, from, hello, to...)
		if i == messages/2 || i == 3*messages/4 {
			n.pass(time.Duration(r.IntN(20))*time.Hour, nil)
		}
	}
	n.pass(3*24*time.Hour, nil)
	n.awaitEmpty()
	n.account(sender, of, home)
}

// settleDown gives a domain its hosts.
func (n *network) settleDown(domain string, c conduct, number int) {
	n.t.Helper()
	if c.play == nil {
		c.play = script{}
	}
	at := func(host int) string { return fmt.Sprintf("127.0.%d.%d", 2+host, 1+number) }
	first := n.addWith("mx."+domain, at(0), c.manners, c.play)
	if first.until = c.until; c.dead {
		first.close()
	}
	if c.backup {
		n.add("mx2."+domain, at(1), nil)
		n.zone.add(n.t, domain+". 300 IN MX 20 mx2."+domain+".")
	}
	switch c.records {
	case "":
		n.zone.add(n.t, domain+". 300 IN MX 10 mx."+domain+".")
	case "SERVFAIL":
		n.zone.fail(domain + ".")
	default:
		for line := range strings.SplitSeq(c.records, "|") {
			n.zone.add(n.t, strings.ReplaceAll(line, "D.", domain+"."))
		}
	}
}

// account compares what became of each recipient, by the event log, by the hosts and by the notifications, with how the hosts of its domain behave.
func (n *network) account(sender map[string]string, of map[string]conduct, home *host) {
	n.t.Helper()
	ends, doubts, copies, told := map[string][]string{}, map[string]int{}, map[string]int{}, map[string][]string{}
	for _, e := range n.records("delivery", "bounce", "expiry", "in-doubt") {
		if e.Type == "in-doubt" {
			doubts[e.Recipient]++
		} else {
			ends[e.Recipient] = append(ends[e.Recipient], e.Type+" "+e.Enhanced)
		}
	}
	for _, h := range n.hosts {
		for h != home && len(h.mail) > 0 {
			for _, rcpt := range h.next().to {
				copies[rcpt]++
			}
		}
	}
	for len(home.mail) > 0 {
		for rcpt, group := range parseReportFields(n.t, home.next()) {
			told[rcpt] = append(told[rcpt], group)
		}
	}
	if len(doubts) == 0 {
		n.t.Error("nothing came in doubt")
	}
	failed := 0
	for rcpt, from := range sender {
		_, domain, _ := strings.Cut(rcpt, "@")
		c := of[domain]
		want := c.want
		if c.odd != "" && strings.HasPrefix(rcpt, "odd") {
			want = c.odd
		}
		state, code, _ := strings.Cut(want, " ")
		wantCopies, wantTold := 0, "[]"
		if state == "delivery" {
			wantCopies = 1
		} else if from != "" {
			wantTold = "[failed " + code + "]"
		} else {
			failed++
		}
		if c.taken {
			wantCopies += doubts[rcpt]
		}
		if got := ends[rcpt]; len(got) != 1 || got[0] != want {
			n.t.Errorf("%s: %q, want %s", rcpt, got, want)
		}
		if got := copies[rcpt]; got != wantCopies || !c.doubts && doubts[rcpt] > 0 {
			n.t.Errorf("%s: %d copies, %d times in doubt, want %d", rcpt, got, doubts[rcpt], wantCopies)
		}
		if got := fmt.Sprint(told[rcpt]); got != wantTold {
			n.t.Errorf("%s: its sender was told %s, want %s", rcpt, got, wantTold)
		}
		delete(ends, rcpt)
		delete(copies, rcpt)
		delete(told, rcpt)
	}
	delete(ends, "s@sender.example")
	if len(ends)+len(copies)+len(told) > 0 {
		n.t.Errorf("of nobody: %v, %v, %v", ends, copies, told)
	}
	if got := n.stats.doubleBounces.Get(); got != uint64(failed) {
		n.t.Errorf("%d double bounces, want %d", got, failed)
	}
}

// parseReportFields are action and status of each recipient of a report.
func parseReportFields(t *testing.T, l letter) map[string]string {
	t.Helper()
	said := map[string]string{}
	d := parseReport(t, l)
	for rcpt, group := range d.fieldsOf() {
		said[rcpt] = group.Get("Action") + " " + group.Get("Status")
	}
	return said
}
