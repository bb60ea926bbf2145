package scenario

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/sink"
)

// TestBulkPlan: the sink can read its script, every site has a kind, and the node is told what the sites take.
func TestBulkPlan(t *testing.T) {
	for _, sites := range []int{bulkSitesLeast, 64, bulkSites, bulkSitesMost} {
		p := planBulk(sites, true)
		script, err := sink.ParseScript("script", []byte(p.script))
		if err != nil {
			t.Fatal(err)
		}
		all := netip.MustParsePrefix(p.sites)
		if len(p.providers) != sites || all.Bits() != 32-log2(sites) {
			t.Errorf("%d sites: %d in %v", sites, len(p.providers), all)
		}
		for _, provider := range p.providers {
			kind, _, _ := strings.Cut(provider.name, "-")
			i := slices.IndexFunc(script.Destinations, func(d sink.Destination) bool { return d.Name == kind })
			if !all.Contains(netip.MustParseAddr(provider.addresses)) || script.Destinations[i].Connections != provider.connections ||
				script.Destinations[i].Messages != bulkMessages {
				t.Errorf("%+v, %+v", provider, script.Destinations[i])
			}
		}
		if len(script.Destinations) != len(bulkKinds)+1 {
			t.Errorf("%d sites: %d destinations", sites, len(script.Destinations))
		}
		if plain := planBulk(sites, false).script; strings.Contains(plain, "permfail") || strings.Contains(plain, "delay") {
			t.Errorf("plain sites do not all do well:\n%s", plain)
		}
	}
}

func TestBulkOptions(t *testing.T) {
	o, err := BulkOptions{Program: []string{"x"}}.withDefaults()
	if err != nil || o.Messages != 50_000 || o.Sites != 256 || o.Zipf != 1 || o.Sizes.String() != "4KiB:70,30KiB:30" || o.Recipients != 1 || o.Retry != time.Second {
		t.Errorf("%+v, %v", o, err)
	}
	for _, o := range []BulkOptions{{}, {Program: []string{"x"}, Sites: 100}, {Program: []string{"x"}, Sites: 16}, {Program: []string{"x"}, Sites: -8},
		{Program: []string{"x"}, Zipf: -1}, {Program: []string{"x"}, Messages: -1}, {Program: []string{"x"}, Domains: sitesMost + 1}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestBulkFaults: a report that shows what must not be is an error, and says what.
func TestBulkFaults(t *testing.T) {
	r := BulkReport{Messages: 1000, Domains: 20_000, Sites: 256, Zipf: 1, Sizes: "4KiB", Recipients: 1, Connections: 200, Sync: true}
	for n := range 3 {
		plain := BulkMeasure{Measure: measureOf(20_000, 40, ledger.Account{Acknowledged: 1000, Arrived: 1000}), Accepting: 21_000, Most: 20_000, Queue: 90}
		bulk := BulkMeasure{Measure: measureOf(5000, 60, ledger.Account{Acknowledged: 1000, Arrived: 980}), Accepting: 19_000, Most: 12_000 + 1000*float64(n), Queue: 700,
			Returned: sink.Returned{Returned: 20}, Deferred: 150, Bounced: 20, Destinations: []sink.StageReport{
				{Name: "near", Configured: sink.Caps{Connections: 5, Messages: 100}, Most: sink.Caps{Connections: 5, Messages: 100}, Sites: 48, Accepted: 715},
				{Name: "gone", Configured: sink.Caps{Connections: 5, Messages: 100}, Most: sink.Caps{Connections: 2, Messages: 7}, Sites: 16, Accepted: 265,
					Greylisted: 3, Failures: map[string]sink.Failures{"rcpt": {Permfail: 20}, "mail": {Tempfail: 2, Drop: 1}}}}}
		r.Rounds = append(r.Rounds, BulkRound{Plain: plain, Bulk: bulk})
	}
	r.summarize()
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	golden(t, "bulk.txt", textOf(t, &r))
	for _, step := range []struct {
		spoil func(m *BulkMeasure)
		want  error
		note  string
	}{
		{func(m *BulkMeasure) { m.Destinations[0].Over.Messages = 1 }, ErrCaps, "LIMITS: 1 connections"},
		{func(m *BulkMeasure) { m.Returned.Both = 1 }, ErrReturned, "RETURNED: 0 notifications too many, 1 about"},
		{func(m *BulkMeasure) { m.Account.Lost = 2 }, ErrAccounting, "ACCOUNTING: 2 lost"},
	} {
		m := r.Rounds[0][Bulk]
		step.spoil(&m)
		r.Rounds[0][Bulk] = m
		r.summarize()
		if err := r.fault(); !errors.Is(err, step.want) || !strings.Contains(fmt.Sprint(r.Notes), step.note) {
			t.Errorf("%v is not in %v, or %q not in %q", step.want, err, step.note, r.Notes)
		}
	}
}
