// Package auth knows who may send: users in a file, with the hashes of their passwords, and users whom an OAuth server vouches for. It speaks
// the mechanisms of SASL (RFC 4422) as a server: PLAIN, LOGIN, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, XOAUTH2 and OAUTHBEARER.
//
// A session asks Begin for an Exchange and gives it one response after another. What takes long (hashes, requests to the OAuth server) is done
// by workers, of which there are few, behind a queue that is bounded; the session is told when it is done. The right password of a user costs
// one hash in a few minutes, however many connections come with it, and a wrong one costs a hash only as long as there were not too many.
//
// A name that is not there, and a password that is not right, make no difference to who tries: neither in the answer nor in its time.
package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// What becomes of a try, if it is not a success.
var (
	// ErrCredentials: the name, the password, the proof or the token is not right, or not well-formed.
	ErrCredentials = errors.New("credentials are not right")
	// ErrLocked: the name has failed too often of late; nothing was looked at.
	ErrLocked = errors.New("too many failures of this user")
	// ErrBusy: too many wait for a worker already.
	ErrBusy = errors.New("too many passwords to check")
	// ErrUnavailable: the OAuth server cannot be asked.
	ErrUnavailable = errors.New("the OAuth server does not answer as it should")
)

// Options are what an Authority is made of. Zero numbers mean the defaults.
type Options struct {
	File  string                             // of users; "" = none
	Read  func(file string) ([]Entry, error) // reads it; may be called by any goroutine
	OAuth *OAuth                             // nil = none

	Mechanisms    []string      // that are served, in the order of preference, as in All; empty = all that can be
	Workers       int           // hashes at a time; default: one per core
	Queue         int           // tries that may wait for a worker; default 256
	Cache         time.Duration // how long the right password of a user costs no hash; 0 = always one
	Failures      int           // of a user in FailureWindow; further tries are refused unlooked at. 0 = any number
	FailureWindow time.Duration // default 10 minutes

	Metrics *metrics.Set     // nil = one of its own
	Log     *slog.Logger     // nil = slog.Default()
	Now     func() time.Time // nil = time.Now
}

// Bounds of what is kept, in entries.
const (
	cacheMax    = 1 << 16
	accountsMin = 1 << 10 // accounts are looked through for idle ones from here on
	tokenChecks = 32      // requests to the OAuth server at a time
	lookEvery   = time.Second
)

// Authority knows the users. All its methods may be called by any goroutine.
type Authority struct {
	o      Options
	log    *slog.Logger
	now    func() time.Time
	nonce  func() string // of SCRAM
	table  atomic.Pointer[table]
	hashes *pool
	tokens *pool
	guard  *guard
	cache  *memo[*User]
	bearer *bearer // nil without OAuth
	stats  stats

	mu       sync.Mutex
	accounts map[string]*account // by folded name
	sweepAt  int
	stamp    stamp // of the file, when it was last read

	closing atomic.Bool // nothing is hashed any more
	cancel  context.CancelFunc
	watch   sync.WaitGroup
}

type stats struct{ hashes, cached *metrics.Counter }

// stamp tells versions of the users file apart.
type stamp struct {
	modified int64 // Unix nanoseconds
	size     int64
	info     os.FileInfo
}

func (s stamp) same(t stamp) bool {
	return s.modified == t.modified && s.size == t.size && (s.info == nil) == (t.info == nil) && (s.info == nil || os.SameFile(s.info, t.info))
}

func stampOf(file string) stamp {
	info, err := os.Stat(file)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime().UnixNano(), info.Size(), info}
}

