package engine

import (
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// TestPolicies: mail for one domain, and of one route, is tried by its own schedule and returned after its own lifetime; other mail is not touched by that.
func TestPolicies(t *testing.T) {
	t.Parallel()
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:<slow") {
			return "451 4.3.0 not today"
		}
		return ""
	}))
	named := f.route("routed.example")
	named.Name = "bulk"
	c := settings(t, f.route("*"), named)
	c.DSN.Gather = 0
	c.Queue.RetryMin, c.Queue.RetryMax, c.Queue.Expire = time.Hour, time.Hour, 24*time.Hour
	c.Policies = []config.Policy{
		{Domains: []string{"*.far.example"}, Retry: []time.Duration{10 * time.Millisecond, 30 * time.Millisecond}, Expire: 300 * time.Millisecond},
		{Routes: []string{"bulk"}, RetryMin: 10 * time.Millisecond, RetryMax: 10 * time.Millisecond, Expire: 200 * time.Millisecond},
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	r := start(t, c)
	r.send("s@sender.example", hello, "slow1@a.far.example", "slow2@far.example", "slow3@routed.example")
	for range 2 {
		d := parseReport(t, f.next())
		for _, rcpt := range d.recipients {
			if to := rcpt.Get("Final-Recipient"); strings.Contains(to, "slow2") || rcpt.Get("Action") != "failed" {
				t.Errorf("%v", rcpt)
			}
		}
	}
	for _, address := range []string{"slow1@a.far.example", "slow3@routed.example"} {
		if e := r.record("expiry", address, 1); e.Attempt < 3 {
			t.Errorf("%+v", e)
		}
	}
	if e := r.record("deferral", "slow2@far.example", 1); e.Attempt != 1 {
		t.Errorf("%+v", e)
	}
	if s := r.Status(); s.Bounced != 2 || s.Deferred != 1 {
		t.Errorf("%+v", s)
	}
}
