package engine

import (
	"errors"
	"fmt"
	"time"
)

// openPatience is how long a node waits for its store before it listens. Nearly all stores are open by then, and what is wrong with one is said
// before anybody is let in. One with full memtables to replay takes seconds, and nobody should wait for those in front of a closed door.
const openPatience = 100 * time.Millisecond

// errOpening is why a node that listens is not ready.
var errOpening = errors.New("the spool is being opened")

// awaitStore waits for the store, and reads back what must be known before mail with an idempotency key is stored.
func (n *Node) awaitStore() {
	defer close(n.stored)
	if err := n.store.Wait(); err != nil {
		n.storeErr = fmt.Errorf("opening the spool: %w", err)
		return
	}
	n.storeErr = n.restoreClaims()
}

// storeSoon returns what is wrong with the store, if that is known soon.
func (n *Node) storeSoon() error {
	timer := time.NewTimer(openPatience)
	defer timer.Stop()
	select {
	case <-n.stored:
		return n.storeErr
	case <-timer.C:
		n.log.Info("the spool is being opened; mail is taken, and answered for when it is")
		return nil
	}
}

// takeUp begins to deliver what the store holds when that is open, or ends the node.
func (n *Node) takeUp() {
	<-n.stored
	if n.storeErr != nil {
		select {
		case n.fatal <- n.storeErr:
		default:
		}
		return
	}
	if n.pager == nil {
		return
	}
	if err := n.doubts.resolve(); err != nil {
		n.unreadable(err)
		return
	}
	close(n.doubts.resolved)
	n.pager.start()
}

// serving says why the node should not be sent mail, though it might take it, or nil.
func (n *Node) serving() error {
	if err := n.taking(); err != nil {
		return err
	}
	select {
	case <-n.stored:
		return n.storeErr
	default:
		return errOpening
	}
}
