package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/engine/admin"
	"mailrace/engine/config"
	"mailrace/router"
)

// patience is how long a test waits for an event before it fails. It is no measure of speed.
const patience = 30 * time.Second

// loopback are the clients that may relay through nodes under test.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// rig is a running node with what tests look at: its event log, its queue, its doors.
type rig struct {
	*Node
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

// settings is a configuration for tests, with spool and event log in a directory of its own. Retries come at once.
func settings(t *testing.T, routes ...config.Route) *config.Config {
	t.Helper()
	dir := t.TempDir()
	c := config.Default()
	c.Hostname = "mta.test.example"
	c.Engine.Loops, c.Spool.Shards = 2, 2
	c.Engine.DrainTimeout = patience
	c.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: loopback}}
	c.Spool.InFlight = dir
	c.Spool.Path, c.Events.Path = filepath.Join(dir, "spool"), filepath.Join(dir, "events.jsonl")
	c.Queue = config.Queue{RetryMin: 10 * time.Millisecond, RetryMax: 20 * time.Millisecond, Expire: time.Hour, InMemory: 200_000}
	c.Routes = routes
	return c
}

// start runs a node until the test ends or stop is called.
func start(t *testing.T, c *config.Config) *rig {
	t.Helper()
	return launch(t, c, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

// launch is start with a log of one's own.
func launch(t *testing.T, c *config.Config, log *slog.Logger) *rig {
	t.Helper()
	n, err := New(c, log)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, n)
}

// run is launch with a node that is made already.
func run(t *testing.T, n *Node) *rig {
	t.Helper()
	r := &rig{Node: n, t: t, ended: make(chan error, 1)}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- n.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends the node as SIGTERM does. A second call does nothing.
func (r *rig) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.ended:
		if err != nil {
			r.t.Errorf("the node ended with %v", err)
		}
	case <-time.After(2 * patience):
		r.t.Error("the node does not end")
	}
}

// await polls a condition that has no other way to tell.
func (r *rig) await(what string, holds func() bool) {
	r.t.Helper()
	limit, look := time.After(patience), time.NewTicker(2*time.Millisecond)
	defer look.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-limit:
			r.t.Fatalf("waited in vain for %s\nqueue: %+v\nevents: %+v", what, r.queue(), r.records())
		}
	}
}

// receive takes from a channel.
func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatal("waited in vain")
		panic("not reached")
	}
}

// record is a line of the event log.
type record struct {
	Time, Type, ID, Sender, Recipient, Queue, Site, Peer, Enhanced, Text string
	User, Tenant, Campaign                                               string
	TLSVersion                                                           string `json:"tls_version"`
	TLSCipher                                                            string `json:"tls_cipher"`
	TLSResumed                                                           bool   `json:"tls_resumed"`
	TLSPolicy                                                            string `json:"tls_policy"`
	TLSVerdict                                                           string `json:"tls_verdict"`
	Recipients, Code, Attempt                                            int
	Release, Deadline                                                    string
	Cause, Action, Began                                                 string
	Source                                                               string
	From                                                                 string `json:"egress_source"`
	Pool                                                                 string `json:"egress_pool"`
	Until                                                                string
	Priority                                                             int
	Size                                                                 int64
	Latency                                                              float64
}

// records reads the event log back: the records of the given types, or all.
func (r *rig) records(types ...string) (list []record) {
	r.t.Helper()
	if err := r.events.Sync(); err != nil && r.cancel != nil {
		r.t.Fatal(err)
	}
	log, err := os.ReadFile(r.cfg.Events.Path)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var e record
		if err := json.Unmarshal(line, &e); err != nil {
			r.t.Fatalf("%v: %q", err, line)
		}
		if len(types) == 0 || slices.Contains(types, e.Type) {
			list = append(list, e)
		}
	}
	return list
}

