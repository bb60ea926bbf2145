package ingress

import "mailrace/proto/smtp"

// What an envelope may hold, in octets.
const (
	// envelopeFree is not counted, so that an ordinary envelope costs nothing.
	envelopeFree = 16 << 10
	// envelopeStep is what is taken from the budget at a time.
	envelopeStep = 16 << 10
	// recipientCost is what a recipient takes beside its octets.
	recipientCost = 64
	// envelopeKept is the largest arena that a session keeps for its next transaction.
	envelopeKept = 4 << 10
)

// weigh counts a recipient that is to be added, and reports whether there is memory for it. A thousand recipients with an ORCPT each are half a
// megabyte, which a client can leave lying in every one of its sessions.
func (tx *transaction) weigh(path []byte, p *smtp.RcptParams) bool {
	tx.weight += int64(len(path) + len(p.Original) + recipientCost)
	for tx.weight > envelopeFree+tx.counted {
		if !tx.s.door.Budget.Take(envelopeStep) {
			return false
		}
		tx.counted += envelopeStep
	}
	return true
}

// forget gives up the envelope, which is over or belongs to a message now.
func (tx *transaction) forget() {
	if tx.counted > 0 {
		tx.s.door.Budget.Give(tx.counted)
	}
	tx.weight, tx.counted, tx.dsn = 0, 0, nil
	if cap(tx.arena) > envelopeKept {
		tx.arena, tx.ends, tx.notify = nil, nil, nil
	}
}
