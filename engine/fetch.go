package engine

import (
	"math"
	"slices"
	"sync"
	"time"

	"mailrace/proto/message"
	"mailrace/router"
	"mailrace/spool"
)

const (
	// scanPage is how many entries of a due index are read at once for a site that asks for its mail, and scanMax how many of all shards for one
	// query: the next one goes on there.
	scanPage = 1024
	scanMax  = 64 << 10
)

// wanted are the queries of sites that wait for the pager. Each site has one at most.
type wanted struct {
	mu      sync.Mutex
	queries []siteQuery
	bell    chan struct{}
}

// siteQuery is what a site of a lane asks for.
type siteQuery struct {
	lane *lane
	router.Query
}

// fetch is router.Env.Fetch.
func (a *lane) fetch(q router.Query) {
	w := &a.node.pager.wanted
	w.mu.Lock()
	w.queries = append(w.queries, siteQuery{a, q})
	w.mu.Unlock()
	select {
	case w.bell <- struct{}{}:
	default:
	}
}

// fetchWanted answers the queries of sites in turn.
func (p *pager) fetchWanted() {
	for {
		select {
		case <-p.closing:
			return
		case <-p.wanted.bell:
		}
		p.wanted.mu.Lock()
		queries := p.wanted.queries
		p.wanted.queries = nil
		p.wanted.mu.Unlock()
		for _, q := range queries {
			next, room, ok := p.fetch(q)
			if !ok {
				return
			}
			answer := func() {
				q.lane.loop.Post(func() { p.node.router.Fetched(q.lane.index, q.Tag, next) })
			}
			if room {
				answer()
			} else {
				time.AfterFunc(roomPause, answer)
			}
		}
	}
}

// fetch brings messages that were put back for a site, in the order of the index. next is when what it did not bring is due, at the earliest; room
// says that there was enough of it. ok is false when the node is closing.
func (p *pager) fetch(q siteQuery) (next int64, room, ok bool) {
	found, next, err := p.search(q.Query)
	if err != nil {
		p.node.log.Error("what a site waits for cannot be read, it will come when it is due", "error", err)
		return math.MaxInt64, true, true
	}
	for len(found) > 0 {
		page := found[:min(len(found), pageMax)]
		brought, ok := p.bringPage(q.lane, page)
		if !ok {
			return 0, false, false
		}
		if brought < len(page) {
			return page[brought].At, false, true
		}
		found = found[len(page):]
	}
	return next, true, true
}

// search finds about as many entries as are asked for that nobody has taken, in their order, and the time from which on others may be. Each is
// of one recipient at least.
func (p *pager) search(q router.Query) (found []spool.Due, next int64, err error) {
	const none = math.MaxInt64
	end := spool.Due{At: none} // up to there all shards were looked through
	var page []spool.Due
	for shard, w := range p.windows {
		after := spool.Due{At: q.From - 1, ID: math.MaxUint64}
		for n, mine := 0, 0; ; {
			if page, err = p.node.store.Due(shard, after, scanPage); err != nil {
				return nil, 0, err
			}
			for _, d := range page {
				if router.Tag(d.At) == q.Tag && !w.taken(d) {
					found = append(found, d)
					mine++
				}
			}
			if len(page) < scanPage {
				break
			}
			after = page[len(page)-1]
			if n += len(page); mine >= q.Recipients || n >= scanMax/len(p.windows) {
				if after.Compare(end) < 0 {
					end = after
				}
				break
			}
		}
	}
	slices.SortFunc(found, spool.Due.Compare)
	n := len(found)
	for n > 0 && found[n-1].Compare(end) > 0 {
		n--
	}
	if n = min(n, q.Recipients); n < len(found) {
		end.At = min(end.At, found[n].At)
	}
	return found[:n], end.At, nil
}

// bringPage takes, reads and hands on entries of several shards, and returns how many of them are seen to: those behind found no room.
func (p *pager) bringPage(to *lane, page []spool.Due) (n int, ok bool) {
	read := make(map[message.ID]*message.Message, len(page))
	for shard, w := range p.windows {
		var mine []spool.Due
		for _, d := range page {
			if d.ID.Shard()%len(p.windows) == shard && w.claim(d) {
				mine = append(mine, d)
			}
		}
		ms, err := p.read(shard, mine)
		if err != nil {
			continue // they come when they are due
		}
		for _, m := range ms {
			read[m.ID] = m
		}
	}
	var ms []*message.Message
	full := false
	for i, d := range page {
		m := read[d.ID]
		switch {
		case m == nil:
		case !full && p.node.router.Reserve(m.Unsettled(), 0):
			ms = append(ms, m)
		default:
			p.windows[d.ID.Shard()%len(p.windows)].putBack([]spool.Due{d})
			full = true
		}
		if !full {
			n = i + 1
		}
	}
	return n, p.hand(ms, to)
}
