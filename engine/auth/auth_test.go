package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

func TestPasswords(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), nil)
	for _, test := range []struct {
		name, password string
		user           string // "" = refused
	}{
		{"alice@example.com", "right", "alice@example.com"},
		{"Alice@Example.COM", "right", "alice@example.com"},
		{"alice@example.com", "Right", ""},
		{"alice@example.com", "", ""},
		{"bob", "crypted", "bob"},
		{"bob", "cryptec", ""},
		{"user", "pencil", "user"},
		{"user", "pencil ", ""},
		{"nobody", "right", ""},
		{"", "right", ""},
		{"a\x00b", "right", ""},
		{"alice@example.com", string(make([]byte, passwordMax+1)), ""},
	} {
		u, err := r.Password(t.Context(), test.name, test.password, home1)
		switch {
		case test.user == "" && !errors.Is(err, ErrCredentials):
			t.Errorf("%q, %.20q: %v, %v", test.name, test.password, u, err)
		case test.user != "" && (err != nil || u.Name != test.user):
			t.Errorf("%q, %.20q: %v, %v", test.name, test.password, u, err)
		}
	}
	if u := r.Find("ALICE@example.com"); u == nil || u.Tenant != "acme" || !u.Senders.Allow("x@example.com") || u.Senders.Allow("x@example.net") {
		t.Errorf("%+v", u)
	}
	if r.Find("nobody") != nil {
		t.Error("nobody was found")
	}
}

// TestA6OneHash: a thousand tries with a right password cost one hash, side by side and later; and one more when the cache has forgotten it.
func TestA6OneHash(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), nil)
	done := make(chan Answer, 1000)
	for range 1000 {
		if u, err, waits := r.check("alice@example.com", "right", home1, func(u *User, err error) { done <- Answer{User: u, Err: err} }); !waits {
			done <- Answer{User: u, Err: err}
		}
	}
	for range 1000 {
		if a := r.await(done); a.Err != nil || a.User.Name != "alice@example.com" {
			t.Fatal(a)
		}
	}
	if n := r.Hashes(); n != 1 {
		t.Errorf("%d hashes", n)
	}
	r.clock.pass(5*time.Minute - time.Second)
	if _, err := r.try("alice@example.com", "right", home1); err != nil || r.Hashes() != 1 {
		t.Errorf("%v, %d hashes", err, r.Hashes())
	}
	r.clock.pass(time.Second)
	if _, err := r.try("alice@example.com", "right", home1); err != nil || r.Hashes() != 2 {
		t.Errorf("%v, %d hashes", err, r.Hashes())
	}
	r.users[0].Tenant = "other"
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	if u, err := r.try("alice@example.com", "right", home1); err != nil || u.Tenant != "other" || r.Hashes() != 3 {
		t.Errorf("%v, %v, %d hashes after a change of the file", u, err, r.Hashes())
	}
}

// TestA6PasswordsFromElsewhere: who was right over HTTP opens no way for others to guess there, neither from another address nor from none.
func TestA6PasswordsFromElsewhere(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), func(o *Options) { o.Failures, o.Cache = 3, 0 })
	password := func(word string, at netip.Addr) error {
		_, err := r.Password(t.Context(), "alice@example.com", word, at)
		return err
	}
	for _, at := range []netip.Addr{home1, {}} {
		if err := password("right", at); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []error{ErrCredentials, ErrCredentials, ErrCredentials, ErrLocked, ErrLocked} {
		if err := password(fmt.Sprint("guess", i), home2); err != want {
			t.Errorf("guess %d: %v, want %v", i, err, want)
		}
	}
	if err := password("right", netip.Addr{}); err != ErrLocked {
		t.Errorf("from nowhere: %v", err)
	}
	if err := password("right", home1); err != nil {
		t.Errorf("at home: %v", err)
	}
}

