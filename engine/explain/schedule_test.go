package explain

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestSchedule: each value of a schedule comes with the line that sets it.
func TestSchedule(t *testing.T) {
	const policies = head + `
[queue]
retry = ["1m", "1h30m"]
expire = "6d"
[[policy]]
domains = ["far.example"]
retry_max = "2h"
[[policy]]
domains = ["null.example"]
expire = "1d"
[[policy]]
mx = ["*.far.example"]
retry = ["2m"]
expire = "2d"
[[policy]]
tenants = ["t"]
expire = "3d"
`
	at := func(line string) string {
		before, _, ok := strings.Cut(policies, line)
		if !ok {
			t.Fatalf("no line %s", line)
		}
		return fmt.Sprintf("mailrace.toml:%d", strings.Count(before, "\n")+1)
	}
	e := newWorld(t, zone).explainer(t, policies)
	for _, x := range []struct {
		address string
		want    []Setting
	}{
		{"a@far.example", []Setting{
			{"first retry after", "5m", "queue.retry_min", Default}, {"retries at most", "2h apart", "policy.retry_max", at(`retry_max = "2h"`)},
			{"expires after", "2d", "policy.expire", at(`expire = "2d"`)},
		}},
		{"a@null.example", []Setting{ // of which nothing leads to a host
			{"retries after", "1m, 1h30m", "queue.retry", at(`retry = ["1m", "1h30m"]`)}, {"expires after", "24h", "policy.expire", at(`expire = "1d"`)},
		}},
		{"a@self.example", []Setting{{"retries after", "1m, 1h30m", "queue.retry", at(`retry = ["1m", "1h30m"]`)}, {"expires after", "6d", "queue.expire", at(`expire = "6d"`)}}},
	} {
		r, err := e.Explain(t.Context(), x.address)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Limits[len(r.Limits)-len(x.want):]; !slices.Equal(got, x.want) {
			t.Errorf("%s: %+v, want %+v", x.address, got, x.want)
		}
	}
}
