package ingress

import (
	"fmt"
	"strings"
	"testing"

	"mailrace/proto/message"
	"mailrace/proto/smtp"
	"mailrace/spool"
)

// lines is content of at least the given number of octets.
func lines(octets int) string {
	const line = "The quick brown fox jumps over the lazy dog, and the dog does not mind it.\r\n"
	return strings.Repeat(line, octets/len(line)+1)
}

// TestSlowStoreHoldsTheClientBack streams a large message while the store takes its time: what waits is bounded, the rest stays with the
// client, and chunks are freed as they are stored (P6).
func TestSlowStoreHoldsTheClientBack(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	c.envelope()
	content := lines(8 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(content + ".\r\n"))
		sent <- err
	}()
	var ops []*spool.Op
	stored, peak := 0, int64(0)
	for {
		op := receive(t, r.store.held)
		if ops = append(ops, op); op.Append != nil {
			break
		}
		if len(ops) < aheadMax {
			continue
		}
		r.barrier()
		if n := len(ops) + len(r.store.held); n != aheadMax {
			t.Fatalf("%d chunks wait for the store, want %d", n, aheadMax)
		}
		peak = max(peak, r.door.Budget.Used())
		for range aheadMax / 2 { // until then the client waits
			if len(r.store.held) > 0 {
				t.Fatal("the client was not held back")
			}
			if got := ops[0].Chunk; got.Index != stored+1 || string(got.Data.B) != content[stored*message.ChunkSize:][:message.ChunkSize] {
				t.Fatalf("chunk %d: index %d, or other content", stored+1, got.Index)
			}
			stored++
			r.store.complete(ops[0], nil)
			ops = ops[1:]
			r.barrier()
		}
	}
	if err := receive(t, sent); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		c.silent()
		r.store.complete(op, nil)
		r.barrier()
	}
	c.expect(250)
	m := receive(t, r.accepted)
	if m.content != "" || m.Size != int64(len(content)) || m.Chunks != (len(content)+message.ChunkSize-1)/message.ChunkSize || m.Stored != m.Chunks-1 {
		t.Errorf("size %d, %d chunks, %d of them streamed, %d octets kept in memory", m.Size, m.Chunks, m.Stored, len(m.content))
	}
	if most := int64(keepInMemory + (aheadMax+2)*message.ChunkSize); peak > most {
		t.Errorf("%d bytes in memory, want at most %d", peak, most)
	}
	c.Close()
	r.awaitQuiet()
}

// TestStreamedMessageStaysInMemory keeps content of moderate size for its first delivery, though it was streamed.
func TestStreamedMessageStaysInMemory(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	c := r.greet()
	for _, size := range []string{"", " SIZE=300000", " SIZE=1"} {
		content := lines(300_000)
		c.say("MAIL FROM:<s@sender.example>"+size, 250)
		c.say("RCPT TO:<a@far.example>", 250)
		c.say("DATA", 354)
		c.send(content + ".\r\n")
		c.expect(250)
		if m := receive(t, r.accepted); m.content != content || m.Stored != 4 {
			t.Errorf("%d octets kept in memory, %d chunks streamed", len(m.content), m.Stored)
		}
	}
	c.Close()
	r.awaitQuiet()
}

// TestGivenUpWhileStreaming loses transactions whose begin is with the store already. Each must be aborted there, once, with all its chunks,
// and the memory comes back when the store has answered (P3).
func TestGivenUpWhileStreaming(t *testing.T) {
	t.Parallel()
	const limit = 400_000
	for name, c := range map[string]struct {
		does  func(r *rig, c *client)
		reply int // 0 = none
		goes  bool
	}{
		"the client closes": {func(r *rig, c *client) { c.send(lines(300_000)); c.Close() }, 0, true},
		"the client resets": {func(r *rig, c *client) {
			c.send(lines(300_000))
			r.await("chunks", func() bool { _, chunks, _ := r.store.counts(); return chunks == 4 }) // a reset overtakes what was not read
			_ = c.SetLinger(0)
			c.Close()
		}, 0, true},
		"bare LF":   {func(r *rig, c *client) { c.send(lines(300_000) + "\n.\r\n") }, 550, true},
		"NUL":       {func(r *rig, c *client) { c.send(lines(300_000) + "\x00") }, 550, true},
		"too large": {func(r *rig, c *client) { c.send(lines(2*limit) + ".\r\n") }, 552, false},
		"large header": {func(r *rig, c *client) {
			c.send("X: x\r\n" + strings.Repeat(" y\r\n", 30_000) + lines(100_000) + ".\r\n")
		}, 552, false}, // B12
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, func(d *Door, s *shelf) {
				hold(d, s)
				d.SMTP = &smtp.ServerConfig{Hostname: "mta.test.example", MaxSize: limit}
			})
			client := r.greet()
			client.envelope()
			c.does(r, client)
			var chunks []*spool.Op
			for {
				op := receive(t, r.store.held)
				if op.Chunk.Data == nil {
					if op.Append != nil || op.Abort.ID != chunks[0].Chunk.ID || op.Abort.Chunks != len(chunks) {
						t.Errorf("%+v after %d chunks", op, len(chunks))
					}
					if r.door.Budget.Used() < int64(len(chunks))*message.ChunkSize {
						t.Error("memory was freed before the store was done with it")
					}
					for _, op := range append(chunks, op) {
						r.store.complete(op, nil)
					}
					break
				}
				chunks = append(chunks, op)
			}
			if c.reply != 0 {
				client.expect(c.reply)
			}
			if c.goes && c.reply != 0 {
				client.end()
			}
			if !c.goes { // and the session goes on
				client.envelope()
				client.send(hello + ".\r\n")
				r.store.complete(receive(t, r.store.held), nil)
				client.expect(250)
				client.Close()
			}
			r.awaitQuiet()
			if _, _, aborted := r.store.counts(); aborted != 1 || len(r.store.held) != 0 {
				t.Errorf("%d aborts", aborted)
			}
		})
	}
}