// record waits for the n-th record (from 1) of a type that is about a recipient.
func (r *rig) record(typ, recipient string, n int) (found record) {
	r.t.Helper()
	r.await(fmt.Sprintf("%s of %s, number %d", typ, recipient, n), func() bool {
		seen := 0
		for _, e := range r.records(typ) {
			if e.Recipient != recipient {
				continue
			}
			if seen++; seen == n {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// queue lists what the spool holds.
func (r *rig) queue() []admin.Message {
	if r.cancel == nil {
		return nil
	}
	q, err := admin.List(admin.Filter{Limit: 10_000}, r.store.Scan)
	if err != nil {
		r.t.Error(err)
	}
	return q.Messages
}

// states are the states of the recipients that the spool holds, by address.
func (r *rig) states() map[string]string {
	states := map[string]string{}
	for _, m := range r.queue() {
		for _, rcpt := range m.Recipients {
			states[rcpt.Address] = rcpt.State
		}
	}
	return states
}

// sites describes the sites of a loop.
func (r *rig) sites(loop int) []router.SiteStatus {
	list := make(chan []router.SiteStatus, 1)
	r.lanes[loop].loop.Post(func() { list <- r.router.Sites(loop) })
	return receive(r.t, list)
}

// awaitEmpty waits until the node holds no mail: neither on disk nor in memory.
func (r *rig) awaitEmpty() {
	r.t.Helper()
	r.await("an empty queue", func() bool { return len(r.queue()) == 0 && r.budget.Used() == 0 && r.Status().Queue == 0 })
}

// send hands a message in over SMTP and returns its ID.
func (r *rig) send(from string, content string, to ...string) string {
	r.t.Helper()
	d := r.dial()
	d.say("EHLO client.example", 250)
	id := d.mail("MAIL FROM:<"+from+">", content, to...)
	d.say("QUIT", 221)
	d.end()
	return id
}

// dialog is a plain SMTP client.
type dialog struct {
	t *testing.T
	*wire
}

func (r *rig) dial() *dialog {
	r.t.Helper()
	d := &dialog{r.t, connect(r.t, r.Addr(0).String())}
	d.expect(220)
	return d
}

// say sends a line and returns the reply, which must have the code.
func (d *dialog) say(line string, code int) string {
	d.t.Helper()
	d.send(line + "\r\n")
	return d.expect(code)
}

func (d *dialog) send(text string) {
	d.t.Helper()
	if _, err := d.Write([]byte(text)); err != nil {
		d.t.Fatal(err)
	}
}

// mail sends a message and returns its ID.
func (d *dialog) mail(mail, content string, to ...string) string {
	d.t.Helper()
	d.say(mail, 250)
	for _, rcpt := range to {
		d.say("RCPT TO:<"+rcpt+">", 250)
	}
	d.say("DATA", 354)
	return queued(d.t, d.say(stuff(content)+".", 250))
}

// queued is the ID in a 250.
func queued(t *testing.T, reply string) string {
	t.Helper()
	id, ok := strings.CutPrefix(strings.TrimSpace(reply), "250 2.0.0 Ok: queued as ")
	if !ok {
		t.Fatalf("no ID in %q", reply)
	}
	return id
}

// expect reads a reply.
func (d *dialog) expect(code int) string {
	d.t.Helper()
	var reply strings.Builder
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("want %d, after %q: %v", code, reply.String(), err)
		}
		reply.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if got := reply.String(); !strings.HasPrefix(got, fmt.Sprint(code)) {
		d.t.Fatalf("want %d, got %q", code, got)
	}
	return reply.String()
}

// end expects the other side to close.
func (d *dialog) end() {
	d.t.Helper()
	if rest, err := d.r.ReadString('\n'); err == nil || rest != "" || errors.Is(err, os.ErrDeadlineExceeded) {
		d.t.Fatalf("want the end of the connection, got %q, %v", rest, err)
	}
	d.Close()
}

// stuff makes content fit for DATA.
func stuff(content string) string {
	return strings.TrimPrefix(strings.ReplaceAll("\r\n"+content, "\r\n.", "\r\n.."), "\r\n")
}

// connect opens a connection that gives up with the patience of the test.
func connect(t *testing.T, address string) *wire {
	t.Helper()
	c, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &wire{Conn: c, r: bufio.NewReaderSize(c, 64<<10)}
}