// New reads the users and starts the workers. Close must be called at the end.
func New(o Options) (_ *Authority, err error) {
	if o.Metrics == nil {
		o.Metrics = metrics.NewSet()
	}
	a := &Authority{
		o: o, log: o.Log, now: o.Now, nonce: newNonce, accounts: map[string]*account{}, sweepAt: accountsMin,
		guard: newGuard(o.Failures, cmp.Or(o.FailureWindow, 10*time.Minute)), cache: newMemo[*User](cacheMax),
		stats: stats{o.Metrics.NewCounter("mailrace_auth_hashes_total"), o.Metrics.NewCounter("mailrace_auth_cache_hits_total")},
	}
	if a.log == nil {
		a.log = slog.Default()
	}
	if a.now == nil {
		a.now = time.Now
	}
	if len(a.o.Mechanisms) == 0 {
		a.o.Mechanisms = Possible(o.File != "", o.OAuth != nil)
	}
	if err = a.read(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	if o.OAuth != nil {
		if a.bearer, err = newBearer(ctx, o.OAuth, a.log); err != nil {
			cancel()
			return nil, err
		}
		a.tokens = newPool(tokenChecks, cmp.Or(o.Queue, 256))
	}
	a.hashes = newPool(cmp.Or(o.Workers, runtime.GOMAXPROCS(0)), cmp.Or(o.Queue, 256))
	o.Metrics.NewGauge("mailrace_auth_users", func() float64 { return float64(len(a.table.Load().list)) })
	if o.File != "" {
		a.watch.Go(func() { a.look(ctx) })
	}
	return a, nil
}

// Close ends the workers. What waits for them is answered: not now.
func (a *Authority) Close() {
	a.closing.Store(true)
	a.cancel()
	a.watch.Wait()
	a.hashes.close()
	if a.tokens != nil {
		a.tokens.close()
	}
}

// read takes the users file into use.
func (a *Authority) read() error {
	var entries []Entry
	if a.o.File != "" {
		a.stamp = stampOf(a.o.File) // before it is read: what is written meanwhile is read again
		var err error
		if entries, err = a.o.Read(a.o.File); err != nil {
			return err
		}
	}
	t, err := newTable(entries, a.account)
	if err != nil {
		return fmt.Errorf("%s: %w", a.o.File, err)
	}
	a.table.Store(t)
	a.cache.clear()
	a.sweep()
	if info := a.stamp.info; info != nil && info.Mode().Perm()&0o077 != 0 {
		a.log.Warn("the file of users is open to others: want mode 0600", "file", a.o.File, "mode", info.Mode().Perm())
	}
	if n := len(t.list) - len(t.verifiers); n > 0 && a.serves(scramName) {
		for _, e := range t.list {
			if e.scram == nil {
				a.log.Warn("users without a SCRAM verifier cannot use that mechanism, which clients prefer: give them a password anew, or leave SCRAM out of mechanisms",
					"file", a.o.File, "users", n, "one", e.Name)
				break
			}
		}
	}
	return nil
}

// look reads the file again whenever it has changed. One that is no good leaves the users in use.
func (a *Authority) look(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.Look()
		}
	}
}

// Look reads the users file again if it has changed. It happens every second by itself. One goroutine at a time.
func (a *Authority) Look() {
	if stampOf(a.o.File).same(a.stamp) {
		return
	}
	if err := a.read(); err != nil {
		a.log.Error("keeping the users in use: the new file is no good", "error", err)
		return
	}
	a.log.Info("users have changed and were read again", "file", a.o.File, "users", len(a.table.Load().list))
}

// account is what a name has spent so far.
func (a *Authority) account(name string) *account {
	name = fold(name)
	a.mu.Lock()
	defer a.mu.Unlock()
	is := a.accounts[name]
	if is == nil {
		is = new(account)
		a.accounts[name] = is
	}
	return is
}

// sweep forgets idle accounts of users that are not in the file.
func (a *Authority) sweep() {
	now, t := a.now(), a.table.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, is := range a.accounts {
		if t.users[name] == nil && is.idle(now) {
			delete(a.accounts, name)
		}
	}
	a.sweepAt = max(accountsMin, 2*len(a.accounts))
}

