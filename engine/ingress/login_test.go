package ingress

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mailrace/engine/auth"
)

// hashed are the passwords of the users of a rig: a hash of argon2id that costs next to nothing.
const hashed = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$P3OLBQw3O3GiY9hpX8wpK8qO6gQccIdDXnlkdzKceqU" // "right"

// userRig is a rig at whose door users can log in, in clear, and which knows them.
type userRig struct {
	*rig
	users *auth.Authority
	log   *logLines
}

// logLines is a log that can be read.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// openUsers opens a door for strangers, and for the users given, who need to log in; change may say otherwise.
func openUsers(t *testing.T, users []auth.Entry, change func(d *Door, o *auth.Options)) *userRig {
	t.Helper()
	r := &userRig{log: &logLines{}}
	r.rig = open(t, func(d *Door, _ *shelf) {
		o := auth.Options{File: "users.toml", Read: func(string) ([]auth.Entry, error) { return users, nil }, Cache: time.Minute, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		d.RelayFrom, d.Log = nil, slog.New(slog.NewTextHandler(r.log, nil))
		d.Users = &Users{Required: true}
		d.Clients = NewClients(ClientLimits{Interval: time.Hour}, 100, time.Now())
		if change != nil {
			change(d, &o)
		}
		var err error
		if r.users, err = auth.New(o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.users.Close)
		d.Users.Authority = r.users
		d.SMTP.Auth, d.SMTP.AuthClear = r.users.Mechanisms(true), r.users.Mechanisms(false)
	})
	return r
}

// plain is AUTH PLAIN with an initial response.
func plain(name, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+password))
}

func alice() []auth.Entry {
	return []auth.Entry{
		{Name: "alice", Password: hashed, Tenant: "acme", Senders: []string{"*@acme.example"}},
		{Name: "bob", Password: hashed},
	}
}

// counter is the value of a metric.
func (r *userRig) tries(mechanism, result string) uint64 {
	return r.door.Stats.set.GetOrCreateCounter(fmt.Sprintf("mailrace_ingress_auth_total{mechanism=%q,result=%q}", mechanism, result)).Get()
}

