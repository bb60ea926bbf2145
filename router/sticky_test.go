package router

import (
	"fmt"
	"testing"
	"time"

	"mailrace/proto/message"
)

// greylist has a host put off each recipient whenever it comes from a source that it did not come from before. What it sees is noted.
func greylist(h *host) (seen map[string][]string) {
	seen = map[string][]string{}
	known := map[string]bool{}
	h.reply = func(t *Transaction, i int) Outcome {
		address, from := t.Message.Recipients[t.Recipients[i]].Address, t.link.Target().Source
		seen[address] = append(seen[address], from)
		if known[from+" "+address] {
			return delivered
		}
		known[from+" "+address] = true
		return later
	}
	return seen
}

// TestRetriesKeepTheirSource: mail that is deferred comes back from the source that it came from, as hosts want that greylist by address; the shares are
// exact all the same. So it is for what waits in memory, and for what waits on the disk, and comes back by another process.
func TestRetriesKeepTheirSource(t *testing.T) {
	const n = 1000
	for name, parks := range map[string]bool{"in memory": false, "on the disk": true} {
		t.Run(name, func(t *testing.T) {
			pools := pooling("a b c", map[string]string{"p": "a:5 b:3 c:2"}, func(o *Options) { o.RetryMin, o.RetryMax, o.Park = 5*time.Minute, time.Hour, parks })
			s := newSim(t, 2, 7, pools)
			s.mx("one.test", "10 mx.one.test 192.0.2.1")
			seen := greylist(s.host("192.0.2.1"))
			for i := range n {
				s.send(0, fmt.Sprintf("u%d@one.test", i))
			}
			s.finish(n)
			shares := map[string]int{}
			for address, from := range seen {
				if len(from) != 2 || from[0] != from[1] {
					t.Errorf("%s from %q", address, from)
				}
				shares[from[0]]++
			}
			if shares["a"] != n*5/10 || shares["b"] != n*3/10 || shares["c"] != n*2/10 {
				t.Errorf("shares %v", shares)
			}
		})
	}
}

// TestRetriesLeaveASourceThatIsOut: what came from a source that is out of service goes from another one, and stays there.
func TestRetriesLeaveASourceThatIsOut(t *testing.T) {
	const n = 60
	s := pooled(t, 1, "a b c", map[string]string{"p": "a:1 b:1 c:1"}, func(o *Options) { o.RetryMin, o.RetryMax, o.SourceRetry = 5*time.Minute, 10*time.Minute, 24*time.Hour })
	s.mx("one.test", "10 mx.one.test 192.0.2.1")
	seen := greylist(s.host("192.0.2.1"))
	for i := range n {
		s.send(0, fmt.Sprintf("u%d@one.test", i))
	}
	s.run(time.Minute)
	s.router.schedulers[0].takeOut(s.router.sources.all[0], true, "test")
	s.finish(n)
	moved, shares := 0, map[string]int{}
	for address, from := range seen {
		switch {
		case from[0] == "a" && len(from) == 3 && from[1] != "a" && from[2] == from[1]:
			moved++
		case from[0] != "a" && len(from) == 2 && from[1] == from[0]:
		default:
			t.Errorf("%s from %q", address, from)
		}
		shares[from[len(from)-1]]++
	}
	if moved != n/3 || shares["b"] != n/2 || shares["c"] != n/2 {
		t.Errorf("%d moved, shares %v", moved, shares)
	}
}

// TestDueTimesNameSources: the mark of a source is far below what anybody waits for, never earlier, and no tag of a site.
func TestDueTimesNameSources(t *testing.T) {
	s := pooled(t, 1, "a b c", map[string]string{"p": "a:1 b:1"}, nil)
	p := s.router.sources.pools["p"]
	for i, src := range s.router.sources.all {
		for _, due := range []int64{1, 1 << 24, start.UnixNano(), start.UnixNano() + 12345} {
			at := src.sign(due)
			if at < due || at-due > int64(time.Millisecond) {
				t.Errorf("%d is signed as %d", due, at)
			}
			m := s.message("u@one.test")
			m.Recipients[0].Attempts, m.Recipients[0].Due, m.Recipients[0].State = 1, at, message.Deferred
			if got := p.signer(&m.Recipients[0]); i < 2 && got != src || i == 2 && got != nil {
				t.Errorf("%s signed, and %s is read", src.Name, got.title())
			}
			if tag := Tag(s.router.Leave(m)); tag != 0 {
				t.Errorf("tag %d of a message that is deferred", tag)
			}
		}
	}
	marks := map[int64]bool{}
	for range 1000 { // of one name: all but the first move on
		taken := make([]*source, 0, 1000)
		for mark := range marks {
			taken = append(taken, &source{mark: mark})
		}
		if mark := markOf("a", taken); mark < 1 || mark > signMask || marks[mark] {
			t.Fatalf("mark %d", mark)
		} else {
			marks[mark] = true
		}
	}
	if none := (*source)(nil); none.sign(12345) != 12345 {
		t.Error("mail without a source has a mark")
	}
}
