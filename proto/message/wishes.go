package message

// Wishes are what the sender of a message asked for about its delivery, beside notifications.
type Wishes struct {
	Release  int64  // not to be delivered before: Unix nanoseconds; 0 = at once. FUTURERELEASE, RFC 4865
	Deadline int64  // to be delivered until: Unix nanoseconds; 0 = no wish. DELIVERBY, RFC 2852
	ByMode   ByMode // what to do at Deadline
	ByTrace  bool   // a relayed DSN is wanted of each hop that takes the message: the T of DELIVERBY
	Priority int8   // -9 to 9, higher first; 0 = normal. MT-PRIORITY, RFC 6710
}

// ByMode is what happens to a message that is not delivered at its deadline. RFC 2852 §4
type ByMode uint8

const (
	// ByNone: there is no deadline.
	ByNone ByMode = iota
	// ByReturn: it is returned as failed.
	ByReturn
	// ByNotify: a delay is reported, and the delivery goes on.
	ByNotify
)

// PriorityMax and its negative bound Wishes.Priority. RFC 6710 §4.1
const PriorityMax = 9
