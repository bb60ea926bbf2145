package router

import "slices"

// Gone says that the connection is gone and why; o holds the error or reply (Code, Enhanced, Text and Remote are used) and may be nil for
// GoneClosed. With GoneInsecure, its Class Bounced says that the host will never do for the mail of the link: it comes back when no host of the site does.
// Transactions that are not done come back: recipients not settled are deferred in doubt where Sent was called (the peer may
// have taken them), and go to another connection at once where it was not. A failure of a link on which the peer never answered for a
// recipient counts against the host. The link and its transactions must not be used afterwards.
func (l *Link) Gone(reason Reason, o *Outcome) {
	site, s := l.site, l.site.owner
	if reason == GoneClosed && l.state == linkOpening {
		reason = GoneUnreachable // it never stood
	}
	failure := l.failure(reason, o)
	useless := l.state == linkOpen && l.handed == 0 && site.queue.length > 0
	l.unlink()
	if reason == GoneUnusable && site.key.source == nil {
		reason = GoneUnreachable
	}
	if reason != GoneClosed {
		s.countGone(reason)
		site.lastError, site.lastReason = failure, reason
	}
	if final := reason == GoneInsecure && o != nil && o.Class == Bounced; !final && (reason != GoneClosed || useless) {
		site.hope = true
	}
	l.judgeSource(reason)
	switch {
	case reason == GoneUnusable:
	case reason == GoneDenied:
		site.unmet = true
		l.deny()
	case reason == GoneUnreachable || reason == GoneRefused || reason == GoneInsecure:
		site.unmet = site.unmet || reason == GoneInsecure
		l.blame()
	case reason == GoneBroken && len(l.taken) > 0 || useless: // once may be the fault of a message, or a coincidence
		if site.broken++; site.broken > 1 {
			l.blame()
		}
	}
	l.giveBack(&failure)
	s.feedStarving()
	site.kick()
}

// feedStarving gives free connections of the loop's share to sites that wait for one.
func (s *Scheduler) feedStarving() {
	for s.links < s.most {
		site, ok := s.starving.due(s.now())
		if !ok {
			return
		}
		site.starving = false
		site.kick()
	}
}

// failure is the outcome of those whom the end of the link hits.
func (l *Link) failure(reason Reason, o *Outcome) Outcome {
	f := Outcome{Class: Deferred, Host: l.target.Host, Addr: l.target.Addr}
	if o != nil {
		f.Code, f.Enhanced, f.Text, f.Remote, f.TLSVersion, f.TLSCipher, f.TLSPolicy, f.TLSVerdict = o.Code, o.Enhanced, o.Text, o.Remote, o.TLSVersion, o.TLSCipher, o.TLSPolicy, o.TLSVerdict
	}
	if f.Code/100 != 4 && reason != GoneInsecure { // another host may do better: no refusal of a session is final. RFC 5321 §3.1
		f.Enhanced = [...]string{GoneClosed: "4.4.2", GoneUnreachable: "4.4.1", GoneRefused: "4.3.0", GoneDenied: "4.7.8", GoneBroken: "4.4.2", GoneUnusable: "4.3.0"}[reason]
	}
	if o != nil && o.Class == Bounced && reason == GoneInsecure { // but another host may do: see bounceAll
		f.Code, f.Enhanced = 0, "4"+o.Enhanced[1:]
	}
	if f.Text == "" {
		f.Text = "connection " + reason.String()
	}
	return f
}

// unlink takes the link out of everything.
func (l *Link) unlink() {
	site, s := l.site, l.site.owner
	switch l.state {
	case linkOpening:
		site.opening--
	case linkClosing, linkClosed:
		site.closing--
	}
	l.stopWaiting()
	l.state = linkClosed
	if l.proved {
		site.proved--
	}
	i := slices.Index(site.links, l)
	if site.links = slices.Delete(site.links, i, i+1); len(site.links) == 0 {
		site.party.linked--
	}
	all := site.party.links
	i = slices.Index(all, l)
	site.party.links = slices.Delete(all, i, i+1)
	s.router.providers.count(site.key.rule, -1)
	s.links--
	s.stats.links.Add(-1)
	if src := site.key.source; src != nil {
		src.links.Add(-1)
	}
}

// blame counts the failure of the link against its address, unless that delivers: then the peer only wants fewer connections, or shorter ones.
func (l *Link) blame() {
	site, s := l.site, l.site.owner
	if l.proved {
		return
	}
	if l.second != nil { // both were tried
		site.hosts.Failed(l.second, s.now(), s.opts.HostRetry)
	}
	for _, other := range site.links {
		if other.proved && other.address == l.address {
			site.party.pause = s.now() + int64(s.opts.HostRetry)
			return
		}
	}
	if site.hosts.Failed(l.address, s.now(), s.opts.HostRetry) {
		site.tried++
	}
}

// deny sees to it that no other connection brings the same credentials before the site was backed off. Where they were right until now, the links
// that stand go on.
func (l *Link) deny() {
	l.blame()
	site := l.site
	site.pause = site.owner.now() + int64(site.owner.opts.HostRetry)
	if len(site.links) == 0 {
		site.tried = site.owner.opts.AddressTries
	}
}

// giveBack returns the transactions that the link held. Those that may have arrived are deferred in doubt: RFC 5321 §4.5.3.2.6 and RFC 1047 leave
// no better way. Of the others the first may be what the connection broke on: it alone is counted, and lets the others go first.
func (l *Link) giveBack(failure *Outcome) {
	site, s := l.site, l.site.owner
	taken := slices.Clone(l.taken)
	unsent := taken[:0]
	for _, t := range taken {
		l.takeBack(t)
		switch {
		case t.open == 0:
			t.free()
		case t.sent:
			s.outcome = *failure
			s.outcome.InDoubt, s.outcome.Remote, s.outcome.Code, s.outcome.Enhanced = true, false, 0, "4.4.2"
			s.outcome.Text = "connection lost between the end of data and its reply, delivery in doubt: " + failure.Text
			s.stats.inDoubt.Add(1)
			s.settleAll(t, &s.outcome, attempted)
		default:
			unsent = append(unsent, t)
		}
	}
	if len(unsent) == 0 {
		return
	}
	for _, t := range slices.Backward(unsent[1:]) {
		site.requeue(t, failure, atFront)
	}
	unsent[0].requeues++
	site.requeue(unsent[0], failure, atBack)
}

func (s *Scheduler) countGone(reason Reason) {
	switch reason {
	case GoneUnreachable:
		s.stats.unreachable.Add(1)
	case GoneRefused:
		s.stats.refused.Add(1)
	case GoneInsecure:
		s.stats.insecure.Add(1)
	case GoneDenied:
		s.stats.denied.Add(1)
	case GoneBroken:
		s.stats.broken.Add(1)
	case GoneUnusable:
		s.stats.unusable.Add(1)
	}
}

// judgeSource notes what the end of the link says about its source.
func (l *Link) judgeSource(reason Reason) {
	site, src := l.site, l.site.key.source
	if src == nil {
		return
	}
	probe := site.probe && reason != GoneClosed
	if probe {
		site.probe = false
	}
	switch {
	case reason == GoneUnusable:
		site.owner.takeOut(src, true, site.lastError.Text)
	case probe && src.fault():
		site.owner.restore(src, "it can be used again")
	case probe && reason == GoneRefused && site.lastError.Code/100 == 5:
		site.owner.takeOut(src, false, "still refused by "+site.name+": "+site.lastError.Reply())
	}
}
