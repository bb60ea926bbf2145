package message

import (
	"sync"
	"sync/atomic"
)

// ChunkSize is the most octets a chunk holds. Content beyond it streams into the spool while it arrives.
const ChunkSize = 64 << 10

// chunkClasses are the capacities that chunks come in: most mail is far smaller than ChunkSize.
var chunkClasses = [...]int{2 << 10, 6 << 10, 12 << 10, 24 << 10, ChunkSize}

var chunkPools [len(chunkClasses)]sync.Pool

// Budget counts the bytes of content held in memory by capacity, so that memory is bounded whatever arrives. All methods may be called by
// any goroutine.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used is the number of bytes taken.
func (b *Budget) Used() int64 { return b.used.Load() }

// Limit is the number of bytes that may be taken.
func (b *Budget) Limit() int64 { return b.limit }

// Full reports that new mail must be refused for now (452 4.3.1). Chunks are handed out beyond it, so that transactions under way end.
func (b *Budget) Full() bool { return b.used.Load() >= b.limit }

// Tight reports that committed mail should give up its memory: the spool has it.
func (b *Budget) Tight() bool { return b.used.Load() >= b.limit/2 }

// Take takes n bytes that are not chunks, unless the budget would be exceeded. The caller must Give them back.
func (b *Budget) Take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

// Give gives back what Take took.
func (b *Budget) Give(n int64) { b.used.Add(-n) }

// Chunk is a piece of content, at most ChunkSize octets, from a pool.
type Chunk struct {
	B      []byte
	budget *Budget
	class  int
}

// NewChunk returns an empty chunk with room for at least size octets, size at most ChunkSize.
func (b *Budget) NewChunk(size int) *Chunk {
	class := 0
	for chunkClasses[class] < size {
		class++
	}
	c, _ := chunkPools[class].Get().(*Chunk)
	if c == nil {
		c = &Chunk{B: make([]byte, 0, chunkClasses[class])}
	}
	c.budget, c.class = b, class
	b.used.Add(int64(chunkClasses[class]))
	return c
}

// Free returns the chunk to its pool and its bytes to the budget. The caller must not touch it again.
func (c *Chunk) Free() {
	c.budget.used.Add(-int64(chunkClasses[c.class]))
	c.B, c.budget = c.B[:0], nil
	chunkPools[c.class].Put(c)
}

// FreeAll frees the chunks of cs that are not nil.
func FreeAll(cs []*Chunk) {
	for _, c := range cs {
		if c != nil {
			c.Free()
		}
	}
}

// AppendContent appends p to the chunks: the last one is filled up first, grown through the size classes, then new ones are begun. hint
// is the size that the client announced for the whole content, or 0.
func (b *Budget) AppendContent(cs []*Chunk, p []byte, hint int64) []*Chunk {
	for len(p) > 0 {
		var last *Chunk
		if len(cs) > 0 {
			last = cs[len(cs)-1]
		}
		if last == nil || len(last.B) == ChunkSize {
			last = b.NewChunk(int(min(max(hint, int64(len(p))), ChunkSize)))
			cs, hint = append(cs, last), 0
		}
		if need := len(last.B) + len(p); need > cap(last.B) && cap(last.B) < ChunkSize {
			grown := b.NewChunk(min(need, ChunkSize))
			grown.B = append(grown.B, last.B...)
			last.Free()
			cs[len(cs)-1], last = grown, grown
		}
		n := min(len(p), ChunkSize-len(last.B))
		last.B = append(last.B, p[:n]...)
		p = p[n:]
	}
	return cs
}
