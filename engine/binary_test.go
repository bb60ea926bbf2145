package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mailrace/proto/message"
)

// binary is content that no line discipline survives.
const binary = "Subject: b\r\n\r\n\x00.\n.\r\r\n.\r\n\xff no end"

// TestBinary: binary content goes by BDAT octet for octet, pipelined and step by step, next to other mail, which goes by DATA
// where nothing is pipelined, and comes back where the
// host cannot take it.
func TestBinary(t *testing.T) {
	good, _ := certified(t, "127.0.0.1")
	large := strings.Repeat(binary, 300_000/len(binary))
	for name, c := range map[string]manners{
		"pipelined":     {extensions: []string{"PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME"}},
		"step by step":  {extensions: []string{"CHUNKING", "BINARYMIME", "8BITMIME"}},
		"under TLS":     {extensions: []string{"PIPELINING", "CHUNKING", "BINARYMIME", "8BITMIME", "SIZE"}, tls: good},
		"not offered":   {extensions: []string{"PIPELINING", "CHUNKING", "8BITMIME"}},
		"but recipient": {extensions: []string{"PIPELINING", "CHUNKING", "BINARYMIME"}, answer: refusing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := listen(t, func(p *peer) { p.receive(c) })
			s := settings(t, f.route("far.example"), discard("*"))
			s.Engine.Loops, s.Egress.Connections = 1, 1
			r := start(t, s)
			asBinary := func(m *message.Message) { m.Flags |= message.Binary | message.LeadingDots }
			switch name {
			case "not offered":
				r.inject(asBinary, "s@sender.example", binary, "a@far.example")
				if e := r.record("bounce", "a@far.example", 1); e.Enhanced != "5.6.3" || !strings.Contains(e.Text, "base64") {
					t.Errorf("%+v", e)
				}
				return
			case "but recipient":
				r.inject(asBinary, "s@sender.example", binary, "no@far.example")
				r.record("bounce", "no@far.example", 1)
				r.inject(asBinary, "s@sender.example", binary, "yes@far.example", "no2@far.example")
				if l := f.next(); !slices.Equal(l.to, []string{"yes@far.example"}) {
					t.Errorf("%+v", l)
				}
				r.awaitEmpty()
				return
			}
			for i := range 12 {
				content := []string{binary, large, hello}[i%3]
				change := asBinary
				if content == hello {
					change = func(m *message.Message) { m.Flags |= message.LeadingDots }
				}
				r.inject(change, fmt.Sprintf("s%d@sender.example", i), content, "a@far.example")
			}
			for range 12 {
				l := f.next()
				i := 0
				fmt.Sscanf(l.mail, "MAIL FROM:<s%d@", &i)
				want := []string{binary, large, hello}[i%3]
				if withoutTrace(t, l.content) != want || l.chunked != (want != hello || name != "step by step") || strings.Contains(l.mail, "BODY=BINARYMIME") != (want != hello) {
					t.Errorf("%s: %d octets, by BDAT %v", l.mail, len(l.content), l.chunked)
				}
			}
			r.awaitEmpty()
		})
	}
}

// TestBinaryFromSpool: after a restart the content comes from the spool, in several chunks, and its length is still what BDAT says.
func TestBinaryFromSpool(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	f := listen(t, func(p *peer) {
		p.receive(manners{extensions: []string{"PIPELINING", "CHUNKING", "BINARYMIME"}, answer: func(_ *peer, line string) string {
			if strings.HasPrefix(line, "MAIL") && !up.Load() {
				return "451 4.3.0 not now"
			}
			return ""
		}})
	})
	s := settings(t, f.route("*"))
	r := start(t, s)
	content := strings.Repeat(binary, 600_000/len(binary))
	for i := range 3 {
		r.inject(func(m *message.Message) { m.Flags |= message.Binary | message.LeadingDots }, "s@sender.example", content, fmt.Sprintf("%d@far.example", i))
		r.record("deferral", fmt.Sprintf("%d@far.example", i), 1)
	}
	r.stop()
	up.Store(true)
	r = start(t, s)
	for range 3 {
		if l := f.next(); !l.chunked || withoutTrace(t, l.content) != content {
			t.Errorf("%s: %d octets, by BDAT %v", l.mail, len(l.content), l.chunked)
		}
	}
	r.awaitEmpty()
}
