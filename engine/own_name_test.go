package engine

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"mailrace/engine/config"
)

// TestOwnNameD9: a host that greets with our own name is ourselves. Mail that nobody else could take bounces, and mail for which others are
// preferred waits for them; names that are only like ours mean nothing, nor does ours at a port that the operator named.
func TestOwnNameD9(t *testing.T) {
	t.Parallel()
	saying := func(at, greeting, hello string) func(*peer) {
		return answering(func(_ *peer, line string) string {
			switch {
			case line == "" && greeting != "":
				return greeting
			case strings.HasPrefix(line, "EHLO") && hello != "":
				return hello
			case strings.HasPrefix(line, "MAIL") && strings.HasPrefix(at, "own"):
				t.Errorf("%s: %s", at, line)
			}
			return ""
		})
	}
	banner := listenAt(t, "127.0.0.2:0", saying("own banner", "220 MTA.test.example. ESMTP", ""))
	_, port, err := net.SplitHostPort(banner.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	listenAt(t, "127.0.0.3:"+port, saying("own EHLO", "", "250-mta.test.example at your service\r\n250 PIPELINING"))
	like := listenAt(t, "127.0.0.4:"+port, saying("like", "220 mta.test.example.net ESMTP", "250 smtp.mta.test.example"))
	home, filter := listen(t, polite), listen(t, saying("filter", "220 mta.test.example ESMTP", ""))
	c := settings(t, home.route("sender.example"), filter.route("filtered.example"), config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	c.Egress.Allow = loopback
	if _, err := fmt.Sscan(port, &c.Egress.Port); err != nil {
		t.Fatal(err)
	}
	c.DNS.Servers = []netip.AddrPort{nameServer(t,
		"banner.example. 300 IN MX 10 banner.far.example.", "hello.example. 300 IN MX 10 hello.far.example.", "like.example. 300 IN MX 10 like.far.example.",
		"backup.example. 300 IN MX 10 down.far.example.", "backup.example. 300 IN MX 20 banner.far.example.",
		"banner.far.example. 300 IN A 127.0.0.2", "hello.far.example. 300 IN A 127.0.0.3", "like.far.example. 300 IN A 127.0.0.4", "down.far.example. 300 IN A 127.0.0.5",
	)}
	r := start(t, c)
	for _, rcpt := range []string{"a@banner.example", "b@hello.example"} {
		r.send("s@sender.example", hello, rcpt)
		d := parseReport(t, home.next())
		if got := d.recipients[0]; got.Get("Final-Recipient") != "rfc822; "+rcpt || got.Get("Status") != "5.4.6" || !strings.Contains(d.human, "goes round in a circle") {
			t.Errorf("%v in %s", got, d.human)
		}
	}
	r.send("s@sender.example", hello, "c@like.example", "d@filtered.example", "e@backup.example")
	like.next()
	filter.next()
	r.await("a deferral for the name", func() bool {
		for _, e := range r.records("deferral") {
			if e.Recipient == "e@backup.example" && strings.Contains(e.Text, "greets with the name of this host") {
				return true
			}
		}
		return false
	})
	if n := len(r.records("bounce")); n != 2 {
		t.Errorf("%d bounces", n)
	}
	home.none()
}
