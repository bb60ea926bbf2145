package ingress

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"
)

// strangers makes a door at which clients on loopback are strangers with quotas.
func strangers(q Quota) func(d *Door, _ *shelf) {
	return func(d *Door, _ *shelf) {
		d.RelayFrom, d.RelayDomains = nil, NewDomains([]string{"far.example"})
		d.Clients = NewClients(ClientLimits{Client: q, Interval: time.Hour}, 1000, time.Now())
	}
}

// refused checks that the reply refuses over a quota, and that the refusals of it were counted.
func (r *rig) refused(got, reply string, why verdict, times uint64) {
	r.t.Helper()
	if !strings.HasPrefix(got, reply) {
		r.t.Errorf("%q, want %s", got, reply)
	}
	if n := r.door.Stats.Quota[why].Get(); n != times {
		r.t.Errorf("%d refusals counted, want %d", n, times)
	}
}

// TestA8ConnectionFlood opens more connections than one client may have.
func TestA8ConnectionFlood(t *testing.T) {
	t.Parallel()
	r := open(t, strangers(Quota{Connections: 3}))
	clients := []*client{r.greet(), r.greet(), r.greet()}
	for i := range 100 {
		c := r.connect()
		r.refused(c.expect(421), "421 4.7.0 Too many connections", tooManyConnections, uint64(i+1))
		c.end()
	}
	clients[0].Close()
	r.await("the end of a session", func() bool { return r.sessions() == 2 })
	r.greet().Close()
	clients[1].envelope() // the others are not disturbed
	clients[1].say(hello+".", 250)
	for _, c := range clients {
		c.Close()
	}
	r.awaitQuiet()
}

// TestA8ConnectionRate counts new connections, however short.
func TestA8ConnectionRate(t *testing.T) {
	t.Parallel()
	r := open(t, strangers(Quota{ConnectionRate: 5}))
	for range 5 {
		c := r.connect()
		c.expect(220)
		c.say("QUIT", 221)
		c.end()
	}
	c := r.connect()
	r.refused(c.expect(421), "421 4.7.0 Too many new connections", tooManyNew, 1)
	c.end()
	r.awaitQuiet()
}

// TestA8MessageRate refuses the message over the quota for now; the session may stay.
func TestA8MessageRate(t *testing.T) {
	t.Parallel()
	r := open(t, strangers(Quota{Messages: 2}))
	for range 2 {
		c := r.greet()
		c.envelope()
		c.say(hello+".", 250)
		c.Close()
	}
	c := r.greet()
	for i := range 2 {
		r.refused(c.say("MAIL FROM:<s@sender.example>", 450), "450 4.7.1 ", tooManyMessages, uint64(i+1))
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
}

// TestA8RecipientFlood counts recipients over sessions, whether their message comes or not, and ends who does not take no for an answer.
func TestA8RecipientFlood(t *testing.T) {
	t.Parallel()
	r := open(t, strangers(Quota{Recipients: 10}))
	c := r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	for range 4 {
		c.say("RCPT TO:<a@far.example>", 250)
	}
	c.say("RSET", 250)
	c.say("MAIL FROM:<s@sender.example>", 250)
	for range 6 {
		c.say("RCPT TO:<a@far.example>", 250)
	}
	r.refused(c.say("RCPT TO:<a@far.example>", 452), "452 4.5.3 ", tooManyRecipients, 1)
	c.say("DATA", 354)
	c.say(hello+".", 250)
	if m := receive(t, r.accepted); len(m.Recipients) != 6 {
		t.Errorf("%d recipients", len(m.Recipients))
	}
	r.refused(c.say("MAIL FROM:<s@sender.example>", 452), "452 4.5.3 ", tooManyRecipients, 2)
	c.Close()
	r.awaitQuiet()

	r = open(t, strangers(Quota{Recipients: 10}))
	c = r.greet()
	c.say("MAIL FROM:<s@sender.example>", 250)
	go func() {
		for range 100 {
			if _, err := c.Write([]byte(strings.Repeat("RCPT TO:<a@far.example>\r\n", 1000))); err != nil {
				return
			}
		}
	}()
	for i := range 10 + surplusMax {
		code := 250
		if i >= 10 {
			code = 452
		}
		c.expect(code)
	}
	c.expect(421)
	c.Close()
	r.awaitQuiet()
}

// TestA8Errors keeps a client out that made too many errors in sessions before.
func TestA8Errors(t *testing.T) {
	t.Parallel()
	r := open(t, strangers(Quota{Errors: 6}))
	c := r.greet()
	c.say("WHAT", 500)
	c.say("RCPT TO:<a@far.example>", 503)
	c.say("MAIL FROM:<s@sender.example>", 250)
	c.say("RCPT TO:<a@elsewhere.example>", 550)
	c.Close()
	c = r.greet()
	c.send("WHAT\r\nWHAT\r\nWHAT\r\nQUIT\r\n")
	for _, code := range []int{500, 500, 500, 221} {
		c.expect(code)
	}
	c.end()
	c = r.connect()
	r.refused(c.expect(421), "421 4.7.0 Too many errors", tooManyErrors, 1)
	c.end()
	r.awaitQuiet()
}

// TestExemptClients have no quotas: those that may relay, and those in the list.
func TestExemptClients(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(d *Door){
		"relay":  func(d *Door) { d.RelayFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} },
		"exempt": func(d *Door) { d.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} },
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, func(d *Door, s *shelf) {
				strangers(Quota{Connections: 1, ConnectionRate: 1, Messages: 1, Recipients: 1, Errors: 1})(d, s)
				d.Pace.Messages = 1
				change(d)
			})
			for range 3 {
				c := r.greet()
				for range 2 {
					c.say("WHAT", 500)
					c.envelope()
					c.say(hello+".", 250)
				}
				defer c.Close()
			}
		})
	}
}

// TestA8FloodCostsNoMemory opens thousands of connections from one address and shows what they leave behind. It runs alone: it reads the heap.
func TestA8FloodCostsNoMemory(t *testing.T) {
	const most, flood = 20, 3000
	r := open(t, strangers(Quota{Connections: most}))
	for range most {
		r.greet()
	}
	heap := func() int64 {
		r.await("the end of the others", func() bool { return r.sessions() == most })
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	refuse := func(times int) {
		for range times {
			c, err := net.Dial("tcp", r.group.Addr(0).String())
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(got, []byte("421 4.7.0 ")) {
				t.Fatalf("%q, %v", got, err)
			}
			c.Close()
		}
	}
	refuse(100) // fills the pools
	before := heap()
	refuse(flood)
	grown := heap() - before
	t.Logf("%d connections over the limit left %d bytes", flood, grown)
	if grown > 100*flood {
		t.Errorf("%d connections over the limit left %d bytes", flood, grown)
	}
	if n := r.door.Stats.Quota[tooManyConnections].Get(); n != flood+100 {
		t.Errorf("%d refused", n)
	}
}
