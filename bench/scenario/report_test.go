package scenario

import (
	"errors"
	"flag"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/ceiling"
	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, text, want)
	}
}

// textOf is a report for people.
func textOf(t *testing.T, r result.Reporter) string {
	t.Helper()
	var b strings.Builder
	whole := r.Result()
	if err := whole.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func measureOf(rate, cpu float64, account ledger.Account) Measure {
	return Measure{Messages: uint64(rate * 5), Elapsed: 5 * time.Second, Rate: rate, CPU: cpu, GeneratorCPU: 9.9, SinkCPU: 10.1,
		P50: 4 * time.Millisecond, P99: 12345 * time.Microsecond, RSSPeak: 300 << 20, GeneratorBusy: 0.5, SinkBusy: 0.6, Octets: 10 << 10, Account: account}
}

func TestReportText(t *testing.T) {
	whole := ledger.Account{Acknowledged: 1000, Arrived: 1000}
	r := Report{Kind: Relay, Connections: 200, Sizes: "10KiB", Recipients: 1, Sync: true, Duration: 5 * time.Second}
	for _, rate := range []float64{0.5, 0.6, 0.4, 0.55} {
		mta := measureOf(24_000*rate, 80, whole)
		mta.SyncsPerMessage, mta.MessagesPerSync = 0.025, 40
		r.Rounds = append(r.Rounds, Round{Ceiling: measureOf(24_000, 38, whole), MTA: mta})
		r.Ceilings = append(r.Ceilings, ceiling.Rates{Syncs: 4000, Written: 200e6, Loopback: 2000e6 * rate})
	}
	r.summarize()
	golden(t, "relay.txt", textOf(t, &r))
	if b := r.Beside[MTA]; len(r.Beside) != 1 || b.Null != r.Ratio || math.Abs(b.Disk.Median-0.64512) > 1e-9 || b.Lower.Max != b.Disk.Max {
		t.Errorf("%+v", r.Beside)
	}

	r.MX = true
	for i, round := range r.Rounds {
		round[TLS] = measureOf(float64(9_000+1000*i), 99, whole)
	}
	r.summarize()
	golden(t, "tls.txt", textOf(t, &r))

	bad := r.Rounds[0][MTA]
	bad.Lost, bad.Doubled, bad.Altered, bad.Refused = 3, 2, 1, 4
	bad.GeneratorBusy = 0.97
	r.Ceilings, r.Kind, r.Sync, r.Rounds = nil, Relay, false, []Round{{Ceiling: measureOf(24_000, 38, whole), MTA: bad}}
	r.summarize()
	golden(t, "bad.txt", textOf(t, &r))
}

func TestConfigurationText(t *testing.T) {
	o, err := Options{Program: []string{"x"}, Loops: 2, Shards: 1, Egress: 40, Memory: "2GiB", Sizes: load.Sizes{{Octets: 100 << 10, Weight: 1}}}.
		withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := configuration{listen: "127.0.0.1:2525", admin: "127.0.0.1:8025", spool: nullSpool, events: "off", route: "smtp://127.0.0.1:2526"}
	golden(t, "ceiling.toml", c.text(&o))
	o, _ = Options{Program: []string{"x"}, NoSync: true}.withDefaults()
	c.spool, c.route = "/tmp/a \"b\"/spool", "discard"
	golden(t, "mta.toml", c.text(&o))
	c.chain, c.key = "/tmp/chain.pem", "/tmp/key.pem"
	golden(t, "tls.toml", c.text(&o))
	c.submission, c.users = "127.0.0.1:2587", "/tmp/users.toml"
	golden(t, "submission.toml", c.text(&o))
	c = configuration{listen: "127.0.0.1:2525", admin: "127.0.0.1:8025", spool: "/tmp/spool", events: "off", route: "discard", retry: holdFor,
		other: []routeOf{{domain: relayDomain, to: "smtp://127.0.0.1:2526"}, {domain: heldDomain, to: "smtp://127.0.0.1:2527"}}}
	golden(t, "depth.toml", c.text(&o))
	c = configuration{listen: "127.0.0.1:2525", admin: "127.0.0.1:8025", spool: nullSpool, events: "off", route: "mx",
		names: netip.MustParseAddrPort("127.0.0.1:5353"), port: "2526", idle: time.Hour}
	golden(t, "sites.toml", c.text(&o))
	c.idle, c.policies = 0, []string{"*." + clearDomains}
	golden(t, "mx.toml", c.text(&o))
	c = configuration{listen: "127.0.0.1:2525", admin: "127.0.0.1:8025", spool: "/tmp/spool", events: "off", route: "smtp://127.0.0.1:2526",
		other: []routeOf{{domain: secureDomain, to: "smtp://127.0.0.2:2526", tls: "verified"}}, authority: "/tmp/chain.pem"}
	golden(t, "secure.toml", c.text(&o))
}

func TestSumMetric(t *testing.T) {
	const page = `# HELP x y
mailrace_spool_syncs_total{shard="0"} 12
mailrace_spool_syncs_total{shard="1 }"} 30 1700000000
mailrace_spool_syncs_total_more 1000
mailrace_spool_syncs_totally{} 1000
`
	if got, err := sumMetric(strings.NewReader(page), "mailrace_spool_syncs_total"); err != nil || got != 42 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := sumMetric(strings.NewReader(page), "mailrace"); !errors.Is(err, errNoMetric) {
		t.Errorf("%v", err)
	}
	if _, err := sumMetric(strings.NewReader("a b\n"), "a"); err == nil || errors.Is(err, errNoMetric) {
		t.Errorf("%v", err)
	}
}
