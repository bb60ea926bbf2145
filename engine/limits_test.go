package engine

import (
	"fmt"
	"slices"
	"testing"
)

// TestLimitsOfThePeer: what a host says in LIMITS is kept to, and nobody is deferred because of it. RFC 9422
func TestLimitsOfThePeer(t *testing.T) {
	for limits, c := range map[string]struct{ recipients, messages, domains int }{
		"RCPTMAX=2":                     {2, 100, 100},
		"MAILMAX=1":                     {100, 1, 100},
		"RCPTDOMAINMAX=1":               {100, 100, 1},
		"RCPTMAX=2 MAILMAX=2 X RCPTMAX": {2, 2, 100},
	} {
		t.Run(limits, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(manners{extensions: append(slices.Clone(everything), "LIMITS "+limits)}) })
			r := start(t, settings(t, f.route("*")))
			want := map[string]bool{}
			for i := range 4 {
				var to []string
				for k := range 5 {
					to = append(to, fmt.Sprintf("%d.%d@%c.example", i, k, 'a'+k%2))
					want[to[k]] = true
				}
				r.send("s@sender.example", hello, to...)
			}
			messages, domains := map[int]int{}, map[int]map[byte]bool{}
			for len(want) > 0 {
				l := f.next()
				if domains[l.peer] == nil {
					domains[l.peer] = map[byte]bool{}
				}
				messages[l.peer]++
				for _, to := range l.to {
					delete(want, to)
					domains[l.peer][to[len("0.0@")]] = true
				}
				if len(l.to) > c.recipients || messages[l.peer] > c.messages || len(domains[l.peer]) > c.domains {
					t.Errorf("%d recipients, %d transactions, %d domains by connection %d", len(l.to), messages[l.peer], len(domains[l.peer]), l.peer)
				}
			}
			r.awaitEmpty()
			f.none()
			if d := r.records("deferral"); len(d) > 0 {
				t.Errorf("%+v", d)
			}
		})
	}
}
