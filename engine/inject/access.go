package inject

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
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
