package router

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"mailrace/proto/message"
	"mailrace/router/mx"
)

// A delivery is in doubt when the whole message left and nobody knows what the peer said to it: the connection was lost, or this node went down.
// What is done then, Options.InDoubt says of the first, and message.Recipient.Doubt of what somebody else put in doubt. RFC 1047

// doubt puts the delivery of recipient i, which o is the end of, in doubt, and makes o what is done about it.
func (s *Scheduler) doubt(t *Transaction, r *message.Recipient, o *Outcome) {
	r.Cast(message.Doubt{Began: t.started, Attempt: r.Attempts, Peer: o.Addr, Cause: message.DoubtConnection, Action: s.opts.InDoubt})
	if r.GivenUp() {
		o.Class, o.Enhanced, o.Text = Bounced, gaveUpStatus, gaveUpText(r.Doubt, t.link)
	}
}

// shuns is the address of the host that left t in doubt last, if the domain has another one: that is asked first. Who closes connections behind the end
// of data may do so with every copy, and the recipient would get one with each attempt. RFC 5321 §5.1 has a client try each host of the list;
// the others' turn comes with the next attempt, for at once would double what is only a fault of the network between us.
func (t *Transaction) shuns() (peer netip.Addr) {
	if len(t.answer.Hosts) < 2 {
		return peer
	}
	for _, i := range t.Recipients {
		d := t.Message.Recipients[i].Doubt
		if d == nil || d.Cause != message.DoubtConnection {
			continue
		}
		its := func(h mx.Host) bool { return slices.Contains(h.Addrs, d.Peer.Addr()) }
		if slices.ContainsFunc(t.answer.Hosts, its) && slices.ContainsFunc(t.answer.Hosts, func(h mx.Host) bool { return !its(h) }) {
			return d.Peer.Addr()
		}
	}
	return netip.Addr{}
}

// shunKey stands for a host that is shunned in the key of a site; 0 = none is. That two are the same by chance costs nothing but an order.
func shunKey(peer netip.Addr) uint32 {
	if !peer.IsValid() {
		return 0
	}
	h := fnv.New32a()
	octets := peer.As16()
	_, _ = h.Write(octets[:])
	return max(h.Sum32(), 1)
}

// RFC 3463: bad connection.
const gaveUpStatus = "5.4.2"

// gaveUpText is what the sender of a message is told about a recipient that is given up. link is where it was lost; nil = not known.
func gaveUpText(d *message.Doubt, link *Link) string {
	to := "the next host"
	switch {
	case link != nil && link.target.Host != "":
		to = link.target.Host
	case d.Peer.IsValid():
		to = d.Peer.Addr().String()
	}
	why := "the connection was lost before its answer"
	if d.Cause == message.DoubtCrash {
		why = "this host went down before its answer was noted"
	}
	return "it is not known whether the message was delivered: it was sent to " + to + " at " + time.Unix(0, d.Began).UTC().Format(dateLayout) + ", and " + why +
		". It is not sent again, so that nobody gets it twice; ask the recipient"
}

// giveUp is the verdict on a recipient that is given up before another attempt.
func giveUp(r *message.Recipient) *mx.Answer {
	return &mx.Answer{Class: mx.Permanent, Enhanced: gaveUpStatus, Text: gaveUpText(r.Doubt, nil)}
}
