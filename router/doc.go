// Package router decides where each recipient's mail goes and when: recipient → route → domain → site (the same set of mail exchangers is
// the same site) → a transaction for one of the site's connections. It knows no sockets and no storage and starts no goroutines; time,
// randomness, connections and names come through Env and Resolver, so the real thing runs in a simulator.
//
// A Router has one Scheduler for each event loop. Everything in this package but Router.Totals and Router.Metrics is called on the loop that
// owns it:
//
//	Dispatch (any loop)            a committed message; its recipients are grouped by route and site
//	  │  a name that is not known yet: the entry waits on the scheduler for Resolver.Lookup
//	  ▼
//	mailbox of the pair of loops   emptied once for each batch, by one Env.Post
//	  ▼
//	Site (on its owner loop)       a queue by priority; Env.Dial when the queue is longer than its links take soon
//	  ▼
//	Link.Next ─► Transaction       pulled by the connection when it is ready for another envelope
//	  │            Transaction.Settle for each recipient, then Transaction.Done
//	  ▼
//	Env.Settle                     delivered, bounced or expired: the end; deferred: Env.Wait, and dispatched afresh when due
//
// A message of which nothing is under way any more and something is deferred, or held for its release, leaves the router (Options.Park): Env.Wait
// says when it is to be dispatched again. As long as others of its recipients are under way, deferred ones wait on a wheel.
//
// A site that is slow has a share of the memory (Options.InMemory), and puts what is beyond back to the disk: see backlog.go.
//
// A site that fails as a whole is backed off as a whole: its queue is deferred, and what comes meanwhile waits until it may be tried again.
package router