// TestCutWhileStreaming cuts a streamed message off at many places: nothing of it stays.
func TestCutWhileStreaming(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	whole := lines(200_000) + "."
	for cut := 1; cut <= len(whole); cut += 6000 {
		for _, at := range []int{cut, cut / message.ChunkSize * message.ChunkSize, cut/message.ChunkSize*message.ChunkSize + 1} {
			c := r.greet()
			c.envelope()
			c.send(whole[:at])
			c.Close()
			r.awaitQuiet()
			appended, chunks, aborted := r.store.counts()
			if want := min(chunks, 1); appended != 0 || aborted != want {
				t.Fatalf("cut at %d: %d appended, %d chunks, %d aborted", at, appended, chunks, aborted)
			}
			r.store.forget()
		}
	}
}

// TestFullStoreRefusesMail does the same with the disk.
func TestFullStoreRefusesMail(t *testing.T) {
	t.Parallel()
	r := open(t, nil)
	under, c := r.greet(), r.greet()
	under.envelope()
	r.store.full.Store(true)
	for range 2 {
		if got := c.say("MAIL FROM:<s@sender.example>", 452); !strings.HasPrefix(got, "452 4.3.1 ") {
			t.Errorf("%q", got)
		}
	}
	under.say(hello+".", 250)
	r.store.full.Store(false)
	c.envelope()
	c.say(hello+".", 250)
	if n := r.door.Stats.NoSpace.Get(); n != 2 {
		t.Errorf("%d refusals counted", n)
	}
	c.Close()
	under.Close()
	r.awaitQuiet()
}

// TestMemoryFullRefusesMail lets what is under way end, and takes mail again when memory is free.
func TestMemoryFullRefusesMail(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, _ *shelf) { d.Budget = message.NewBudget(1 << 20) })
	under := r.greet()
	under.envelope()
	c := r.greet()
	chunks := r.door.Budget.AppendContent(nil, make([]byte, 1<<20), 0)
	for range 2 {
		if got := c.say("MAIL FROM:<s@sender.example>", 452); !strings.HasPrefix(got, "452 4.3.1 ") {
			t.Errorf("%q", got)
		}
	}
	under.say(hello+".", 250)
	message.FreeAll(chunks)
	c.envelope()
	c.say(hello+".", 250)
	if n := r.door.Stats.NoMemory.Get(); n != 2 {
		t.Errorf("%d refusals counted", n)
	}
	c.Close()
	under.Close()
	r.awaitQuiet()
}

// TestClientClosesWhileHeldBack gives up a message whose client left while it was made to wait.
func TestClientClosesWhileHeldBack(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	c.envelope()
	gone := make(chan error, 1)
	go func() {
		_, err := c.Write([]byte(lines(1 << 20)))
		c.Close()
		gone <- err
	}()
	var ops []*spool.Op
	for len(ops) < aheadMax {
		ops = append(ops, receive(t, r.store.held))
	}
	r.barrier()
	for chunks := 0; ; chunks++ {
		last := ops[0].Chunk.Data == nil
		if last && ops[0].Abort.Chunks != chunks {
			t.Errorf("%d chunks to be dropped of %d", ops[0].Abort.Chunks, chunks)
		}
		r.store.complete(ops[0], nil)
		if last {
			break
		}
		if ops = ops[1:]; len(ops) == 0 || len(r.store.held) > 0 {
			ops = append(ops, receive(t, r.store.held))
		}
	}
	if err := receive(t, gone); err != nil {
		t.Error(err)
	}
	r.awaitQuiet()
	if appended, _, aborted := r.store.counts(); appended != 0 || aborted != 1 {
		t.Errorf("%d appended, %d aborted", appended, aborted)
	}
}

func TestHas8Bit(t *testing.T) {
	p := make([]byte, 100)
	for n := range p {
		if has8Bit(p[:n]) {
			t.Fatalf("%d octets of 7 bits", n)
		}
		for i := range n {
			p[i] = 0x80
			if !has8Bit(p[:n]) {
				t.Fatalf("octet %d of %d", i, n)
			}
			p[i] = 0x7f
		}
	}
}

func BenchmarkHas8Bit(b *testing.B) {
	p := []byte(lines(10 << 10))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		has8Bit(p)
	}
}

// TestChunksAtASlowStore sends chunks of content (BDAT) that are longer than what may wait for the disk. The reply to a chunk whose last octet
// came before the client was held back must not wait for more octets.
func TestChunksAtASlowStore(t *testing.T) {
	t.Parallel()
	r := open(t, hold)
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	content := strings.Repeat("x", aheadMax*message.ChunkSize-1) + "\r\n" // the last octet is one too many
	c.send(fmt.Sprintf("BDAT %d\r\n%s", len(content), content))
	var ops []*spool.Op
	for range aheadMax {
		ops = append(ops, receive(t, r.store.held))
	}
	r.barrier()
	for _, op := range ops {
		r.store.complete(op, nil)
	}
	c.expect(250)
	c.send("BDAT 0 LAST\r\n")
	op := receive(t, r.store.held)
	for ; op.Append == nil; op = receive(t, r.store.held) {
		r.store.complete(op, nil)
	}
	r.store.complete(op, nil)
	c.expect(250)
	if m := receive(t, r.accepted); m.Size != int64(len(content)) {
		t.Errorf("size %d of %d octets", m.Size, len(content))
	}
	c.Close()
	r.awaitQuiet()
}
