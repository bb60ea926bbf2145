package scenario

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"mailrace/bench/ledger"
)

// TestSiteRecords: each domain has a host of its own, at an address of its own.
func TestSiteRecords(t *testing.T) {
	seen := map[netip.Addr]string{}
	for _, name := range []string{"d0", "d1", "d255", "d256", "d65535", "d65536", "d999999"} {
		r, ok := siteRecords(name + siteSuffix)
		if !ok || len(r.MX) != 1 || len(r.Addrs) != 0 {
			t.Fatalf("%s: %+v, %v", name, r, ok)
		}
		host, ok := siteRecords(r.MX[0].Host)
		if !ok || len(host.Addrs) != 1 || !host.Addrs[0].IsLoopback() || len(host.MX) != 0 {
			t.Fatalf("%s: %+v, %v", r.MX[0].Host, host, ok)
		}
		if other := seen[host.Addrs[0]]; other != "" {
			t.Errorf("%s and %s are both at %s", name, other, host.Addrs[0])
		}
		seen[host.Addrs[0]] = name
	}
	for _, name := range []string{"", "d1", "dx" + siteSuffix, "d1000000" + siteSuffix, "_mta-sts.d1" + siteSuffix, "d-1" + siteSuffix} {
		if r, ok := siteRecords(name); ok {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestSitesFaults: a report that shows what must not be is an error, and says what.
func TestSitesFaults(t *testing.T) {
	whole := ledger.Account{Acknowledged: 20_000, Arrived: 20_000}
	r := SitesReport{Sizes: "2KiB", Files: 20_000,
		Open: &OpenSites{Wanted: 20_000, Open: 20_000, Nodes: 2, Before: 60 << 20, Up: 400 << 20, After: 320 << 20, Each: 13_631, Limit: 20_480,
			Elapsed: 6 * time.Second, Account: whole},
		Queue: &ManyDomains{Domains: 20_000, Most: 12_500, Accepted: 3000, Rate: 2900, Elapsed: 7 * time.Second, CPU: 310, Questions: 5, Connections: 20_000,
			Before: 30 << 20, Peak: 500 << 20, After: 400 << 20, Each: 2500, Account: whole},
	}
	if err := r.fault(); err != nil {
		t.Error(err)
	}
	golden(t, "sites.txt", textOf(t, &r))
	for _, step := range []struct {
		spoil func()
		want  error
	}{
		{func() { r.Open.Each = 20_481 }, ErrSitesCost},
		{func() { r.Open.Open = 19_999 }, ErrSitesOpen},
		{func() { r.TLS, r.Open.Secured, r.Queue.Secured = true, 19_999, 20_000 }, ErrSitesTLS},
		{func() { r.Open.Secured, r.Queue.Secured = 20_000, 19_999 }, ErrSitesTLS},
		{func() { r.Open.Account.Lost = 1 }, ErrAccounting},
	} {
		step.spoil()
		if err := r.fault(); !errors.Is(err, step.want) {
			t.Errorf("%v is not in %v", step.want, err)
		}
	}
	r.Open = nil
	r.Queue.Account.Doubled = 1
	if err := r.fault(); !errors.Is(err, ErrAccounting) {
		t.Error(err)
	}
}

func TestSitesOptions(t *testing.T) {
	o, err := SitesOptions{Program: []string{"x"}, TLS: true}.withDefaults()
	if err != nil || o.Connections != 20_000 || o.Domains != 200_000 || o.Limit != 40<<10 || o.Sizes.String() != "2KiB" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, o := range []SitesOptions{{}, {Program: []string{"x"}, Domains: sitesMost + 1}, {Program: []string{"x"}, Senders: -1}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
