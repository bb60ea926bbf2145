package engine

import (
	"slices"
	"strings"
	"time"

	"mailrace/proto/message"
	"mailrace/router"
)

// A message may have thousands of recipients, in as many domains, which come to their ends at different times and on different loops. What their
// sender is told of is gathered, so that it gets few notifications and not thousands:
//
//   - what ends in one turn of a loop goes together to the message's home, the lane that its id names;
//   - there failures and delays wait until nothing else of the message is under way, [dsn] gather at most, and go in one notification.
//
// What waits is not settled: after a crash it is attempted again, and fails again. A delivery must not be attempted again, so that one whose
// sender wants to hear of it waits for nothing, and takes with it what is there.

const (
	// reportMax is how many recipients one notification reports.
	reportMax = 1000
	// gatheredMax is how much a lane gathers, in verdicts of some 500 bytes; beyond it nothing waits.
	gatheredMax = 10_000
	// gatherLook is how often the lane looks whether what it gathered is complete.
	gatherLook = 50 * time.Millisecond
)

// verdict is what became of a recipient in the end, or that its delivery takes long.
type verdict struct {
	recipient int
	outcome   router.Outcome
}

// gathered is what waits to be told of a message.
type gathered struct {
	verdicts []verdict
	until    time.Time // then it does not wait any more
}

// conclude keeps a verdict that its sender is told of.
func (a *lane) conclude(m *message.Message, i int, o *router.Outcome) {
	v := verdict{recipient: i, outcome: *o}
	v.outcome.Text, v.outcome.Enhanced = strings.Clone(o.Text), strings.Clone(o.Enhanced)
	if a.concluded == nil {
		a.concluded = map[*message.Message][]verdict{}
	}
	vs := a.concluded[m]
	if n := len(vs); n > 0 && vs[n-1].recipient == i { // late and delayed at once
		return
	}
	if a.concluded[m] = append(vs, v); len(vs) == 0 {
		a.node.reporting.Add(1)
	}
	if len(a.concluded) == 1 && len(vs) == 0 {
		a.loop.Post(a.bringHome)
	}
}

// bringHome brings what was concluded in this turn to the lanes where the messages are at home.
func (a *lane) bringHome() {
	concluded := a.concluded
	a.concluded = nil
	for m, vs := range concluded {
		home := a.node.lanes[m.ID.Shard()%len(a.node.lanes)]
		if home == a {
			a.gather(m, vs)
		} else if !home.loop.Post(func() { home.gather(m, vs) }) {
			a.node.reporting.Add(-1) // the node ends: they are not settled, and attempted again after the next start
		}
	}
}

// gather adds verdicts to those that wait, and reports them if nothing is to be waited for.
func (a *lane) gather(m *message.Message, vs []verdict) {
	g := a.gathered[m]
	if g == nil {
		g = &gathered{until: a.loop.Now().Add(a.node.cfg.DSN.Gather)}
		if a.gathered == nil {
			a.gathered = map[*message.Message]*gathered{}
		}
		a.gathered[m] = g
	} else {
		a.node.reporting.Add(-1)
	}
	a.waiting -= len(g.verdicts)
	g.add(vs)
	a.waiting += len(g.verdicts)
	if a.waiting > gatheredMax || len(g.verdicts) >= reportMax || anyDelivered(vs) || a.ripe(m, g) {
		a.reportGathered(m, g)
		return
	}
	if !a.looking {
		a.looking = true
		a.loop.After(gatherLook, &a.look)
	}
}

// add adds verdicts. One that was delayed and has come to its end meanwhile is not told to be delayed any more.
func (g *gathered) add(vs []verdict) {
	if len(g.verdicts) > len(settled(g.verdicts)) {
		g.verdicts = slices.DeleteFunc(g.verdicts, func(old verdict) bool {
			return !old.outcome.State.Settled() && slices.ContainsFunc(vs, func(v verdict) bool { return v.recipient == old.recipient })
		})
	}
	g.verdicts = append(g.verdicts, vs...)
}

// ripe says whether nothing more is to be waited for.
func (a *lane) ripe(m *message.Message, g *gathered) bool {
	return m.UnderWay() <= len(settled(g.verdicts)) || !a.loop.Now().Before(g.until) || !a.node.ready.Load()
}

// anyDelivered says whether a delivery is among verdicts.
func anyDelivered(vs []verdict) bool {
	for i := range vs {
		if vs[i].outcome.State == message.Delivered {
			return true
		}
	}
	return false
}

// lookGathered reports what is ripe.
func (a *lane) lookGathered() {
	for m, g := range a.gathered {
		if a.ripe(m, g) {
			a.reportGathered(m, g)
		}
	}
	if a.looking = len(a.gathered) > 0; a.looking {
		a.loop.After(gatherLook, &a.look)
	}
}

// reportGathered ends the wait. A recipient counts as settled only when its DSN is as durable as the message was: both stand in one operation.
func (a *lane) reportGathered(m *message.Message, g *gathered) {
	delete(a.gathered, m)
	a.waiting -= len(g.verdicts)
	chunks := a.returnedChunks(m, g.verdicts)
	if m.Chunks == 0 || !a.node.store.Keeps() {
		a.reportAll(m, g.verdicts, nil)
		return
	}
	a.node.load(a.loop, m, 1, chunks, func(cs []*message.Chunk, err error) {
		if err != nil && len(settled(g.verdicts)) > 0 { // one that is merely delayed may be delivered and gone by now
			// The DSN is more important than what it returns.
			a.node.log.Error("a message cannot be read for its DSN", "id", m.ID, "error", err)
		}
		a.reportAll(m, g.verdicts, cs)
		message.FreeAll(cs)
	})
}

// reportAll makes as many notifications of verdicts as it takes.
func (a *lane) reportAll(m *message.Message, vs []verdict, original []*message.Chunk) {
	for ; len(vs) > reportMax; vs = vs[reportMax:] {
		a.report(m, vs[:reportMax], original)
	}
	a.report(m, vs, original)
	a.node.reporting.Add(-1)
}

// settled are the recipients whose verdict is the last word.
func settled(vs []verdict) (is []int) {
	for i := range vs {
		if vs[i].outcome.State.Settled() {
			is = append(is, vs[i].recipient)
		}
	}
	return is
}
