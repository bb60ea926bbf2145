package router

import (
	"hash/fnv"
	"slices"

	"mailrace/proto/message"
)

// A recipient that is deferred is tried again from the source that it was tried from. What source that was stands in the low bits of its due time, which
// nobody waits for as exactly: so it takes no memory, and is in the spool with it. Due times that end for another reason (at the end of a lifetime, or set
// by an operator) have any bits there; once in a few thousand times these name a source, which is then as good as any.

const (
	// signBits of a due time in nanoseconds are 66 µs.
	signBits = 16
	signMask = 1<<signBits - 1
)

// markOf is the mark of a source, which is never 0, and the same on every run as long as no name before it has it.
func markOf(name string, taken []*source) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	mark := int64(h.Sum32()>>signBits ^ h.Sum32()&signMask)
	for mark == 0 || len(taken) < signMask && slices.ContainsFunc(taken, func(other *source) bool { return other.mark == mark }) {
		mark = (mark + 1) & signMask
	}
	return mark
}

// sign is a due time that names the source, not before due.
func (src *source) sign(due int64) int64 {
	if src == nil {
		return due
	}
	return (due+signMask)&^signMask | src.mark
}

// signer is the member of the pool that the due time of a recipient names, which was tried before; nil = none.
func (p *sourcePool) signer(r *message.Recipient) *source {
	if r.Attempts == 0 || r.Due == 0 {
		return nil
	}
	for i := range p.members {
		if m := &p.members[i]; m.mark == r.Due&signMask {
			return m.source
		}
	}
	return nil
}
