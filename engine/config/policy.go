package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Policy is what is said of mail to some destinations. Where several hold, each value is that of the most specific one that sets it: see
// router.Policy. What none sets is that of Queue.
type Policy struct {
	Domains []string // of recipients: lower-case names, or "*.suffix" (every name below suffix). At most one of Domains, MX and Routes
	MX      []string // mail exchangers, likewise: of sites all of whose hosts have one of these names
	Routes  []string // Route.Name
	Tenants []string // whose mail it is for; none = everybody's

	Campaigns []string // labels of the mail that it is for; none = any

	Retry        []time.Duration // 0 values say nothing; see Queue
	RetryMin     time.Duration
	RetryMax     time.Duration
	Expire       time.Duration
	BounceExpire time.Duration
	Pool         string // of sources; "" says nothing
}

// retriesMax is the most delays of a list.
const retriesMax = 100

// verbatim takes a string as it is.
func verbatim(s string) (string, error) { return s, nil }

func policyFields(p *Policy) []field {
	return []field{
		{"domains", list(&p.Domains, lower)},
		{"mx", list(&p.MX, lower)},
		{"routes", list(&p.Routes, verbatim)},
		{"tenants", list(&p.Tenants, verbatim)},
		{"campaigns", list(&p.Campaigns, verbatim)},
		{"retry", list(&p.Retry, parseDuration)},
		{"retry_min", duration(&p.RetryMin)},
		{"retry_max", duration(&p.RetryMax)},
		{"expire", duration(&p.Expire)},
		{"bounce_expire", duration(&p.BounceExpire)},
		{"pool", text(&p.Pool)},
	}
}

// retries judges a list of delays.
func (k *checker) retries(key string, list []time.Duration) {
	if n := len(list); n > retriesMax {
		k.complain(key, "%d delays: want %d or less, the last one repeats", n, retriesMax)
	}
	for i, d := range list {
		k.lasts(fmt.Sprintf("%s[%d]", key, i), d, 10*time.Millisecond, 7*24*time.Hour)
	}
}

// policies judges the policies, no two of which may be for the same.
func (k *checker) policies(c *Config) {
	var routes []string
	for _, r := range c.Routes {
		if r.Name != "" {
			routes = append(routes, r.Name)
		}
	}
	seen := map[[4]string]bool{}
	for i := range c.Policies {
		p, key := &c.Policies[i], fmt.Sprintf("policy[%d]", i)
		placed := k.policyDestinations(key, p, routes, seen)
		k.policyLabels(key+".tenants", p.Tenants, func(at, tenant string) {
			if !placed {
				k.once(at, seen, "", "", []string{tenant}, p.Campaigns)
			}
		})
		k.policyLabels(key+".campaigns", p.Campaigns, func(at, campaign string) {
			if !placed && len(p.Tenants) == 0 {
				k.once(at, seen, "", "", nil, []string{campaign})
			}
		})
		if !placed && len(p.Tenants)+len(p.Campaigns) == 0 {
			k.complain(key, "is for no mail: want domains, mx, routes, tenants or campaigns. What holds for all mail stands in [queue]")
		}
		k.policyTimes(key, p, &c.Queue)
	}
}

// policyDestinations judges for what destinations a policy is, and reports whether it names any.
func (k *checker) policyDestinations(key string, p *Policy, routes []string, seen map[[4]string]bool) (placed bool) {
	for _, x := range []struct {
		key   string
		list  []string
		fault func(string) string
	}{{"domains", p.Domains, policyPatternFault}, {"mx", p.MX, policyPatternFault}, {"routes", p.Routes, func(name string) string { return unknown(name, routes, "route") }}} {
		if len(x.list) == 0 {
			continue
		}
		if placed {
			k.complain(key+"."+x.key, "a policy is for one of domains, mx and routes: want a table for each")
			continue
		}
		placed = true
		for j, name := range x.list {
			at := fmt.Sprintf("%s.%s[%d]", key, x.key, j)
			if fault := x.fault(name); fault != "" {
				k.complain(at, "%s", fault)
			} else {
				k.once(at, seen, x.key, name, p.Tenants, p.Campaigns)
			}
		}
	}
	return placed
}

