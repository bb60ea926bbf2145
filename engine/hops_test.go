package engine

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailrace/engine/config"
)

// TestTwoHops: what a client asks for travels through two nodes to a host that offers everything: REQUIRETLS, binary content, deadline, priority and
// notifications, next to plain mail over the same connections.
func TestTwoHops(t *testing.T) {
	t.Parallel()
	pair := issue(t, t.TempDir(), "127.0.0.1")
	cfg, ca := certified(t, "127.0.0.1")
	offers := append(slices.Clone(everything), "CHUNKING", "BINARYMIME", "DELIVERBY", "MT-PRIORITY", "DSN")
	f := listen(t, func(p *peer) { p.receive(manners{extensions: offers, tls: cfg, secret: []string{"REQUIRETLS"}}) })

	node := func(next config.Route, ca string) *rig {
		c := settings(t, next)
		c.TLS.Certificates = []config.Certificate{pair}
		c.Listeners[0].StartTLS, c.Listeners[0].BinaryMIME = true, true
		c.Egress.CA = ca
		return start(t, c)
	}
	last := f.route("*")
	last.TLS = config.TLSRequired
	second := node(last, ca)
	next := config.Route{Domains: []string{"*"}, TLS: config.TLSVerified, To: config.Target{Kind: config.ToHost, Host: "127.0.0.1", Port: uint16(second.Addr(0).(*net.TCPAddr).Port)}}
	first := node(next, pair.Chain)

	d, _ := first.dialTLS(0, insecure("127.0.0.1"))
	want := map[string]string{} // what MAIL says at the end, by reverse-path
	for i := range 30 {
		from := fmt.Sprintf("s%d@sender.example", i)
		switch i % 3 {
		case 0:
			d.mail("MAIL FROM:<"+from+">", hello, "a@far.example")
			want[from] = `^MAIL FROM:<` + from + `> SIZE=\d+$`
		case 1:
			d.mail("MAIL FROM:<"+from+"> REQUIRETLS RET=FULL ENVID=e1 BY=7200;R MT-PRIORITY=3", hello, "a@far.example")
			want[from] = `^MAIL FROM:<` + from + `> SIZE=\d+ REQUIRETLS BY=7[12]\d\d;R MT-PRIORITY=3 RET=FULL ENVID=e1$`
		default:
			d.say("MAIL FROM:<"+from+"> BODY=BINARYMIME REQUIRETLS BY=7200;NT MT-PRIORITY=-3", 250)
			d.say("RCPT TO:<a@far.example> NOTIFY=NEVER", 250)
			d.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(binary), binary))
			d.expect(250)
			want[from] = `^MAIL FROM:<` + from + `> SIZE=\d+ BODY=BINARYMIME REQUIRETLS BY=7[12]\d\d;NT MT-PRIORITY=-3$`
		}
	}
	d.say("QUIT", 221)
	for range 30 {
		l := f.next()
		from, _, _ := strings.Cut(strings.TrimPrefix(l.mail, "MAIL FROM:<"), ">")
		content, expected := l.content, hello
		for range 2 { // a Received header of each node
			content = withoutTrace(t, content)
		}
		if strings.Contains(l.mail, "BODY=BINARYMIME") {
			expected = binary
		}
		if !l.tls || !regexp.MustCompile(want[from]).MatchString(l.mail) || content != expected {
			t.Errorf("%s under TLS %v, want %s\n%q", l.mail, l.tls, want[from], content)
		}
		delete(want, from)
	}
	first.awaitEmpty()
	second.awaitEmpty()
	f.none()
}
