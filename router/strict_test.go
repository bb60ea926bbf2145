package router

import (
	"regexp"
	"testing"
	"time"

	"mailrace/proto/message"
)

// TestStrictWaitsForWhoMayDo: mail that asks for REQUIRETLS comes back when no host does for it, and waits where one could not be asked, also when that was
// found out with mail before it.
func TestStrictWaitsForWhoMayDo(t *testing.T) {
	s := newSim(t, 1, 1, func(o *Options) {
		noJitter(o)
		o.Policed = o.Resolver
	})
	s.mx("a.test", "10 one.test 192.0.2.1", "20 two.test 192.0.2.2")
	s.demand("a.test", byName)
	send := func(address string) {
		m := s.message(address)
		m.Flags |= message.RequireTLS
		s.dispatch(0, m)
	}
	one, two := s.host("192.0.2.1"), s.host("192.0.2.2")
	one.down = true
	send("first@a.test") // from one to two
	s.run(20 * time.Second)
	two.lacks = true
	send("second@a.test") // one is passed over
	s.run(10 * time.Minute)
	one.down, one.lacks = false, true
	send("third@a.test")
	s.finish(3)
	for address, want := range map[string]string{"first@a.test": "delivered", "second@a.test": "deferred deferred bounced", "third@a.test": "deferred bounced"} {
		if got := regexp.MustCompile("@[^ ]+").ReplaceAllString(s.history(address), ""); got != want {
			t.Errorf("%s: %s, want %s", address, s.history(address), want)
		}
	}
	if got := s.log[len(s.log)-1].out.Reply(); got != "550 5.7.30 no REQUIRETLS" {
		t.Error(got)
	}
}
