package engine

import (
	"net/netip"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/router/mx"
)

// TestOwnSources: an MX host with the EHLO name of a source, or, where a listener is at the port of MX hosts, with its address, is ourselves.
func TestOwnSources(t *testing.T) {
	t.Parallel()
	for _, listens := range []bool{true, false} {
		c := settings(t)
		c.Egress.Allow = loopback
		c.Sources = []config.Source{{Name: "hop", IPv4: netip.MustParseAddr("127.0.0.77"), Hello: "out.test.example", Proxy: "127.0.0.1:9"}}
		if c.Egress.Port = 2525; listens {
			c.Listeners[0].Address = "127.0.0.1:2525" // nobody listens: the configuration is asked
		}
		c.DNS.Servers = []netip.AddrPort{nameServer(t,
			"named.example. 300 IN MX 10 out.test.example.", "out.test.example. 300 IN A 127.0.0.5",
			"far.example. 300 IN MX 10 mx.far.example.", "mx.far.example. 300 IN A 127.0.0.77",
		)}
		r, err := newResolver(c, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		for domain, own := range map[string]bool{"named.example": true, "far.example": listens} {
			a, err := r.Find(t.Context(), mx.Query{Kind: mx.Exchangers, Name: domain})
			if err != nil {
				t.Fatal(err)
			}
			if loops := a.Class == mx.Permanent && a.Enhanced == "5.4.6"; loops != own {
				t.Errorf("listens %v: %s is %+v", listens, domain, a)
			}
		}
	}
}
