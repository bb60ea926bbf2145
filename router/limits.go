package router

import (
	"slices"
	"strings"
)

// Limits are what a peer said it takes on a connection. 0 = it named no limit. RFC 9422
type Limits struct {
	Messages   int // transactions
	Recipients int // of one transaction
	Domains    int // different domains of recipients, over all transactions
}

// take takes the transaction out of the queue that is to go over this connection: as much of it as the peer takes. What is beyond stays in the
// queue, and what is to be returned by now is. It returns nil when there is none, or when the first one wants more domains than the peer takes: then the link is of no more use.
func (l *Link) take() (t *Transaction, used bool) {
	site, s := l.site, l.site.owner
	for {
		if t = site.queue.pop(); t == nil || t.Message.Wishes == nil {
			break
		}
		now := s.now()
		if returned(t.Message, now) {
			s.stats.queued.Add(-int64(t.open))
		}
		if !s.late(t, now) {
			break
		}
	}
	if t == nil || l.limits.Domains == 0 && (l.limits.Recipients == 0 || len(t.Recipients) <= l.limits.Recipients) {
		return t, false
	}
	taken := 0
	rest := t.part(func(i int) bool {
		if l.limits.Recipients > 0 && taken == l.limits.Recipients || !l.takesDomain(t.Message.Recipients[i].Domain()) {
			return false
		}
		taken++
		return true
	})
	switch {
	case taken == 0:
		site.put(t, atFront)
		return nil, true
	case rest != nil:
		site.put(rest, atFront)
	}
	return t, false
}

// takesDomain says whether the peer takes recipients of a domain, which counts from then on.
func (l *Link) takesDomain(domain string) bool {
	if l.limits.Domains == 0 || slices.ContainsFunc(l.domains, func(d string) bool { return strings.EqualFold(d, domain) }) {
		return true
	}
	if len(l.domains) == l.limits.Domains {
		return false
	}
	l.domains = append(l.domains, domain)
	return true
}

// part leaves those recipients in t, which waits in no queue, for whom keep is true, and returns another transaction for the rest, if there are
// some. If there are only those, t stays as it is.
func (t *Transaction) part(keep func(i int) bool) *Transaction {
	var away []int
	kept := make([]int, 0, len(t.Recipients))
	for _, i := range t.Recipients {
		if keep(i) {
			kept = append(kept, i)
		} else {
			away = append(away, i)
		}
	}
	if len(away) == 0 || len(kept) == 0 {
		return nil
	}
	rest := newTransaction(t.Message, t.Domain, t.queued)
	rest.route, rest.answer, rest.owner, rest.site, rest.pool, rest.requeues, rest.back = t.route, t.answer, t.owner, t.site, t.pool, t.requeues, t.back
	for _, i := range away {
		rest.add(i)
	}
	if t.Held {
		rest.hold()
	}
	t.Recipients = append(t.Recipients[:0], kept...)
	t.settled, t.open = t.settled[:len(kept)], len(kept)
	return rest
}
