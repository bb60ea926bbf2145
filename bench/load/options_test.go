package load

import (
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSizes(t *testing.T) {
	for text, want := range map[string]Sizes{
		"10240":                                {{10240, 1}},
		"10KiB":                                {{10240, 1}},
		"1M":                                   {{1 << 20, 1}},
		"4KiB:70,30kB:25,1MiB:5":               {{4096, 70}, {30000, 25}, {1 << 20, 5}},
		"transactional":                        {{4096, 1}},
		"newsletter:9,marketing,attachments:2": {{30 << 10, 9}, {100 << 10, 1}, {1 << 20, 2}},
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
	for _, text := range []string{"", "0", "-1", "10Q", "10KiB:0", "10KiB:x", "2048MiB", "1,,2", "newsletters", "512MiB,1", "@/nowhere", "99999999999999999999"} {
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
	r := newRecipients([]string{"a", "b", "c", "d"}, 6, 0)
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
	if r := newRecipients(MadeUpDomains(9973), 1000, 0); len(r.paths) > maxPaths {
		t.Errorf("%d paths", len(r.paths))
	}
}

func TestArgsReadBack(t *testing.T) {
	want := Options{Address: "127.0.0.1:25", Connections: 7, PerConnection: 3, Messages: 9, Duration: time.Minute, Rate: 12.5,
		Sizes: Sizes{{4096, 2}, {100, 1}}, Recipients: 4, Domains: MadeUpDomains(5), Hello: "me", Zipf: 1.25, Chunking: true, LockStep: true, Dots: true,
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

// TestSizesOfAFile: a distribution is what stands in the file, and faults are named with their line.
func TestSizesOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sizes")
	for text, want := range map[string]string{"# seen\n2KiB 70\n\nnewsletter\t25 # ours\n5000\n": "2KiB:70,30KiB:25,5000:1", "1KiB": "1KiB",
		"1KiB\n2KiB x\n": ":2: weight", "1 2 3\n": ":1: want a size", "#\n": "no size", strings.Repeat("1KiB\n", mixMost+1): ":1001: want a mix"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var s Sizes
		if err := s.Set("@" + path); (err == nil || !strings.Contains(err.Error(), want)) && s.String() != want {
			t.Errorf("%.20q: %v, %v", text, s, err)
		}
	}
}

// TestZipf: the n-th domain has its share, each message as many recipients as it should, and the draws are the same in every run.
func TestZipf(t *testing.T) {
	domains := MadeUpDomains(1000)
	r, again := newRecipients(domains, 3, 1), newRecipients(domains, 3, 1)
	counts := map[string]int{}
	total := 0
	for n := range r.turns {
		paths := r.of(n)
		if len(paths) != 3 || !slices.Equal(paths, again.of(n+r.turns)) {
			t.Fatalf("message %d: %v", n, paths)
		}
		for j, path := range paths {
			local, domain, _ := strings.Cut(path, "@")
			if local != "r"+strconv.Itoa(j) {
				t.Fatalf("recipient %d: %s", j, path)
			}
			counts[domain]++
			total++
		}
	}
	harmonic := 0.0
	for n := 1; n <= len(domains); n++ {
		harmonic += 1 / float64(n)
	}
	for _, n := range []int{1, 2, 10, 100} {
		got, want := float64(counts[domains[n-1]])/float64(total), 1/float64(n)/harmonic
		if got < want*0.8 || got > want*1.2 {
			t.Errorf("domain %d: share %.4f, want %.4f", n, got, want)
		}
	}
	if len(counts) < 900 {
		t.Errorf("%d domains only", len(counts))
	}
	if r := newRecipients(MadeUpDomains(1000), 2000, 0.8); len(r.paths) > maxPaths {
		t.Errorf("%d paths", len(r.paths))
	}
}
