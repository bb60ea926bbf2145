package engine

import (
	"fmt"
	"time"

	"mailrace/engine/ingress"
	"mailrace/engine/loop"
	"mailrace/spool"
)

// openClaims makes the table of idempotency keys. Until restoreClaims those who come with one wait.
func (n *Node) openClaims() {
	c := n.cfg.Idempotency
	n.claims = ingress.NewClaims(c.Window, c.Max, n.metrics.NewCounter("mailrace_idempotency_forgotten_total"))
	n.claims.Hold()
	n.metrics.NewGauge("mailrace_idempotency_keys", func() float64 { return float64(n.claims.Len()) })
}

// restoreClaims reads back what the spool kept of the table. Without a spool keys are known until the process ends.
func (n *Node) restoreClaims() error {
	var kept []spool.Claim
	err := n.store.Claims(func(c spool.Claim) error {
		kept = append(kept, c)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading back idempotency keys: %w", err)
	}
	now := n.clock.Now()
	n.claims.Restore(kept, now)
	n.store.Expire(now.UnixNano()) // while the node was down
	return nil
}

// sweepsPerWindow is how often, in the time that a key is known, those that have expired are dropped from the spool.
const sweepsPerWindow = 64

// sweepClaims has expired keys dropped from now on.
func (n *Node) sweepClaims() {
	every := max(n.cfg.Idempotency.Window/sweepsPerWindow, time.Second/2)
	l := n.lanes[0].loop
	timer := &loop.Timer{}
	timer.Fire = func() {
		if before, dropped := n.claims.Sweep(l.Now()); dropped {
			n.store.Expire(before)
		}
		l.After(every, timer)
	}
	l.Post(func() { l.After(every, timer) })
}
