package router

// Link is one connection of a site, from the dial to the end, as both sides see it: the router keeps its state here, egress calls its methods,
// all on the owner loop. It must not be used after Gone.
type Link struct {
	site   *Site
	conn   Conn
	target Target
}

// Site owns a queue.
type Site struct{}

// Target is where the link leads.
func (l *Link) Target() Target { return l.target }

// Ready says that the session of c stands and c is going to call Next. Called once, after Env.Dial returned.
func (l *Link) Ready(c Conn) {}

// Next hands out the next transaction for this connection, or nil. It may be called again before earlier transactions are done (pipelining);
// they are answered in the order of Next. After nil, Conn.Wake tells when to call again, or Conn.Close to end.
func (l *Link) Next() *Transaction { return nil }

// Gone says that the connection is gone and why; o holds the error or reply (Code, Enhanced, Text, Remote are used) and may be nil for
// GoneClosed. Transactions that are not done come back: recipients not settled are deferred in doubt where Sent was called (the peer may
// have taken them), and go to another connection at once where it was not. A failure before the first transaction of a link was answered
// counts against the host. The link and its transactions must not be used afterwards.
func (l *Link) Gone(reason Reason, o *Outcome) {}
