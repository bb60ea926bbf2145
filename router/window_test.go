package router

import (
	"fmt"
	"testing"
	"time"
)

// TestWindowShare: a short queue goes over all connections of its site, although one could take it whole; a long one fills all windows; and where there
// is one connection only, it takes all.
func TestWindowShare(t *testing.T) {
	for _, c := range []struct{ links, messages, least, most int }{{3, 9, 2, 5}, {3, 300, 90, 110}, {1, 9, 9, 9}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			s := newSim(t, 1, 1, func(o *Options) { o.SiteConnections, o.QueueDepth, o.IdleTimeout = c.links, 1, time.Hour })
			s.mx("d.test", "10 mx 192.0.2.1")
			h := s.host("192.0.2.1")
			sent := 0
			send := func(n int, wait time.Duration) {
				for range n {
					s.send(0, fmt.Sprintf("%d@d.test", sent))
					sent++
				}
				s.run(s.now.Sub(start) + wait)
			}
			send(100, time.Minute) // all connections stand
			h.window, h.sessions = 100, map[*conn][]string{}
			send(c.messages, time.Minute)
			if len(h.sessions) != c.links {
				t.Errorf("%d connections took something", len(h.sessions))
			}
			for _, took := range h.sessions {
				if len(took) < c.least || len(took) > c.most {
					t.Errorf("one took %d", len(took))
				}
			}
			h.sessions = nil
			s.finish(sent)
		})
	}
}
