package auth

import (
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// patience is how long a test waits for an event before it fails. It is no measure of speed.
const patience = 30 * time.Second

// cheap makes a hash that costs next to nothing.
func cheap(password string) string {
	h := argonHash{memory: 8, time: 1, threads: 1, salt: []byte("salt of " + password + "...")}
	h.key = h.derive(password, 32)
	return h.String()
}

// crypted makes a hash of bcrypt.
func crypted(password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return "$2y" + string(h[3:])
}

// pencil is the verifier of RFC 7677 §3.
const pencil = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// rig is an Authority with users that the test can change.
type rig struct {
	*Authority
	t     *testing.T
	clock *clock
	users []Entry
}

var (
	home1 = netip.MustParseAddr("192.0.2.1")
	home2 = netip.MustParseAddr("192.0.2.2")
)

// open makes an Authority of users; change may set options.
func open(t *testing.T, users []Entry, change func(o *Options)) *rig {
	t.Helper()
	r := &rig{t: t, clock: &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}, users: users}
	o := Options{
		File: "users.toml", Read: func(string) ([]Entry, error) { return r.users, nil }, Cache: 5 * time.Minute, Workers: 2,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: r.clock.Now,
	}
	if change != nil {
		change(&o)
	}
	var err error
	if r.Authority, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// somebody are two users with passwords, and one with SCRAM alone.
func somebody() []Entry {
	return []Entry{
		{Name: "alice@example.com", Password: cheap("right"), Senders: []string{"*@example.com"}, Tenant: "acme"},
		{Name: "bob", Password: crypted("crypted")},
		{Name: "user", SCRAM: pencil},
	}
}

// try checks a password and waits for the answer.
func (r *rig) try(name, password string, at netip.Addr) (*User, error) {
	r.t.Helper()
	done := make(chan Answer, 1)
	u, err, waits := r.check(name, password, at, func(u *User, err error) { done <- Answer{User: u, Err: err} })
	if !waits {
		return u, err
	}
	a := r.await(done)
	return a.User, a.Err
}

func (r *rig) await(done <-chan Answer) Answer {
	r.t.Helper()
	select {
	case a := <-done:
		return a
	case <-time.After(patience):
		r.t.Fatal("waited in vain")
		panic("not reached")
	}
}

// step gives a response and waits for the answer.
func (r *rig) step(x *Exchange, response []byte) Answer {
	r.t.Helper()
	done := make(chan Answer, 1)
	a, waits := x.Step(response, func(a Answer) { done <- a })
	if waits {
		return r.await(done)
	}
	return a
}
