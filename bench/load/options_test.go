package load

import (
	"flag"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Sizes{
		"10240":                  {{10240, 1}},
		"10KiB":                  {{10240, 1}},
		"1M":                     {{1 << 20, 1}},
		"4KiB:70,30kB:25,1MiB:5": {{4096, 70}, {30000, 25}, {1 << 20, 5}},
	} {
		var got Sizes
		if err := got.Set(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
		var again Sizes
		if err := again.Set(got.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%q prints as %q, which reads as %v, %v", text, got.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "10Q", "10KiB:0", "10KiB:x", "2048MiB", "1,,2", "99999999999999999999"} {
		var got Sizes
		if err := got.Set(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestMixFollowsItsWeights(t *testing.T) {
	mix := Sizes{{1, 70}, {2, 25}, {3, 5}}
	counts := make([]int, len(mix))
	const total = 100_000
	for n := range uint64(total) {
		counts[mix.pick(n)]++
	}
	for i, z := range mix {
		if got, want := float64(counts[i])/total, float64(z.Weight)/100; got < want*0.97 || got > want*1.03 {
			t.Errorf("size %d: share %.4f, want %.2f", z.Octets, got, want)
		}
	}
}

func TestDomains(t *testing.T) {
	var d Domains
	if err := d.Set("3"); err != nil || len(d) != 3 || d[2] != "d2.rcpt.bench.mailrace" || d.String() != "3" {
		t.Errorf("%v, %v", d, err)
	}
	if err := d.Set("a.example, b.example"); err != nil || d.String() != "a.example,b.example" {
		t.Errorf("%v, %v", d, err)
	}
	for _, text := range []string{"0", "-1", "a,,b", ""} {
		if err := d.Set(text); err == nil {
			t.Errorf("%q was read as %v", text, d)
		}
	}
}

func TestDomainsTakeTurns(t *testing.T) {
	r := newRecipients([]string{"a", "b", "c", "d"}, 6)
	var got []string
	for n := range uint64(4) {
		got = append(got, strings.Join(r.of(n), " "))
	}
	want := []string{
		"r0@a r1@b r2@c r3@d r4@a r5@b", "r0@c r1@d r2@a r3@b r4@c r5@d",
		"r0@a r1@b r2@c r3@d r4@a r5@b", "r0@c r1@d r2@a r3@b r4@c r5@d",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := newRecipients(MadeUpDomains(9973), 1000); len(r.paths) > maxPaths {
		t.Errorf("%d paths", len(r.paths))
	}
}

func TestArgsReadBack(t *testing.T) {
	want := Options{Address: "127.0.0.1:25", Connections: 7, PerConnection: 3, Messages: 9, Duration: time.Minute, Rate: 12.5,
		Sizes: Sizes{{4096, 2}, {100, 1}}, Recipients: 4, Domains: MadeUpDomains(5), Hello: "me", LockStep: true, Dots: true,
		Reconnect: true, Loops: 2, Timeout: time.Second, Grace: 2 * time.Second, Run: 0xabc, First: 100, Record: "file", Gauge: "gauge", Window: 5,
		Interval: 3 * time.Second, From: Addresses{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1")}, Hold: true, Secure: Secure{TLS: STARTTLS, TLSVersion: "1.3", CA: "ca", Insecure: true, User: "me", PasswordFile: "secret"}}
	var got Options
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	BindFlags(fs, &got)
	if err := fs.Parse(want.Args()); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{
		{Address: "nowhere"}, {Address: "h:1", Connections: -1}, {Address: "h:1", Rate: -1}, {Address: "h:1", Recipients: 10_000},
		{Address: "h:1", Duration: -1}, {Address: "h:1", Window: 1}, {Address: "h:1", Gauge: "file", Rate: 1},
		{Address: "h:1", Hold: true, Messages: 1}, {Address: "h:1", Secure: Secure{TLS: "yes"}}, {Address: "h:1", Secure: Secure{TLS: STARTTLS, TLSVersion: "1.1"}},
		{Address: "h:1", Secure: Secure{CA: "file"}}, {Address: "h:1", Secure: Secure{TLS: STARTTLS, CA: "file", Insecure: true}},
		{Address: "h:1", Secure: Secure{User: "me"}}, {Address: "h:1", Secure: Secure{PasswordFile: "file"}},
	} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestMaskPipelining(t *testing.T) {
	p := []byte("250-x\r\n250-pipelining\r\n250 SIZE\r\n")
	maskPipelining(p)
	if string(p) != "250-x\r\n250-Xipelining\r\n250 SIZE\r\n" {
		t.Errorf("%q", p)
	}
}
