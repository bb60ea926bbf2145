package router

import (
	"time"

	"mailrace/router/mx"
)

// lookupPause is how long a scheduler waits before it asks a resolver again that had no room and owes it no answer.
const lookupPause = 100 * time.Millisecond

// lookupAhead is for how long, at least, mail for a name is put back to the disk when what waits for the answer has its share of the memory.
const lookupAhead = time.Second

// question is what is asked, and who.
type question struct {
	query    mx.Query
	resolver Resolver
}

// lookup is a question with the transactions that wait for its answer.
type lookup struct {
	question
	waiting queue
}

// ask makes t wait for the answer to its question, which is asked when its turn comes.
func (s *Scheduler) ask(t *Transaction) {
	q := t.route.query
	if t.route.Kind == MX {
		q = mx.Query{Kind: mx.Exchangers, Name: t.Domain}
	}
	k := question{q, s.resolver(t.Message, t.route)}
	l := s.lookups[k]
	if l != nil && l.waiting.recipients+t.open > shareMin && int64(l.waiting.recipients+t.open) > s.router.room.share(classOf(t.Message)) {
		now := s.now()
		s.putOff(t, plain(max(now+int64(lookupAhead), now+(now-t.Message.Arrived)/2)), now)
		return
	}
	s.stats.resolving.Add(int64(t.open))
	if l != nil {
		if l.waiting.merge(t, s.opts.Recipients) {
			t.free()
		} else {
			l.waiting.push(t)
		}
		return
	}
	l = &lookup{question: k}
	l.waiting.push(t)
	s.lookups[k] = l
	s.unasked = append(s.unasked, l)
	s.askMore()
}

// askMore asks what waits as long as there is room.
func (s *Scheduler) askMore() {
	for len(s.unasked) > 0 && s.asked < s.opts.Lookups {
		l := s.unasked[0]
		done := func(a *mx.Answer) { s.env.Post(func() { s.answered(l, a) }) }
		if !l.resolver.Lookup(l.query, done) {
			if s.asked == 0 {
				s.askAgain = s.now() + int64(lookupPause)
				s.alarm(s.askAgain)
			}
			return
		}
		s.asked++
		s.unasked[0] = nil
		s.unasked = s.unasked[1:]
	}
}

// answered sends on what waited for l.
func (s *Scheduler) answered(l *lookup, a *mx.Answer) {
	s.asked--
	delete(s.lookups, l.question)
	for t := l.waiting.pop(); t != nil; t = l.waiting.pop() {
		s.stats.resolving.Add(-int64(t.open))
		t.answer = proven(t.Message, t.route, a)
		s.forward(t)
	}
	s.askMore()
}