// TestLogin: who has logged in may relay, with what belongs to the user in the message, and who has not may not begin.
func TestLogin(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), nil)
	c := r.greet()
	if got := c.say("MAIL FROM:<a@acme.example>", 530); got != "530 5.7.0 Authentication required\r\n" {
		t.Errorf("%q", got)
	}
	c.say("AUTH LOGIN", 334)
	c.say(base64.StdEncoding.EncodeToString([]byte("Alice")), 334)
	if got := c.say(base64.StdEncoding.EncodeToString([]byte("right")), 235); got != "235 2.7.0 Authentication successful\r\n" {
		t.Errorf("%q", got)
	}
	c.say(plain("alice", "right"), 503)
	for path, code := range map[string]int{"a@acme.example": 250, "a@far.example": 553, "a@x.acme.example": 553, "": 553} {
		c.say("MAIL FROM:<"+path+">", code)
		c.say("RSET", 250)
	}
	c.say("MAIL FROM:<a@acme.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.say("Subject: x\r\n\r\nx\r\n.", 250)
	m := receive(t, r.accepted)
	if m.User != "alice" || m.Tenant != "acme" {
		t.Errorf("user %q, tenant %q", m.User, m.Tenant)
	}
	if !strings.Contains(string(m.Trace), " with ESMTPA id ") {
		t.Errorf("%s", m.Trace)
	}
	c.say("MAIL FROM:<\u00e4@acme.example> SMTPUTF8", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.say("x\r\n.", 250)
	if m := receive(t, r.accepted); !strings.Contains(string(m.Trace), " with UTF8SMTPA id ") {
		t.Errorf("%s", m.Trace)
	}
	c.say("QUIT", 221)
	c.end()
	r.awaitQuiet()
	if r.tries("LOGIN", "ok") != 1 || r.door.Stats.NoUser.Get() != 1 || r.door.Stats.BadSender.Get() != 3 {
		t.Error("the figures do not say so")
	}
	// bob has no list of senders.
	c = r.greet()
	c.say(plain("bob", "right"), 235)
	c.say("MAIL FROM:<>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
}

// TestLoginAtMX: where nobody needs to log in, strangers are strangers.
func TestLoginAtMX(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), func(d *Door, _ *auth.Options) { d.Users.Required = false })
	c := r.greet()
	c.say("MAIL FROM:<a@acme.example>", 250)
	c.say("RCPT TO:<a@far.example>", 550)
	c.say("RSET", 250)
	c.say(plain("alice", "right"), 235)
	c.say("MAIL FROM:<a@acme.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	s := openUsers(t, alice(), func(d *Door, _ *auth.Options) { d.RelayFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	c = s.greet() // may relay, and needs no user
	c.say("MAIL FROM:<a@acme.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
}

// TestA6ThreeTries: a session fails three times and ends, with the same words for a user that there is and one that there is not, and for what
// is no response at all.
func TestA6ThreeTries(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), nil)
	c := r.greet()
	var said []string
	for _, line := range []string{plain("alice", "wrong"), plain("nobody", "right"), "AUTH PLAIN YWJj"} {
		said = append(said, c.say(line, 535))
	}
	if said[0] != "535 5.7.8 Authentication credentials invalid\r\n" || said[1] != said[0] || said[2] != said[0] {
		t.Errorf("%q", said)
	}
	if got := c.expect(421); got != "421 4.7.0 Too many failed authentications\r\n" {
		t.Errorf("%q", got)
	}
	c.end()
	r.awaitQuiet()
	if n := r.tries("PLAIN", "refused"); n != 3 {
		t.Errorf("%d tries counted", n)
	}
	if !strings.Contains(r.log.String(), `user=alice client=127.0.0.1 mechanism=PLAIN`) {
		t.Errorf("%s", r.log)
	}
	// What a client says does not break the log (I10).
	c = r.greet()
	c.say(plain("x\r\nlevel=ERROR \x1b[2J\xff"+strings.Repeat("y", 1000), "p"), 535)
	if text := r.log.String(); strings.Count(text, "\n") != 4 || !strings.Contains(text, `user="x\r\nlevel=ERROR \x1b[2J?yyy`) || strings.Contains(text, strings.Repeat("y", 80)) {
		t.Errorf("%s", text)
	}
	// The limit of errors may be lower.
	r = openUsers(t, alice(), func(d *Door, _ *auth.Options) { d.SMTP.MaxErrors = 1 })
	c = r.greet()
	c.say(plain("alice", "wrong"), 535)
	c.expect(421)
	c.end()
}

// TestA6BruteForce: a hundred wrong passwords from an address cost ten hashes: the address is refused beyond that, in all its sessions.
func TestA6BruteForce(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), func(d *Door, o *auth.Options) {
		d.Clients = NewClients(ClientLimits{Client: Quota{AuthFailures: 10}, Interval: time.Hour}, 100, time.Now())
		o.Failures = 50
	})
	refused, turnedAway := 0, 0
	for i := 0; i < 100; {
		c := r.greet()
		for range 3 {
			i++
			c.send(plain("alice", fmt.Sprint("guess", i)) + "\r\n")
			reply, err := c.reply()
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(reply, "421 4.7.0 ") {
				turnedAway++
				break
			}
			if !strings.HasPrefix(reply, "535 5.7.8 ") {
				t.Fatalf("%q", reply)
			}
			refused++
		}
		c.Close()
	}
	if refused != 10 || turnedAway != 90 || r.users.Hashes() != 10 {
		t.Errorf("%d refused, %d turned away, %d hashes", refused, turnedAway, r.users.Hashes())
	}
	if n := strings.Count(r.log.String(), "authentication failed"); n != 10 {
		t.Errorf("%d lines of log", n)
	}
	c := r.greet()
	c.say(plain("alice", "right"), 421)
	c.end()
}

