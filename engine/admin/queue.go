package admin

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/proto/message"
)

const (
	defaultLimit = 100
	maxLimit     = 10_000
	// maxRecipients bounds a list of messages with very many recipients.
	maxRecipients = 100_000
)

// Filter picks from the queue.
type Filter struct {
	Limit  int             // most messages, 1..10000
	Domain string          // only recipients of this domain, in any case; "" = all
	States []message.State // only recipients in one of these; none = all

	InDoubt bool // only recipients that a delivery may have reached, and that are not settled
}

// Queue is a list of queued messages, as GET /v1/queue answers.
type Queue struct {
	Messages []Message `json:"messages"`
	More     bool      `json:"more"` // there are more than Limit
}

// Message is a queued message.
type Message struct {
	ID         string      `json:"id"`
	Arrived    time.Time   `json:"arrived"`
	Sender     string      `json:"sender"` // "" = null reverse-path
	Size       int64       `json:"size"`   // octets of content
	User       string      `json:"user,omitempty"`
	Tenant     string      `json:"tenant,omitempty"`
	Campaign   string      `json:"campaign,omitempty"`
	Release    time.Time   `json:"release,omitzero"`  // not to be delivered before
	Deadline   time.Time   `json:"deadline,omitzero"` // to be delivered until
	Priority   int         `json:"priority,omitempty"`
	Recipients []Recipient `json:"recipients"`
}

// Recipient is one of its recipients.
type Recipient struct {
	Address  string    `json:"address"`
	State    string    `json:"state"`
	Attempts int       `json:"attempts"`
	Due      time.Time `json:"due,omitzero"`    // of the next attempt
	Reply    string    `json:"reply,omitempty"` // last reply or error
	Doubt    *Doubt    `json:"in_doubt,omitempty"`
}

// List gathers what f picks from a scan. A message is listed with the recipients that f picks, if there are any.
func List(f Filter, scan func(fn func(*message.Message) bool) error) (Queue, error) {
	q := Queue{Messages: []Message{}}
	recipients := 0
	err := scan(func(m *message.Message) bool {
		rs := f.pick(m)
		if len(rs) == 0 {
			return true
		}
		if len(q.Messages) >= f.Limit || recipients+len(rs) > maxRecipients {
			q.More = true
			return false
		}
		recipients += len(rs)
		listed := Message{
			ID: m.ID.String(), Arrived: m.Arrival().UTC(), Sender: m.From, Size: m.Size, Recipients: rs,
			User: m.User, Tenant: m.Tenant, Campaign: m.Campaign,
		}
		if w := m.Wishes; w != nil {
			listed.Release, listed.Deadline, listed.Priority = moment(w.Release), moment(w.Deadline), int(w.Priority)
		}
		q.Messages = append(q.Messages, listed)
		return true
	})
	return q, err
}

// moment is the time of Unix nanoseconds; 0 is none.
func moment(ns int64) (t time.Time) {
	if ns != 0 {
		t = time.Unix(0, ns).UTC()
	}
	return t
}

func (f *Filter) pick(m *message.Message) []Recipient {
	var rs []Recipient
	for i := range m.Recipients {
		r := &m.Recipients[i]
		state := r.State
		if state == message.Pending && r.Reply != "" { // it was deferred, and waits for its site
			state = message.Deferred
		}
		if f.Domain != "" && !strings.EqualFold(r.Domain(), f.Domain) || len(f.States) > 0 && !slices.Contains(f.States, state) {
			continue
		}
		if f.InDoubt && (r.Doubt == nil || r.State.Settled()) {
			continue
		}
		out := Recipient{Address: r.Address, State: state.String(), Attempts: int(r.Attempts), Reply: r.Reply, Doubt: doubtOf(r)}
		if state == r.State && !state.Settled() && !r.Waits() {
			out.Due = moment(r.Due)
		}
		rs = append(rs, out)
	}
	return rs
}

// parseFilter reads a query: limit, domain, state (may be repeated). Anything else is refused, so that a slip does not list everything.
func parseFilter(query url.Values) (Filter, error) {
	f := Filter{Limit: defaultLimit}
	for name, values := range query {
		switch name {
		case "limit":
			n, err := strconv.Atoi(values[0])
			if err != nil || n < 1 || n > maxLimit {
				return f, fmt.Errorf("limit: %q is not a number from 1 to %d", values[0], maxLimit)
			}
			f.Limit = n
		case "domain":
			f.Domain = values[0]
		case "state":
			for _, v := range values {
				s, err := parseState(v)
				if err != nil {
					return f, err
				}
				f.States = append(f.States, s)
			}
		default:
			return f, fmt.Errorf("%q is not a parameter: want limit, domain or state", name)
		}
		if name != "state" && len(values) > 1 {
			return f, fmt.Errorf("%s: given %d times: want it once", name, len(values))
		}
	}
	return f, nil
}

func parseState(name string) (message.State, error) {
	var names []string
	for s := message.Pending; s <= message.Expired; s++ {
		if s.String() == name {
			return s, nil
		}
		names = append(names, s.String())
	}
	return 0, fmt.Errorf("state: %q is not one of %s", name, strings.Join(names, ", "))
}
