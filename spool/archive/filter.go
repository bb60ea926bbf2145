package archive

import (
	"slices"
	"strings"

	"mailrace/proto/message"
)

// Filter picks messages, as that of the queue does: those that have a recipient which it picks, whole.
type Filter struct {
	Domain string          // of a recipient, in any case; "" = all
	States []message.State // of the same recipient; none = all that are not settled
	Sender string          // reverse-path, in any case; "<>" = the null reverse-path; "" = all
	Tenant string          // "" = all
	Limit  int             // most messages; 0 = all
}

// ParseState reads the name of a recipient's state, as in "deferred".
func ParseState(name string) (message.State, error) { return parseState(name) }

func (f *Filter) picks(m *message.Message) bool {
	if f.Sender != "" && !strings.EqualFold(strings.Trim(f.Sender, "<>"), m.From) || f.Tenant != "" && f.Tenant != m.Tenant {
		return false
	}
	return slices.ContainsFunc(m.Recipients, func(r message.Recipient) bool {
		if f.Domain != "" && !strings.EqualFold(r.Domain(), f.Domain) {
			return false
		}
		if len(f.States) == 0 {
			return !r.State.Settled()
		}
		return slices.Contains(f.States, r.State)
	})
}