// TestA6ManyConnections: a client that logs in over very many connections costs one hash.
func TestA6ManyConnections(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), nil)
	var clients []*client
	for range 1000 {
		c := r.connect()
		c.send("EHLO c.example\r\n" + plain("alice", "right") + "\r\nMAIL FROM:<a@acme.example>\r\n")
		clients = append(clients, c)
	}
	for _, c := range clients {
		for _, code := range []int{220, 250, 235, 250} {
			c.expect(code)
		}
		c.Close()
	}
	r.awaitQuiet()
	if n := r.users.Hashes(); n != 1 {
		t.Errorf("%d hashes", n)
	}
}

// TestA6Delay: the answer to a failed try waits for its time, the session does nothing meanwhile, and may go away.
func TestA6Delay(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), func(d *Door, _ *auth.Options) { d.Users.Delay = 300 * time.Millisecond })
	c := r.greet()
	begin := time.Now()
	c.send(plain("alice", "wrong") + "\r\nNOOP\r\n")
	c.expect(535)
	c.expect(250)
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("after %v", d)
	}
	begin = time.Now()
	c.say(plain("alice", "wrong"), 535)
	if d := time.Since(begin); d < 600*time.Millisecond {
		t.Errorf("after %v", d)
	}
	c.say(plain("alice", "right"), 235)
	gone := r.greet()
	gone.send(plain("alice", "wrong") + "\r\n")
	r.await("the failed try", func() bool { return r.tries("PLAIN", "refused") == 3 })
	gone.Close()
	c.Close()
	r.awaitQuiet()
	c = r.greet() // a drain does not wait
	c.send(plain("alice", "wrong") + "\r\n")
	r.await("the failed try", func() bool { return r.tries("PLAIN", "refused") == 4 })
	l := r.group.Loops()[0]
	l.Post(func() { r.door.Drain(l) })
	c.expect(421)
	c.end()
}

// TestLoginLater: what cannot be told now is no failure.
func TestLoginLater(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), func(_ *Door, o *auth.Options) { o.Failures = 1 })
	c := r.greet()
	c.say(plain("alice", "wrong"), 535)
	for range 5 {
		if got := c.say(plain("alice", "wrong"), 454); got != "454 4.7.0 Temporary authentication failure, try again later\r\n" {
			t.Errorf("%q", got)
		}
	}
	c.say(plain("bob", "right"), 235)
	if r.tries("PLAIN", "locked") != 5 {
		t.Error("not counted")
	}
}

// TestUserLimits: messages, recipients and connections of a user, wherever they come from.
func TestUserLimits(t *testing.T) {
	t.Parallel()
	users := []auth.Entry{{Name: "a", Password: hashed, Messages: 2, Connections: 2}, {Name: "b", Password: hashed, Recipients: 3}}
	r := openUsers(t, users, nil)
	one, two, three := r.greet(), r.greet(), r.greet()
	one.say(plain("a", "right"), 235)
	two.say(plain("a", "right"), 235)
	if got := three.say(plain("a", "right"), 421); got != "421 4.7.0 Too many connections of this user, try again later\r\n" {
		t.Errorf("%q", got)
	}
	three.end()
	one.say("MAIL FROM:<a@b.example>", 250)
	two.say("MAIL FROM:<a@b.example>", 250)
	two.say("RSET", 250)
	if got := two.say("MAIL FROM:<a@b.example>", 450); got != "450 4.7.1 You have sent as many messages as you may in an hour, try again later\r\n" {
		t.Errorf("%q", got)
	}
	two.say("QUIT", 221)
	two.end()
	r.await("its end", func() bool { return r.sessions() == 1 })
	c := r.greet()
	c.say(plain("a", "right"), 235)
	c.say("MAIL FROM:<a@b.example>", 450)

	c = r.greet()
	c.say(plain("b", "right"), 235)
	c.say("MAIL FROM:<a@b.example>", 250)
	for i := range 5 {
		code := 250
		if i >= 3 {
			code = 452
		}
		c.say("RCPT TO:<a@far.example>", code)
	}
	c.say("RSET", 250)
	if got := c.say("MAIL FROM:<a@b.example>", 452); got != "452 4.5.3 You have sent to as many recipients as you may in an hour, try again later\r\n" {
		t.Errorf("%q", got)
	}
	for why, want := range map[verdict]uint64{userConnections: 1, userMessages: 2, userRecipients: 3} {
		if n := r.door.Stats.Quota[why].Get(); n != want {
			t.Errorf("%s: %d", why, n)
		}
	}
}

