package router

import (
	"time"

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
	OnDisk      int64     // recipients that have no room in memory; an estimate
	Pause       time.Time // no further connections before then, since one was refused while others worked; zero = there may be
	Addresses   []pool.Status
}

// View describes the site that route leads to by answer, which is of Class OK, and calls done with it on the loop that owns the site, soon, or never
// when that loop has ended. Any goroutine.
func (r *Router) View(route *Route, answer *mx.Answer, done func(SiteView)) {
	s := r.owner(route, answer)
	s.env.Post(func() { done(s.view(route, answer)) })
}

// SiteName is what the site is called that route leads to by answer, which is of Class OK.
func SiteName(route *Route, answer *mx.Answer) string {
	k := siteKey{key: answer.Key, port: route.Port}
	return k.name()
}

func (s *Scheduler) view(route *Route, answer *mx.Answer) (v SiteView) {
	k, now := s.router.keyOf(route, answer), s.now()
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