// TestA6BoundedHashes: a hundred wrong passwords of a user cost as many hashes as failures are allowed, from wherever they come. Its owner gets in
// all the same, from where the owner was before; and a name that is not there is treated alike.
func TestA6BoundedHashes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"alice@example.com", "nobody@example.com"} {
		r := open(t, somebody(), func(o *Options) { o.Failures, o.FailureWindow, o.Cache = 20, 10*time.Minute, 0 })
		if _, err := r.try("alice@example.com", "right", home1); err != nil {
			t.Fatal(err)
		}
		before, refused, locked := r.Hashes(), 0, 0
		for i := range 100 {
			at := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			switch _, err := r.try(name, fmt.Sprint("guess", i), at); err {
			case ErrCredentials:
				refused++
			case ErrLocked:
				locked++
			default:
				t.Fatal(err)
			}
		}
		if n := r.Hashes() - before; n != 20 || refused != 20 || locked != 80 {
			t.Errorf("%s: %d hashes, %d refused, %d locked", name, n, refused, locked)
		}
		if name != "alice@example.com" {
			continue
		}
		if _, err := r.try(name, "right", home2); err != ErrLocked {
			t.Errorf("from elsewhere: %v", err)
		}
		if _, err := r.try(name, "right", home1); err != nil {
			t.Errorf("at home: %v", err)
		}
		r.clock.pass(20 * time.Minute)
		if _, err := r.try(name, "right", home2); err != nil {
			t.Errorf("later: %v", err)
		}
	}
}

// slow is a hash that waits for the test.
type slow chan bool

func (s slow) fits(string) bool { return <-s }

// TestBusy: what cannot be queued is refused for now, and what waits is answered at the end.
func TestBusy(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), func(o *Options) { o.Workers, o.Queue = 1, 2 })
	s := make(slow)
	r.table.Load().users["bob"].hash = s
	done := make(chan Answer, 10)
	ask := func(password string) {
		if _, _, waits := r.check("bob", password, home1, func(u *User, err error) { done <- Answer{User: u, Err: err} }); !waits {
			t.Fatalf("%s did not wait", password)
		}
	}
	ask("one")
	taken := func() bool {
		r.hashes.mu.Lock()
		defer r.hashes.mu.Unlock()
		return len(r.hashes.queue) == 0
	}
	for !taken() {
		runtime.Gosched()
	}
	ask("two")
	ask("three")
	ask("four")
	if a := r.await(done); a.Err != ErrBusy {
		t.Errorf("%+v", a)
	}
	s <- true
	s <- false
	s <- true
	for range 3 {
		if a := r.await(done); a.Err != nil && a.Err != ErrCredentials {
			t.Errorf("%+v", a)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Password(ctx, "bob", "five", home1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s <- false
}

// TestReload: a changed file is taken into use, a bad one is not, and sessions learn what has become of their users.
func TestReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "users.toml")
	write := func(text string) {
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("1")
	broken := false
	users := somebody()
	r := open(t, nil, func(o *Options) {
		o.File = file
		o.Read = func(string) ([]Entry, error) {
			if broken {
				return nil, errors.New("users.toml:1:1: no good")
			}
			return users, nil
		}
	})
	r.cancel() // the test looks by itself
	r.watch.Wait()
	alice, bob := r.Find("alice@example.com"), r.Find("bob")
	if !alice.Enter() || r.Current(alice) != alice {
		t.Fatal("nothing has changed")
	}
	users = []Entry{users[0], {Name: "bob", Password: cheap("new")}}
	users[0].Connections, users[0].Tenant = 1, "new"
	r.Look()
	if r.Current(alice) != alice {
		t.Error("the file was read though it has not changed")
	}
	write("22")
	broken = true
	r.Look()
	if r.Current(alice) != alice {
		t.Error("a bad file was taken into use")
	}
	broken = false
	write("333")
	r.Look()
	now := r.Current(alice)
	if now == alice || now.Tenant != "new" || now.Enter() {
		t.Errorf("%+v, or its connection is not counted any more", now)
	}
	if r.Current(bob) != nil {
		t.Error("a session with an old password goes on")
	}
	users = users[:1]
	write("4444")
	r.Look()
	if r.Current(alice) == nil || r.Find("bob") != nil {
		t.Error("bob is there")
	}
	users = nil
	write("55555")
	r.Look()
	if r.Current(alice) != nil {
		t.Error("alice is there")
	}
	if len(r.accounts) != 1 {
		t.Errorf("%d accounts are kept; one has a connection", len(r.accounts))
	}
}

func TestBadUsers(t *testing.T) {
	t.Parallel()
	for name, users := range map[string][]Entry{
		"twice":   {{Name: "a", Password: cheap("x")}, {Name: "A", Password: cheap("x")}},
		"nothing": {{Name: "a"}},
		"no hash": {{Name: "a", Password: "secret"}},
		"name":    {{Name: "a b", Password: cheap("x")}},
		"sender":  {{Name: "a", Password: cheap("x"), Senders: []string{"@"}}},
		"scram":   {{Name: "a", SCRAM: "SCRAM-SHA-256$1:a$b:c"}},
	} {
		if a, err := New(Options{File: "f", Read: func(string) ([]Entry, error) { return users, nil }}); err == nil {
			a.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