func touch(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestUserGoesAway: a session learns at its next message that its user is gone.
func TestUserGoesAway(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	users, file := alice(), t.TempDir()+"/users.toml"
	touch(t, file, "1")
	r := openUsers(t, nil, func(_ *Door, o *auth.Options) {
		o.File = file
		o.Read = func(string) ([]auth.Entry, error) {
			mu.Lock()
			defer mu.Unlock()
			return users, nil
		}
	})
	a, b := r.greet(), r.greet()
	a.say(plain("alice", "right"), 235)
	b.say(plain("bob", "right"), 235)
	mu.Lock()
	users = []auth.Entry{{Name: "alice", Password: hashed, Senders: []string{"*@new.example"}}}
	mu.Unlock()
	touch(t, file, "22")
	r.await("the new users", func() bool { return r.users.Find("bob") == nil })
	a.say("MAIL FROM:<a@acme.example>", 553)
	a.say("MAIL FROM:<a@new.example>", 250)
	if got := b.say("MAIL FROM:<b@b.example>", 421); got != "421 4.7.0 Your user has changed, connect again\r\n" {
		t.Errorf("%q", got)
	}
	b.end()
}

// TestTokenExpires: a session lasts no longer than the token that began it.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	expires := time.Now().Add(time.Hour)
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"active":true,"email":"alice@acme.example","exp":%d}`, expires.Unix())
	}))
	t.Cleanup(idp.Close)
	r := openUsers(t, alice(), func(_ *Door, o *auth.Options) { o.OAuth = &auth.OAuth{Introspection: idp.URL} })
	c := r.greet()
	c.say("AUTH XOAUTH2 "+base64.StdEncoding.EncodeToString([]byte("user=alice@acme.example\x01auth=Bearer t\x01\x01")), 235)
	c.say("MAIL FROM:<other@acme.example>", 553)
	c.say("MAIL FROM:<alice@acme.example>", 250)
	c.say("RSET", 250)
	l := r.group.Loops()[0]
	l.Post(func() {
		for s := range r.door.rooms[0].sessions {
			s.login.until = time.Now().Add(-time.Second)
		}
	})
	r.barrier()
	if got := c.say("MAIL FROM:<alice@acme.example>", 421); got != "421 4.7.0 Your token has expired, connect again with another\r\n" {
		t.Errorf("%q", got)
	}
	c.end()
}

// TestXClientLoginAtDoor: who speaks for others may say as whom they have logged in.
func TestXClientLoginAtDoor(t *testing.T) {
	t.Parallel()
	r := openUsers(t, alice(), func(d *Door, _ *auth.Options) { d.XClientFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	c := r.greet()
	if got := c.say("XCLIENT ADDR=192.0.2.1 LOGIN=nobody", 550); got != "550 5.7.0 LOGIN: no such user here\r\n" {
		t.Errorf("%q", got)
	}
	c.say("XCLIENT ADDR=192.0.2.1 LOGIN=ALICE", 220)
	c.say("EHLO c.example", 250)
	c.say("MAIL FROM:<a@acme.example>", 250)
	c.say("RCPT TO:<a@far.example>", 250)
	c.say("DATA", 354)
	c.say("x\r\n.", 250)
	if m := receive(t, r.accepted); m.User != "alice" || m.Client != "192.0.2.1" {
		t.Errorf("user %q, client %q", m.User, m.Client)
	}
	c.say("XCLIENT PORT=7", 220) // nobody
	c.say("EHLO c.example", 250)
	c.say("MAIL FROM:<a@acme.example>", 530)
	c.say("XCLIENT LOGIN=bob", 220)
	c.say("EHLO c.example", 250)
	c.say("MAIL FROM:<a@any.example>", 250)
	c.Close()
	r.awaitQuiet()
	if r.users.Find("bob").Connections != 0 {
		t.Error("limits of bob")
	}
}
