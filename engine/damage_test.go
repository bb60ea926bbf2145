package engine

import (
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/proto/message"
	"mailrace/spool"
)

// TestDamagedMessage spoils a chunk of a message that waits for its next attempt. Nobody gets what is left of it, its sender is told, and what
// is left stays in the spool, where no start takes it for mail. Mail beside it is delivered.
func TestDamagedMessage(t *testing.T) {
	t.Parallel()
	for name, chunk := range map[string]int{"at once": 1, "in the middle": 9} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var up atomic.Bool
			f := listen(t, answering(func(_ *peer, line string) string {
				if strings.HasPrefix(line, "RCPT") && !up.Load() {
					return "451 4.3.0 later"
				}
				return ""
			}))
			c := settings(t, f.route("*"))
			r := start(t, c)
			bad := r.send("s@sender.example", noise(10*message.ChunkSize, 1), "bad@far.example")
			r.send("s@sender.example", hello, "good@far.example")
			r.record("deferral", "bad@far.example", 1)
			r.record("deferral", "good@far.example", 1)
			id, err := message.ParseID(bad)
			if err != nil {
				t.Fatal(err)
			}
			op := spool.NewOp()
			op.Origin, op.Chunk = -1, spool.Chunk{ID: id, Index: chunk, Data: &message.Chunk{B: make([]byte, message.ChunkSize+1)}, Keep: true}
			r.store.Enqueue(id.Shard(), op)
			up.Store(true)
			if e := r.record("bounce", "bad@far.example", 1); e.Enhanced != "5.3.0" || !strings.Contains(e.Text, "damaged") {
				t.Errorf("bounce: %+v", e)
			}
			for range 2 {
				switch l := f.next(); l.to[0] {
				case "good@far.example":
				case "s@sender.example":
					if !strings.Contains(l.content, "damaged") || !strings.Contains(l.content, "bad@far.example") {
						t.Errorf("DSN:\n%s", l.content)
					}
				default:
					t.Errorf("%v got %d octets", l.to, len(l.content))
				}
			}
			r.awaitEmpty()
			r.stop()
			if left := inSpool(t, c); len(left) != 0 {
				t.Errorf("in the spool: %+v", left)
			}
			r = start(t, c)
			r.stop()
			f.none()
		})
	}
}
