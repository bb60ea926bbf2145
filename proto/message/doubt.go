package message

import "net/netip"

// Doubt says that a delivery to a recipient may have happened: the whole message went to a peer, and what that said to it is not known. It is
// immutable.
type Doubt struct {
	Began   int64          // when the end of the message left, or about, Unix nanoseconds
	Attempt uint16         // number of the attempt
	Times   uint16         // how many deliveries of the recipient came to be in doubt, from 1: as many copies may be there
	Peer    netip.AddrPort // whom it went to
	Cause   DoubtCause
	Action  DoubtAction
}

// DoubtCause is why nobody knows.
type DoubtCause uint8

const (
	// DoubtCrash: this node, or its machine, went down before what the peer said was durable.
	DoubtCrash DoubtCause = iota
	// DoubtConnection: the connection was lost before the peer said anything.
	DoubtConnection
)

func (c DoubtCause) String() string { return [...]string{"crash", "connection"}[c] }

// DoubtAction is what is done about a doubt.
type DoubtAction uint8

const (
	// DoubtRetry: the recipient is delivered as if nothing had happened; it may get the message twice.
	DoubtRetry DoubtAction = iota
	// DoubtWait: an operator decides. The recipient is Deferred until Never, is not attempted and does not expire.
	DoubtWait
	// DoubtGiveUp: the recipient is settled as Bounced, and its sender told that it may have been delivered.
	DoubtGiveUp
)

var doubtActions = [...]string{"retry", "wait", "give-up"}

func (a DoubtAction) String() string { return doubtActions[a] }

// ParseDoubtAction reads what String prints.
func ParseDoubtAction(s string) (a DoubtAction, ok bool) {
	for a, name := range doubtActions {
		if name == s {
			return DoubtAction(a), true
		}
	}
	return 0, false
}

// Valid says that d can have been made by this program. It is for records.
func (d *Doubt) Valid() bool {
	return d.Cause <= DoubtConnection && d.Action <= DoubtGiveUp && d.Attempt > 0 && d.Times > 0
}

// Never is a Due that does not come, Unix nanoseconds: the year 2116.
const Never int64 = 1 << 62

// Waits says that an operator is to decide about the recipient.
func (r *Recipient) Waits() bool {
	return r.Doubt != nil && r.Doubt.Action == DoubtWait && !r.State.Settled()
}

// GivenUp says that the recipient is to be settled without another attempt.
func (r *Recipient) GivenUp() bool { return r.Doubt != nil && r.Doubt.Action == DoubtGiveUp }

// Cast puts a delivery in doubt; of d, Times is set here.
func (r *Recipient) Cast(d Doubt) {
	d.Times = 1
	if r.Doubt != nil && r.Doubt.Times < 1<<16-1 {
		d.Times += r.Doubt.Times
	}
	r.Doubt = &d
	if d.Action == DoubtWait {
		r.State, r.Due = Deferred, Never
	}
}

// Decide replaces what is done about the doubt of a recipient that Waits; it is due at now.
func (r *Recipient) Decide(a DoubtAction, now int64) {
	d := *r.Doubt
	d.Action = a
	r.Doubt, r.Due = &d, now
}
