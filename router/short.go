package router

import "time"

// shortStep is how long a loop that ran out of connections keeps to those that it has before it tries for more.
const shortStep = 200 * time.Millisecond

// shortage is the outcome of mail whose time ends while there is no connection for it.
var shortage = Outcome{Class: Deferred, Enhanced: "4.4.5", Text: "this host has no room for another connection"}

// Short says that this process has no room for the connection, such as no file descriptor: the link was not dialled, which is nobody's fault. It
// must not be used afterwards. Its mail waits, without an attempt, until another connection is closed, and the one that is idle longest is
// closed for it, if need be one of another loop. The loop keeps to the connections that it has for a while: what else is open, as those that come in, may leave no room for more.
func (l *Link) Short() {
	site, s := l.site, l.site.owner
	l.unlink()
	s.stats.short.Add(1)
	if site.lastError.Class == 0 {
		site.lastError = shortage
	}
	s.most, s.raise = s.links, s.now()+int64(shortStep)
	s.alarm(s.raise)
	if s.idle.first == nil {
		for _, other := range s.router.schedulers {
			if other != s && other.stats.idle.Load() > 0 {
				other.env.Post(other.giveUpIdle)
			}
		}
	}
	site.kick()
}

// giveUpIdle closes the connection that is idle longest, if there is one.
func (s *Scheduler) giveUpIdle() {
	if l := s.idle.first; l != nil {
		l.retire()
	}
}

// relax lets the loop have some more connections after a shortage.
func (s *Scheduler) relax(now int64) {
	s.most, s.raise = min(s.opts.Connections, s.most+max(1, s.most/64)), now+int64(shortStep)
	if s.most == s.opts.Connections {
		s.raise = 0
	}
	s.feedStarving()
}
