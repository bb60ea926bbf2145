package engine

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/loop"
)

// Hostile input, row by row. Each row of the catalogue has exchanges: what a client says, and what is right to answer. Every exchange is had with
// a whole node in clear, after STARTTLS and under TLS from the start; each time at once, octet by octet, and cut in two behind every octet.

// exchange is one hostile input and its answers.
type exchange struct {
	row, name string
	door      int      // doorOwn unless set
	on        []string // carriers that it makes sense on; nil = all
	stage     stage    // how far the session has come when the input begins
	input     string
	at        int      // where in a long input the hostile octets are
	replies   []string // how each reply to the input begins
	closes    bool     // the server closes behind them; or else it answers QUIT
	kept      int      // messages of the input that get their 250
}

// carriers are the ways that octets come by.
var carriers = []string{"clear", "starttls", "implicit"}

// stage is how far a session has come before an input.
type stage uint8

const (
	greeted stage = iota // nothing was said
	helloed
	mailed
	rcpted
	inData
)

// stages are what leads from one to the next, and the reply.
var stages = []struct{ line, reply string }{
	{}, {"EHLO client.example\r\n", "250"}, {"MAIL FROM:<s@sender.example>\r\n", "250"}, {"RCPT TO:<r@local.example>\r\n", "250"}, {"DATA\r\n", "354"},
}

const (
	// letterOf and evil are whole transactions behind EHLO: one that is meant, and one that is smuggled in.
	letterOf = "MAIL FROM:<s@sender.example>\r\nRCPT TO:<r@local.example>\r\nDATA\r\n"
	evil     = "MAIL FROM:<evil@sender.example>\r\nRCPT TO:<r@local.example>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\nQUIT\r\n"
)

// times repeats a reply.
func times(n int, reply string) []string { return slices.Repeat([]string{reply}, n) }

// Doors of the fort, by listener.
const (
	doorOwn     = iota // loopback may relay; STARTTLS
	doorOwnTLS         // the same, TLS from the start
	doorStrange        // nobody may relay, and local.example is ours; STARTTLS
	doorStrangeTLS
	doorSlow // strangers wait for the greeting
	doorSlowTLS
	doorUser // strangers may log in, under TLS
	doorUserTLS
	doorOpen // they may do so in clear
	doorOpenTLS
	doorMend // loopback may relay, and its newlines are mended
	doorMendTLS
	doorProxy // connections begin with the header of a proxy; clients in 192.0.2.0/24 may relay
	doorProxyTLS
)

// The users that doors know.
const users = `[[user]]
name = "alice"
connections = 50
password = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$P3OLBQw3O3GiY9hpX8wpK8qO6gQccIdDXnlkdzKceqU" # "right", at next to no cost
`

// fort is a node under attack.
type fort struct {
	*rig
	tickets []tls.ClientSessionCache // of each door, so that most handshakes are short
	kept    atomic.Int64             // messages that clients were given a 250 for
}

