package engine

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/proto/message"
)

// noise makes content of odd lines, some of which begin with dots.
func noise(octets int, seed uint64) string {
	random := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	b.Grow(octets + 1000)
	b.WriteString("Subject: noise\r\n\r\n")
	for b.Len() < octets {
		if random.IntN(5) == 0 {
			b.WriteString(strings.Repeat(".", 1+random.IntN(3)))
		}
		for range random.IntN(200) {
			b.WriteByte(byte(' ' + random.IntN(95)))
		}
		b.WriteString("\r\n")
	}
	return b.String()
}

// TestLargeMessage passes a message through that is larger than the memory of the node. It goes in and out by chunks: at no time is more than
// a fraction of it in memory, and it arrives octet for octet (P5, P6).
func TestLargeMessage(t *testing.T) {
	t.Parallel()
	const octets, bound = 20 << 20, 4 << 20
	var r *rig
	var peak atomic.Int64
	look := func() {
		if used := r.budget.Used(); used > peak.Load() {
			peak.Store(used)
		}
	}
	f := listen(t, func(p *peer) {
		p.greet("PIPELINING", "SIZE 100000000")
		p.envelope()
		var content strings.Builder
		for {
			look()
			line, err := p.r.ReadString('\n')
			if err != nil || line == ".\r\n" {
				break
			}
			content.WriteString(strings.TrimPrefix(line, "."))
		}
		p.far.mail <- letter{content: content.String(), peer: p.number}
		p.say("250 ok")
		p.gone()
	})
	c := settings(t, f.route("*"))
	c.Limits.MessageSize, c.Engine.Memory = octets*2, 16<<20
	r = start(t, c)
	content := noise(octets, 1)
	d := r.dial()
	d.say("EHLO client.example", 250)
	d.say("MAIL FROM:<s@sender.example> SIZE=20000000", 250)
	d.say("RCPT TO:<a@far.example>", 250)
	d.say("DATA", 354)
	for wire := stuff(content); len(wire) > 0; {
		n := min(64<<10, len(wire))
		d.send(wire[:n])
		wire = wire[n:]
		look()
	}
	d.say(".", 250)
	if got := withoutTrace(t, f.next().content); got != content {
		t.Errorf("%d octets arrived, %d were sent, and they differ", len(got), len(content))
	}
	r.awaitEmpty()
	if peak.Load() > bound || peak.Load() == 0 {
		t.Errorf("%d bytes of content were in memory, want at most %d", peak.Load(), bound)
	}
}

// TestMemoryFull refuses new mail when memory is used up, lets what is under way end, and takes mail again by itself (P6).
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := settings(t, f.route("*"))
	c.Engine.Memory = 1 << 20
	r := start(t, c)
	body := text(0, 60<<10)
	full := int(c.Engine.Memory / message.ChunkSize)
	var open []*dialog
	for range full {
		d := r.dial()
		d.say("EHLO client.example", 250)
		d.say("MAIL FROM:<s@sender.example>", 250)
		d.say("RCPT TO:<a@far.example>", 250)
		d.say("DATA", 354)
		d.send(body)
		open = append(open, d)
	}
	late := open[0]
	r.await("full memory", r.budget.Full)

	d := r.dial()
	d.say("EHLO client.example", 250)
	if reply := d.say("MAIL FROM:<s@sender.example>", 452); !strings.HasPrefix(reply, "452 4.3.1 ") {
		t.Errorf("%q", reply)
	}
	d.say("RCPT TO:<a@far.example>", 503)
	if _, err := r.Submit(t.Context(), Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello)}); err == nil {
		t.Error("Submit takes mail with memory used up")
	}
	late.say(".", 250)
	f.next() // what is committed may give its memory up, and take it once more when it is delivered
	r.await("memory to become free", func() bool { return !r.budget.Full() })
	d.mail("MAIL FROM:<s@sender.example>", hello, "a@far.example")
	for _, d := range open[1:] {
		d.say(".", 250)
	}
	for range full {
		f.next()
	}
	r.awaitEmpty()
	if n := r.stats.received.NoMemory.Get(); n != 2 { // MAIL and Submit
		t.Errorf("%d refusals counted", n)
	}
}

// TestQueueLeavesMemory keeps the content of a long queue on disk only: a site that is down does not use up the memory.
func TestQueueLeavesMemory(t *testing.T) {
	t.Parallel()
	up := make(chan struct{})
	f := listen(t, func(p *peer) {
		<-up
		polite(p)
	})
	c := settings(t, f.route("*"))
	c.Engine.Memory = 1 << 20
	r := start(t, c)
	const messages = 60
	for i := range messages {
		r.send("s@sender.example", text(i, 60<<10), "a@far.example")
	}
	if used := r.budget.Used(); used > c.Engine.Memory {
		t.Errorf("%d bytes of content in memory", used)
	}
	close(up)
	left := map[string]bool{}
	for i := range messages {
		left[text(i, 60<<10)] = true
	}
	for range messages {
		content := withoutTrace(t, f.next().content)
		if !left[content] {
			t.Errorf("altered, or arrived twice: %.100q", content)
		}
		delete(left, content)
	}
	r.awaitEmpty()
}