// vouched is the user whom a token names: one of the file, or else anybody whose name is an address, who may send with that.
func (a *Authority) vouched(name string) *User {
	t := a.table.Load()
	if e := t.find(name); e != nil {
		return e.user
	}
	if CheckName(name) != nil || CheckSender(name) != nil || name == "<>" || strings.Contains(name, "*") {
		return nil
	}
	senders, err := NewSenders([]string{name})
	if err != nil {
		return nil
	}
	a.mu.Lock()
	full := len(a.accounts) >= a.sweepAt
	a.mu.Unlock()
	if full {
		a.sweep()
	}
	return &User{Name: name, Senders: senders, table: t, account: a.account(name)}
}

// Find returns the user of a name that somebody trusted has authenticated, or nil.
func (a *Authority) Find(name string) *User {
	if e := a.table.Load().find(name); e != nil {
		return e.user
	}
	return nil
}

// Current is what the users file says of a user by now: the same User as long as it has not changed, and nil when the user is gone or has got
// another password. It takes one atomic load as long as nothing has changed.
func (a *Authority) Current(u *User) *User {
	t := a.table.Load()
	if u.table == t {
		return u
	}
	e := t.find(u.Name)
	switch {
	case u.entry == nil && e == nil: // vouched for by a token
		return u
	case e == nil, u.entry != nil && u.entry.secret != e.secret:
		return nil
	}
	return e.user
}

// Password finds out whose password it is, for somebody at an address, which may be invalid. It waits for a worker: not for event loops. Its
// errors are those of this package and of ctx.
func (a *Authority) Password(ctx context.Context, name, password string, at netip.Addr) (*User, error) {
	type answer struct {
		user *User
		err  error
	}
	done := make(chan answer, 1)
	user, err, waits := a.check(name, password, at, func(u *User, err error) { done <- answer{u, err} })
	if !waits {
		return user, err
	}
	select {
	case got := <-done:
		return got.user, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// check finds out whose password it is, for somebody at an address. If it waits, later is called once, by a worker.
func (a *Authority) check(name, password string, at netip.Addr, later func(*User, error)) (user *User, err error, waits bool) {
	now := a.now()
	if CheckName(name) != nil || password == "" || len(password) > passwordMax {
		return nil, ErrCredentials, false
	}
	t := a.table.Load()
	key := t.proof(name, password)
	if user, ok := a.cache.get(key, now); ok {
		a.stats.cached.Inc()
		a.guard.right(name, at, now)
		return user, nil, false
	}
	if a.guard.blocks(name, at, now) {
		return nil, ErrLocked, false
	}
	first := a.cache.join(key, func(user *User, err error) {
		a.judged(name, at, err)
		later(user, err)
	})
	if first && !a.hashes.try(func() { a.hash(t, key, name, password) }) {
		a.cache.settle(key, nil, ErrBusy, now, now)
	}
	return nil, nil, true
}

// judged counts how a try has ended.
func (a *Authority) judged(name string, at netip.Addr, err error) {
	switch now := a.now(); {
	case err == nil:
		a.guard.right(name, at, now)
	case errors.Is(err, ErrCredentials):
		a.guard.failed(name, now)
	}
}

// hash checks a password, on a worker.
func (a *Authority) hash(t *table, key memoKey, name, password string) {
	if now := a.now(); a.closing.Load() {
		a.cache.settle(key, nil, ErrBusy, now, now)
		return
	}
	e, h := t.find(name), hash(nil)
	if e != nil {
		h = e.hash
	} else {
		h = t.stranger(name)
	}
	a.stats.hashes.Inc()
	user, err := (*User)(nil), ErrCredentials
	if fits := h.fits(password); fits && e != nil {
		user, err = e.user, nil
	}
	now := a.now()
	a.cache.settle(key, user, err, now, now.Add(a.o.Cache))
}

// Hashes is how many passwords were hashed.
func (a *Authority) Hashes() uint64 { return a.stats.hashes.Get() }
