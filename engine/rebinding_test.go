package engine

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"mailrace/engine/config"
)

// TestD16DialsWhatPassed: connections go to the addresses that passed the filter, whatever DNS says to those who ask again.
func TestD16DialsWhatPassed(t *testing.T) {
	t.Parallel()
	good := listenAt(t, "127.0.0.5:0", polite)
	_, port, err := net.SplitHostPort(good.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	inside := listenAt(t, "127.0.0.6:"+port, polite)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		line := ""
		switch name := strings.ToLower(q.Question[0].Name); {
		case q.Question[0].Qtype == dns.TypeMX:
			line = name + " 0 MX 10 mx.re.example."
		case q.Question[0].Qtype == dns.TypeA && asked.Add(1) == 1:
			line = name + " 0 A 127.0.0.5"
		case q.Question[0].Qtype == dns.TypeA:
			line = name + " 0 A 127.0.0.6"
		}
		if rr, _ := dns.NewRR(line); rr != nil {
			m.Answer = append(m.Answer, rr)
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	c.Egress.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.5/32")}
	if _, err := fmt.Sscan(port, &c.Egress.Port); err != nil {
		t.Fatal(err)
	}
	c.DNS.Servers = []netip.AddrPort{conn.LocalAddr().(*net.UDPAddr).AddrPort()}
	r := start(t, c)
	for i := range 3 {
		r.send("s@sender.example", hello, fmt.Sprintf("a%d@re.example", i))
		good.next()
	}
	r.awaitEmpty()
	if n := inside.connections(); n != 0 {
		t.Errorf("%d connections to the address that may not be reached", n)
	}
}