// policyLabels judges a list of labels, and calls sound for each that is one.
func (k *checker) policyLabels(key string, list []string, sound func(at, label string)) {
	for j, label := range list {
		if at := fmt.Sprintf("%s[%d]", key, j); !validLabel(label) || label == "" {
			k.complain(at, "not a label: want 1 to 255 octets without control characters")
		} else if slices.Contains(list[:j], label) {
			k.complain(at, "%s stands here twice: want it once", quote(label))
		} else {
			sound(at, label)
		}
	}
}

// once complains when there is a policy for the same destination, tenant and campaign already.
func (k *checker) once(at string, seen map[[4]string]bool, kind, name string, tenants, campaigns []string) {
	any := []string{""}
	if len(tenants) == 0 {
		tenants = any
	}
	if len(campaigns) == 0 {
		campaigns = any
	}
	for _, tenant := range tenants {
		for _, campaign := range campaigns {
			id := [4]string{kind, name, tenant, campaign}
			if seen[id] {
				k.complain(at, "%s has a policy above already: want it once", policyPlace(id))
				return
			}
			seen[id] = true
		}
	}
}

// policyPlace names what a policy is for, by kind, name, tenant and campaign.
func policyPlace(id [4]string) string {
	var parts []string
	if id[0] != "" {
		parts = append(parts, quote(id[1]))
	}
	if id[2] != "" {
		tenant := quote(id[2])
		if len(parts) > 0 {
			tenant = "of tenant " + tenant
		}
		parts = append(parts, tenant)
	}
	if id[3] != "" {
		parts = append(parts, "campaign "+quote(id[3]))
	}
	return strings.Join(parts, " ")
}

// policyPatternFault is patternFault where everything cannot be meant.
func policyPatternFault(d string) string {
	if d == "*" {
		return `"*" is everything: want names or "*.suffix", or none of them. What holds for all mail stands in [queue]`
	}
	return patternFault(d, `an exact name or "*.suffix"`)
}

// policyTimes judges what a policy says.
func (k *checker) policyTimes(key string, p *Policy, q *Queue) {
	ok := true
	for _, x := range []struct {
		key       string
		d         time.Duration
		low, high time.Duration
	}{
		{"retry_min", p.RetryMin, 10 * time.Millisecond, 24 * time.Hour}, {"retry_max", p.RetryMax, 10 * time.Millisecond, 7 * 24 * time.Hour},
		{"expire", p.Expire, 100 * time.Millisecond, 365 * 24 * time.Hour}, {"bounce_expire", p.BounceExpire, 100 * time.Millisecond, 365 * 24 * time.Hour},
	} {
		if x.d != 0 {
			ok = k.lasts(key+"."+x.key, x.d, x.low, x.high) && ok
		}
	}
	k.retries(key+".retry", p.Retry)
	switch low, high := cmp.Or(p.RetryMin, q.RetryMin), cmp.Or(p.RetryMax, q.RetryMax); {
	case len(p.Retry) == 0 && p.RetryMin == 0 && p.RetryMax == 0 && p.Expire == 0 && p.BounceExpire == 0 && p.Pool == "":
		k.complain(key, "says nothing: want retry, retry_min, retry_max, expire, bounce_expire or pool")
	case len(p.Retry) > 0 && (p.RetryMin != 0 || p.RetryMax != 0):
		k.complain(key+".retry", "retry_min or retry_max stands here, too: want the list, or these")
	case !ok || low <= high || p.RetryMin == 0 && p.RetryMax == 0:
	case p.RetryMin == 0:
		k.complain(key+".retry_max", "%s is shorter than queue.retry_min: want %s or more, or retry_min, too", formatDuration(high), formatDuration(low))
	case p.RetryMax == 0:
		k.complain(key+".retry_min", "%s is longer than queue.retry_max: want %s or less, or retry_max, too", formatDuration(low), formatDuration(high))
	default:
		k.complain(key+".retry_min", "%s is longer than retry_max: want %s or less", formatDuration(low), formatDuration(high))
	}
}
