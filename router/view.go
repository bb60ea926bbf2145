package router

import (
	"cmp"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
	"mailrace/router/pool"
)

// SiteView is a site at one moment, in full, for people to read.
type SiteView struct {
	SiteStatus
	Known       bool      // false: it has neither mail nor connections, and no failure of it is remembered. Then only Site, Route, Limit and OnDisk say something
	Limit       int       // most connections
	Opening     int       // of Connections
	Shared      int       // connections of all sites that have the same hosts or provider, of which those of this one are a part
	SharedLimit int       // most of these; 0 = as Limit
	OnDisk      int64     // recipients that have no room in memory, or wait until a site that failed is back; an estimate
	Pause       time.Time // no further connections before then, since one was refused while others worked; zero = there may be
	Addresses   []pool.Status

	Pool    string         // of sources; "" = none. With one the figures are of the sites of all its sources, and Backoff is set if none of them may be tried
	Sources []SourceStatus // of the pool, in its order
}

// View describes the site that route leads to by answer, which is of Class OK, for mail without labels for a domain in normal form, and calls done with
// it on the loop that owns the site, soon, or never when that loop has ended. Any goroutine.
func (r *Router) View(route *Route, answer *mx.Answer, domain string, done func(SiteView)) {
	s := r.owner(route, answer)
	s.env.Post(func() {
		k := r.keyOf(route, answer)
		if r.sources != nil {
			if p := s.poolOf(route, &message.Message{}, domain, r.policies.at(answer)); p != nil {
				done(s.viewPool(route, answer, k, p))
				return
			}
		}
		done(s.view(route, answer, k))
	})
}

// viewPool is view for the sites of all sources of a pool.
func (s *Scheduler) viewPool(route *Route, answer *mx.Answer, k siteKey, p *sourcePool) (all SiteView) {
	all.Site, all.Provider, all.Route, all.Pool = k.name(), s.router.providers.name(k.rule), route.Name, p.name
	all.Limit, all.SharedLimit = s.limits(route, k.rule)
	may, now := false, s.now()
	for _, m := range p.members {
		k.source = m.source
		v, st := s.view(route, answer, k), m.status()
		families := s.families(m.source)
		for _, h := range answer.Hosts {
			st.Reach = st.Reach || families.Reach(h.Addrs)
		}
		st.Weight, st.Known, st.Status = int(m.weight), v.Known, v.SiteStatus
		all.Sources = append(all.Sources, st)
		all.OnDisk += v.OnDisk
		if !v.Known {
			may = may || st.Reach && !st.Until.After(time.Unix(0, now))
			continue
		}
		all.Known, all.Opening, all.Limit, all.SharedLimit = true, all.Opening+v.Opening, v.Limit, v.SharedLimit
		all.Shared += v.Shared
		all.Queued, all.InFlight, all.Connections, all.Idle = all.Queued+v.Queued, all.InFlight+v.InFlight, all.Connections+v.Connections, all.Idle+v.Idle
		all.Failures, all.LastError = max(all.Failures, v.Failures), cmp.Or(all.LastError, v.LastError)
		all.Addresses = append(all.Addresses, v.Addresses...)
		until := latest(v.Backoff, st.Until)
		if may = may || until.IsZero() || !until.After(time.Unix(0, now)); all.Backoff.IsZero() || until.Before(all.Backoff) {
			all.Backoff = until
		}
	}
	if may {
		all.Backoff = time.Time{}
	}
	return all
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// SiteName is what the site is called that route leads to by answer, which is of Class OK.
func SiteName(route *Route, answer *mx.Answer) string {
	k := siteKey{key: answer.Key, port: route.Port}
	return k.name()
}

func (s *Scheduler) view(route *Route, answer *mx.Answer, k siteKey) (v SiteView) {
	now := s.now()
	site := s.sites[k]
	if v.Known = site != nil; v.Known {
		v.SiteStatus, v.Limit, v.Opening, v.Addresses = site.status(), site.limit, site.opening, site.hosts.Status(now)
		v.Shared, v.SharedLimit = len(site.party.links), site.party.limit
		if pause := max(site.pause, site.party.pause); pause > now {
			v.Pause = time.Unix(0, pause)
		}
	} else {
		v.Site, v.Provider, v.Route = k.name(), s.router.providers.name(k.rule), route.Name
		v.Limit, v.SharedLimit = s.limits(route, k.rule)
	}
	if b := s.router.room.backlog(k.tag(answer.Hash)); b != nil {
		v.OnDisk = b.waiting()
	}
	return v
}

// waiting is how many recipients are on the disk.
func (b *backlog) waiting() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, away := range b.away {
		n += away
	}
	return n
}
