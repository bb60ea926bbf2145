package engine

import (
	"fmt"
	"testing"
	"time"

	"mailrace/engine/config"
)

// standing is how many connections the host has.
func (h *host) standing() (count int) {
	h.far.mu.Lock()
	defer h.far.mu.Unlock()
	for _, p := range h.peers {
		if p.stands() {
			count++
		}
	}
	return count
}

// TestProviderLimit: hosts of one provider have no more connections together than it allows, whosesoever mail they are for, and each domain has its turn.
func TestProviderLimit(t *testing.T) {
	const each = 30 // more than a connection brings to one domain while another one waits
	for name, c := range map[string]struct {
		providers  []config.Provider
		most       int // connections to both hosts
		sharedNote string
	}{
		"no provider": {nil, 4, ""}, // a site begins with two, and gets no more as long as nothing is delivered faster than it comes
		"one":         {[]config.Provider{{Name: "big", MX: []string{"*.big.example"}, Connections: 1}}, 1, "big"},
		"two":         {[]config.Provider{{Name: "big", MX: []string{"*.big.example"}, Connections: 2}}, 2, "big"},
		"by address":  {[]config.Provider{{Name: "big", Addresses: loopback, Connections: 2}}, 2, "big"},
		"of one only": {[]config.Provider{{Name: "big", MX: []string{"mx1.big.example"}, Connections: 1}}, 3, "big"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, false)
			n.cfg.Providers, n.cfg.Egress.Connections = c.providers, 2
			var hosts []*host
			for i := range 2 {
				hosts = append(hosts, n.add(fmt.Sprintf("mx%d.big.example", i+1), fmt.Sprintf("127.0.1.%d", i+1), script{"MAIL": late + "250 2.1.0 ok"}))
				n.zone.add(t, fmt.Sprintf("far%d.example. 300 IN MX 10 mx%[1]d.big.example.", i+1))
			}
			n.crowd = true
			n.serve()
			for range each {
				n.submit(nil, "a@far1.example")
				n.submit(nil, "a@far2.example")
			}
			most, first := 0, [2]int{}
			if !n.pass(24*time.Hour, func() bool {
				most = max(most, hosts[0].standing()+hosts[1].standing())
				got := [2]int{len(hosts[0].mail), len(hosts[1].mail)}
				if first == [2]int{} && got[0]+got[1] >= each {
					first = got
				}
				return got == [2]int{each, each}
			}) {
				t.Errorf("%d and %d messages", len(hosts[0].mail), len(hosts[1].mail))
			}
			if most != c.most {
				t.Errorf("%d connections at most, want %d", most, c.most)
			}
			if c.sharedNote != "" && min(first[0], first[1]) == 0 {
				t.Errorf("the first half went to %v", first)
			}
			n.awaitEmpty()
		})
	}
}
