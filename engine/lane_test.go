package engine

import (
	"testing"

	"mailrace/proto/message"
)

// TestRemovalNamesNotes names the notes about recipients wherever there are any: what is not named stays in the spool.
func TestRemovalNamesNotes(t *testing.T) {
	for name, c := range map[string]struct {
		recipients []message.Recipient
		want       int
	}{
		"delivered at once":           {[]message.Recipient{{Attempts: 1}}, 0},
		"deferred, then delivered":    {[]message.Recipient{{Attempts: 2, Due: 1}}, 1},
		"deferred without an attempt": {[]message.Recipient{{Attempts: 1, Due: 1}}, 1},
		"late, then delivered":        {[]message.Recipient{{Attempts: 1, Late: true}}, 1},
		"several":                     {[]message.Recipient{{Attempts: 1}, {Attempts: 1}}, 2},
	} {
		m := &message.Message{ID: 7, Chunks: 3, Recipients: c.recipients}
		if r := removal(m); r.ID != 7 || r.Chunks != 3 || r.Recipients != c.want {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