// doors is the configuration of a fort. Limits are small where a row goes over them, and off where so many connections of one client would run
// into them.
func doors(t *testing.T) *config.Config {
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Engine.Loops, c.Spool.Shards, c.Spool.Sync = 1, 1, false
	c.TLS.Certificates = []config.Certificate{issue(t, t.TempDir(), "mta.test.example")}
	c.Limits.Client, c.Limits.Network = config.Quota{}, config.Quota{}
	c.Limits.MessageSize = 200_000
	c.Limits.MinRate = 0 // octet by octet, a busy machine is slower than any client may be
	c.Auth.Users = filepath.Join(t.TempDir(), "users.toml")
	if err := os.WriteFile(c.Auth.Users, []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Auth.FailureDelay, c.Auth.Failures = 0, 0
	known := config.DefaultRecipients()
	known.Domains, known.File = []string{"listed.example"}, filepath.Join(t.TempDir(), "recipients.txt")
	if err := os.WriteFile(known.File, []byte("known@listed.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Recipients, c.Limits.UnknownRecipients = []config.Recipients{known}, 1000
	c.Listeners = nil
	yes, no := true, false
	for _, l := range []config.Listener{{RelayFrom: loopback, Auth: &no, BinaryMIME: true}, {Auth: &no}, {GreetDelay: patience, Auth: &no}, {Auth: &yes}, {Auth: &yes, AuthInClear: true}, {RelayFrom: loopback, FixNewlines: true, Auth: &no},
		{ProxyFrom: loopback, RelayFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Auth: &no}} {
		l.Address, l.RelayDomains = "127.0.0.1:0", []string{"local.example", "listed.example", "mta.test.example"}
		l.Mode, l.StartTLS = config.ModeMX, true
		c.Listeners = append(c.Listeners, l)
		l.Mode, l.StartTLS = config.ModeSubmissions, false
		c.Listeners = append(c.Listeners, l)
	}
	return c
}

// fortify starts a node with the doors.
func fortify(t *testing.T, change func(c *config.Config)) *fort {
	t.Helper()
	return fortifyIn(t, change, world{clock: &loop.MachineClock})
}

// fortifyIn is fortify in a world.
func fortifyIn(t *testing.T, change func(c *config.Config), w world) *fort {
	t.Helper()
	c := doors(t)
	c.Events.Path = "off"
	if change != nil {
		change(c)
	}
	n, err := newNode(c, slog.New(slog.DiscardHandler), w)
	if err != nil {
		t.Fatal(err)
	}
	return &fort{rig: run(t, n), tickets: tickets(c)}
}

// tickets are caches of TLS sessions, one for each door.
func tickets(c *config.Config) (caches []tls.ClientSessionCache) {
	for range c.Listeners {
		caches = append(caches, tls.NewLRUClientSessionCache(64))
	}
	return caches
}

// settle returns when the loop has read what was sent before: on loopback that lies in the server's socket when the write returns, and a loop
// looks at its sockets before its tasks.
func (f *fort) settle() {
	done := make(chan struct{})
	f.lanes[0].loop.Post(func() { close(done) })
	<-done
}

// awaitQuiet waits until there is no session, no content in memory and no mail in the spool: nothing leaked.
func (f *fort) awaitQuiet() {
	f.t.Helper()
	f.await("the end of all sessions, and free memory", func() bool { return f.sessions() == 0 && f.budget.Used() == 0 && len(f.queue()) == 0 })
}

func (f *fort) sessions() (n int) {
	counted := make(chan int, 1)
	l := f.lanes[0].loop
	l.Post(func() {
		for _, d := range f.doors {
			n += d.Sessions(l)
		}
		counted <- n
	})
	return receive(f.t, counted)
}

// caller is a client in a session.
type caller struct {
	f    *fort
	tcp  *net.TCPConn
	conn net.Conn // what is spoken on: tcp, or TLS above it
	r    *bufio.Reader
}

// call opens a session on a carrier, and reads the greeting where the door gives one.
func (f *fort) call(carrier string, door int) (c *caller, err error) {
	if c, door, err = f.dial(carrier, door); err != nil {
		return nil, err
	}
	if err := c.begin(carrier, door); err != nil {
		c.tcp.Close()
		return nil, fmt.Errorf("before anything was said: %w", err)
	}
	return c, nil
}

// dial connects to the door, or the one beside it that begins with TLS, and says which.
func (f *fort) dial(carrier string, door int) (*caller, int, error) {
	if carrier == "implicit" {
		door++
	}
	conn, err := dialer.Dial("tcp", f.Addr(door).String())
	if err != nil {
		return nil, 0, err
	}
	c := &caller{f: f, tcp: conn.(*net.TCPConn), conn: conn, r: newReader(conn)}
	return c, door, c.hope()
}

// hope gives what is read and written next the patience of a test.
func (c *caller) hope() error { return c.tcp.SetDeadline(time.Now().Add(patience)) }

// begin secures a connection as the carrier asks, and reads the greeting.
func (c *caller) begin(carrier string, door int) (err error) {
	if carrier == "starttls" {
		err = c.talk("", "220", "EHLO client.example\r\n", "250", "STARTTLS\r\n", "220")
	}
	if carrier != "clear" && err == nil {
		err = c.secure(door)
	}
	switch {
	case err != nil:
	case carrier == "starttls":
		err = c.talk("NOOP\r\n", "250") // the server has come to the end of the handshake, too
	case door != doorSlow && door != doorSlowTLS:
		err = c.talk("", "220")
	}
	return err
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReaderSize(c, 16<<10) }

// secure goes on under TLS.
func (c *caller) secure(door int) error {
	t := tls.Client(c.tcp, &tls.Config{ServerName: "mta.test.example", InsecureSkipVerify: true, ClientSessionCache: c.f.tickets[door]})
	c.conn, c.r = t, newReader(t)
	return t.Handshake()
}

// talk sends texts, and checks how the reply to each begins.
func (c *caller) talk(textsAndReplies ...string) error {
	for i := 0; i < len(textsAndReplies); i += 2 {
		if _, err := io.WriteString(c.conn, textsAndReplies[i]); err != nil {
			return err
		}
		if err := c.hear(textsAndReplies[i+1]); err != nil {
			return fmt.Errorf("to %.100q: %w", textsAndReplies[i], err)
		}
	}
	return nil
}

// hear reads a reply, which must begin with want.
func (c *caller) hear(want string) error {
	for more := true; more; {
		line, err := c.r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want[:min(3, len(want))]) {
			return fmt.Errorf("want %s, got %q, %v", want, line, err)
		}
		if more = len(line) > 3 && line[3] == '-'; !more && !strings.HasPrefix(line, want) {
			return fmt.Errorf("want %s, got %q", want, line)
		}
	}
	return nil
}

// ended expects the end of the connection, and nothing before it. A reset is an end, too: behind QUIT nobody reads what a client goes on saying.
func (c *caller) ended() error {
	rest, err := io.ReadAll(io.LimitReader(c.r, 1<<10))
	if (err == nil || errors.Is(err, syscall.ECONNRESET)) && len(rest) == 0 {
		return nil
	}
	return fmt.Errorf("want the end, got %q, %v", rest, err)
}

// leave says QUIT.
func (c *caller) leave() error {
	if err := c.talk("QUIT\r\n", "221"); err != nil {
		return err
	}
	return c.ended()
}

// advance leads a session to a stage. behind is where it is already.
func (c *caller) advance(to stage) error {
	for _, s := range stages[1 : to+1] {
		if err := c.talk(s.line, s.reply); err != nil {
			return err
		}
	}
	return nil
}

// pour sends an input in pieces that end at the cuts, each of which the server reads before the next one is sent. A server that has closed is no
// error: what it said counts.
func (c *caller) pour(input string, cuts []int) {
	begin := 0
	for _, end := range append(slices.Clone(cuts), len(input)) {
		if _, err := io.WriteString(c.conn, input[begin:end]); err != nil {
			return
		}
		if begin = end; end < len(input) {
			c.f.settle()
			_ = c.hope() // many octets may take long, each of them does not
		}
	}
}

// have has an exchange, with the input cut at the cuts.
func (f *fort) have(x *exchange, carrier string, cuts []int) error {
	c, err := f.call(carrier, x.door)
	if err != nil {
		return err
	}
	defer c.tcp.Close()
	if err := c.advance(x.stage); err != nil {
		return err
	}
	if len(x.input) > 32<<10 { // the replies may be more than the sockets hold
		poured := make(chan struct{})
		go func() { defer close(poured); c.pour(x.input, cuts) }()
		defer func() { c.tcp.Close(); <-poured }()
	} else {
		c.pour(x.input, cuts)
	}
	for i, want := range x.replies {
		if err := c.hear(want); err != nil {
			return fmt.Errorf("reply %d: %w", i, err)
		}
	}
	f.kept.Add(int64(x.kept))
	if x.closes {
		return c.ended()
	}
	return c.leave()
}

// cutAll is the longest input that is cut behind every octet.
const cutAll = 700

// cuts are the places behind which an input is cut. A long one is cut where it is hostile, at its begin and its end, and at the edges of buffers
// and of TLS records.
func (x *exchange) cuts() (places []int) {
	for i := 1; i < len(x.input); i++ {
		if len(x.input) <= cutAll || i < 4 || i >= x.at-2 && i < x.at+12 || i > len(x.input)-8 || (i+1)%(16<<10) < 3 {
			places = append(places, i)
		}
	}
	return places
}

// TestHostile has all exchanges. Nothing may be kept of them but what was promised with a 250.
func TestHostile(t *testing.T) {
	t.Parallel()
	f := fortify(t, nil)
	t.Cleanup(f.reckon)
	rows := exchanges()
	for _, row := range rowsOf(rows) {
		t.Run(row, func(t *testing.T) {
			for _, carrier := range carriers {
				t.Run(carrier, func(t *testing.T) {
					t.Parallel()
					for i := range rows {
						if x := &rows[i]; x.row == row && (x.on == nil || slices.Contains(x.on, carrier)) {
							f.haveAnyhow(t, x, carrier)
						}
					}
					for _, o := range ordeals {
						if o.row != row || o.on != nil && !slices.Contains(o.on, carrier) {
							continue
						}
						if err := o.run(f, carrier); err != nil {
							t.Errorf("%s: %v", o.name, err)
						}
					}
				})
			}
		})
	}
}

// reckon checks that nothing was kept but what a client was told, and that nothing leaked.
func (f *fort) reckon() {
	f.t.Helper()
	f.awaitQuiet()
	if got, want := int64(f.stats.received.Messages.Get()), f.kept.Load(); got != want {
		f.t.Errorf("%d messages were kept, of %d that clients know of", got, want)
	}
	if n := f.stats.dsns.Get(); n > 0 {
		f.t.Errorf("%d notifications went to senders that nobody knows", n)
	}
}

// haveAnyhow has an exchange however the input is cut.
func (f *fort) haveAnyhow(t *testing.T, x *exchange, carrier string) {
	try := func(how string, cuts []int) bool {
		err := f.have(x, carrier, cuts)
		if err != nil {
			t.Errorf("%s, %s: %v", x.name, how, err)
		}
		return err == nil
	}
	all := x.cuts()
	if !try("at once", nil) || !try("octet by octet", all) {
		return
	}
	step := 1
	if raceDetector { // which finds races, not borders
		step = 16
	}
	for i := 0; i < len(all); i += step {
		cut := all[i]
		if !try(fmt.Sprintf("cut in two behind %d octets, %.20q|%.20q", cut, x.input[max(0, cut-20):cut], x.input[cut:]), []int{cut}) {
			return
		}
	}
}

// rowsOf are the rows that exchanges and ordeals belong to.
func rowsOf(all []exchange) (rows []string) {
	for _, x := range all {
		rows = append(rows, x.row)
	}
	for _, o := range ordeals {
		rows = append(rows, o.row)
	}
	slices.Sort(rows)
	return slices.Compact(rows)
}
