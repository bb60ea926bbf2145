package inject

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"mailrace/proto/message"
)

// User is somebody who has proved a name and may inject.
type User struct {
	Name    string
	Tenant  string                               // whose mail it all is; "" = what the requests say
	MaySend func(address []byte) bool            // from an address; nil = from any
	Begin   func(now time.Time) (recipients int) // asks for another request: how many recipients it may have, 0 = none for now
	Spend   func(recipients int, now time.Time)  // counts recipients that were sent to
}

// within says whether an address is in one of the networks.
func within(client netip.Addr, networks []netip.Prefix) bool {
	client = client.Unmap().WithZone("")
	for _, p := range networks {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// ErrCredentials is what Options.Password answers to a wrong name or password.
var ErrCredentials = errors.New("wrong name or password")

// admit finds out who asks. Whoever is in a network that may inject needs no name, but may use one.
func (h *Handler) admit(ctx context.Context, r *http.Request) (*sender, *fault) {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, &fault{status: http.StatusForbidden, text: "the address of the client is not known"}
	}
	by := &sender{client: netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}
	name, password, given := r.BasicAuth()
	switch {
	case given && h.o.Password != nil:
		user, err := h.o.Password(ctx, name, password, by.client.Addr())
		if errors.Is(err, ErrCredentials) {
			h.logRefused(name, by.client.Addr())
			return nil, &fault{status: http.StatusUnauthorized, text: "wrong name or password"}
		}
		if err != nil {
			return nil, &fault{status: http.StatusServiceUnavailable, text: err.Error(), retry: retryLater}
		}
		by.user = user
		return by, nil
	case within(at.Addr(), h.o.From):
		return by, nil
	case h.o.Password != nil:
		return nil, &fault{status: http.StatusUnauthorized, text: "name and password of a user are missing"}
	}
	return nil, &fault{status: http.StatusForbidden, text: fmt.Sprintf("%v may not inject: its network is not in [admin] inject_from", at.Addr().Unmap())}
}

// refusals bound how often refused passwords are logged: clients make them.
type refusals struct {
	mu           sync.Mutex
	until        time.Time
	left, unsaid int
}

// Lines that refusals let pass, in how long.
const (
	refusalLines = 10
	refusalTime  = 10 * time.Second
)

// may says whether to log, and how many were not logged before.
func (r *refusals) may(now time.Time) (ok bool, unsaid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !now.Before(r.until) {
		r.until, r.left = now.Add(refusalTime), refusalLines
	}
	if r.left == 0 {
		r.unsaid++
		return false, 0
	}
	r.left--
	unsaid, r.unsaid = r.unsaid, 0
	return true, unsaid
}

// logRefused tells the operator of a name whose password was not right.
func (h *Handler) logRefused(name string, client netip.Addr) {
	ok, unsaid := h.refusals.may(h.o.Now())
	if !ok {
		return
	}
	attrs := []any{"user", strings.ToValidUTF8(name[:min(len(name), 80)], "?"), "client", client, "mechanism", "HTTP Basic"}
	if unsaid > 0 {
		attrs = append(attrs, "more_since_the_last", unsaid)
	}
	h.o.Log.Info("authentication failed", attrs...)
}

// errQuota: a user has used up what it may send for now.
var errQuota = errors.New("too many messages or recipients of this user, try again later")

// spend counts another message with its recipients.
func (s *sender) spend(recipients int, now time.Time) error {
	if s.user == nil || s.user.Begin == nil {
		return nil
	}
	if s.user.Begin(now) < recipients {
		return errQuota
	}
	s.user.Spend(recipients, now)
	return nil
}

// allow says whether the sender may send the letter, and gives it the tenant of the user.
func (l *letter) allow(by *sender) error {
	u := by.user
	if u == nil {
		return nil
	}
	if u.Tenant != "" {
		if l.tenant != "" && l.tenant != u.Tenant {
			return &Denied{fmt.Sprintf("tenant %s: the mail of user %s is that of tenant %s", excerpt(l.tenant), u.Name, u.Tenant)}
		}
		l.tenant = u.Tenant
	}
	if u.MaySend != nil && !u.MaySend([]byte(l.from)) { // "<>" is one that users must be given, as for SMTP
		return &Denied{fmt.Sprintf("envelope sender %s: not an address of user %s", excerpt(cmp.Or(l.from, "<>")), u.Name)}
	}
	return nil
}

// checkWishes holds what is asked for the delivery to what this node does.
func (h *Handler) checkWishes(w *message.Wishes) error {
	now := h.o.Now().UnixNano()
	switch most := int64(h.o.HoldMax); {
	case w.Release > now+most:
		return fmt.Errorf("options.release: later than in %v, the longest that a message is held here", h.o.HoldMax)
	case w.ByMode != message.ByNone && w.Deadline <= now:
		return errors.New("options.deadline: it has passed")
	case w.ByMode != message.ByNone && w.Release > w.Deadline:
		return errors.New("options.release: it is later than options.deadline")
	}
	w.Priority = min(w.Priority, h.o.PriorityMax)
	return nil
}
