package engine

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"mailrace/engine/admin"
)

// away is a peer that refuses every session until up is set.
func away(up *atomic.Bool) func(*peer) {
	return func(p *peer) {
		if !up.Load() {
			p.say("421 4.3.2 down")
			return
		}
		polite(p)
	}
}

// TestShelf: hundreds of messages for a site that is down are not read and written with each of its probes, but delivered when it is back, also by a
// node that was started since.
func TestShelf(t *testing.T) {
	t.Parallel()
	const many = 400
	for name, restart := range map[string]bool{"running": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var up atomic.Bool
			f := listen(t, away(&up))
			r := start(t, settings(t, f.route("*")))
			r.submitTo("far.example", 0, many)
			r.await("all to wait", func() bool { return r.router.Totals().Deferred >= many-16 })
			first := f.connections()
			r.await("probes", func() bool { return f.connections() >= first+20 })
			read, probes := r.pager.paged.Get(), f.connections()
			r.await("further probes", func() bool { return f.connections() >= probes+50 })
			read, probes = r.pager.paged.Get()-read, f.connections()-probes
			if most := uint64(probes+4) * 3 * 8; read > most {
				t.Errorf("%d messages were read for %d probes", read, probes)
			}
			r.await("all to be noted", func() bool {
				return !slices.ContainsFunc(r.queue(), func(m admin.Message) bool {
					return m.Recipients[0].State != "deferred" || m.Recipients[0].Reply != "421 4.3.2 down"
				})
			})
			if restart {
				r.stop()
				up.Store(true)
				r = start(t, r.cfg)
			}
			up.Store(true)
			seen := map[string]bool{}
			for range many {
				seen[f.next().to[0]] = true
			}
			if len(seen) != many {
				t.Errorf("%d recipients were served", len(seen))
			}
			r.awaitEmpty()
			f.none()
		})
	}
}

// TestShelfExpires: what waits for a site that never comes back is returned, each message by itself.
func TestShelfExpires(t *testing.T) {
	t.Parallel()
	const many = 60
	var up atomic.Bool
	f, home := listen(t, away(&up)), listen(t, polite)
	c := settings(t, f.route("*"), home.route("sender.example"))
	c.Queue.Expire = 1500 * time.Millisecond
	r := start(t, c)
	for range many {
		r.send("s@sender.example", hello, "u@far.example")
	}
	for range many {
		d := parseReport(t, home.next())
		if group := d.fieldsOf()["u@far.example"]; group.Get("Action") != "failed" || group.Get("Status") != "4.3.2" && group.Get("Status") != "5.4.7" {
			t.Errorf("%v", group)
		}
	}
	r.awaitEmpty()
	ended := r.records("expiry")
	if len(ended) != many {
		t.Errorf("%d expired", len(ended))
	}
}
