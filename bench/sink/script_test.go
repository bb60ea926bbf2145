package sink

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scriptText has every key.
const scriptText = `
[[destination]]
name = "provider"
domains = ["*.Provider.example", "provider.example."]
sites = ["127.1.0.0/30", "127.1.0.9"]
connections = 2
messages = 3
rate = "5/s"
delay = "connect=1ms,rcpt=2ms"
tempfail = "dot=0.25"
permfail = "rcpt=0.5"
drop = "mail=0.125"

[[destination]]
name = "grey"
domains = ["grey.provider.example", "*.grey.example"]
greylist = "1m"
`

func TestScript(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.toml")
	if err := os.WriteFile(path, []byte(scriptText), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadScript(path)
	if err != nil || len(s.Destinations) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	d := s.Destinations[0]
	if d.Domains[0].name != "*.provider.example" || d.Sites[0].size() != 4 || d.Connections != 2 || d.Messages != 3 || d.Rate != (Rate{5, time.Second}) ||
		d.Rate.String() != "5/s" || d.Delay != (Delays{Connect: time.Millisecond, Rcpt: 2 * time.Millisecond}) || d.Tempfail != (Shares{Dot: 0.25}) ||
		d.Permfail != (Shares{Rcpt: 0.5}) || d.Drop != (Shares{Mail: 0.125}) || time.Duration(s.Destinations[1].Greylist) != time.Minute {
		t.Errorf("%+v", s)
	}
	st := newStages(s, 1)
	for domain, want := range map[string]string{"grey.Provider.example": "grey", "a.b.grey.example.": "grey", "grey.example": "", "x.provider.example": ""} {
		var scratch []byte
		if at := st.ofDomain([]byte(domain), &scratch); (at == nil) != (want == "") || at != nil && at.Name != want {
			t.Errorf("%s: %+v", domain, at)
		}
	}
	for address, want := range map[string]bool{"127.1.0.0": true, "127.1.0.3": true, "127.1.0.4": false, "127.1.0.9": true, "127.1.0.10": false, "127.0.0.1": false} {
		if at := st.ofSite(netip.MustParseAddr(address)); (at != nil) != want {
			t.Errorf("%s: %+v", address, at)
		}
	}
}

// TestScriptFaults: what is wrong is named with file and line.
func TestScriptFaults(t *testing.T) {
	head := "# a\n[[destination]]\nname = \"a\"\ndomains = [\"a.example\"]\n"
	for text, want := range map[string]string{
		"[[destination]]\nname = 3":                                     "s:2: ",
		"\n[[destination]\n":                                            "s:2: ",
		head + "latency = \"1s\"":                                       "s:5: unknown key destination.latency",
		head + "delay = \"soon\"":                                       "s:5: ",
		head + "tempfail = \"rcpt=2\"":                                  "want a share",
		head + "rate = \"5\"":                                           "s:5: ",
		head + "greylist = \"0s\"":                                      "s:5: ",
		head + "connections = -1":                                       "s:2: destination \"a\": want counts",
		head + "sites = [\"127.0.0.1/8\"]":                              "s:5: ",
		head + "sites = [\"::1\"]":                                      "want IPv4",
		head + "sites = [\"0.0.0.0/0\"]":                                "more than",
		head + "delay = \"connect=1s\"":                                 "too late for connect",
		head + "tempfail = \"dot=0.6\"\ndrop = \"dot=0.6\"":             "above 1",
		head + "[[destination]]\nname = \"a\"\ndomains=[\"b\"]":         "s:5: destination \"a\" is there above",
		head + "[[destination]]\nname = \"b\"\ndomains=[\"A.example\"]": "s:5: destination \"b\": domain \"a.example\" is one of \"a\"",
		head + "[[destination]]\nname = \"b\"":                          "s:5: destination \"b\": neither",
		"[[destination]]\ndomains = [\"a\"]":                            "s:1: destination without a name",
		"[[destination]]\nname = \"a\"\ndomains = [\"a..b\"]":           "s:3: ",
		"[[destination]]\nname = \"a\"\nsites = [\"127.1.0.0/24\"]\n\n[[destination]]\nname = \"b\"\nsites = [\"127.1.0.7\"]": "s:5: destination \"b\": sites",
	} {
		if s, err := ParseScript("s", []byte(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "s:") {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
	if _, err := ParseScript("s", make([]byte, scriptMost+1)); err == nil {
		t.Error("a script without end was read")
	}
	if _, err := LoadScript(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a script that is not there was read")
	}
}

func FuzzScript(f *testing.F) {
	f.Add(scriptText)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseScript("s", []byte(text))
		if err != nil {
			return
		}
		st := newStages(s, 1)
		var scratch []byte
		st.ofDomain([]byte("a.b.example"), &scratch)
		st.ofSite(netip.MustParseAddr("127.1.0.1"))
		if n, err := newNames(s, defaultSites); err == nil {
			n.find("a.b.example")
		}
	})
}

func stageOf(t *testing.T, text string) *stage {
	t.Helper()
	s, err := ParseScript("s", []byte("[[destination]]\nname = \"a\"\nsites = [\"127.1.0.0/24\"]\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return newStages(s, 1).all[0]
}

// TestCaps: each site has its own connections, its connections have their messages, and in no span there are more messages than the rate.
func TestCaps(t *testing.T) {
	st := stageOf(t, "connections = 2\nmessages = 4\nrate = \"3/s\"")
	one, two := netip.MustParseAddr("127.1.0.1"), netip.MustParseAddr("127.1.0.2")
	for i, want := range []bool{true, true, false} {
		if got := st.join(one, i == 2); got != want {
			t.Errorf("connection %d: %v", i, got)
		}
	}
	if st.join(one, false) {
		t.Error("a connection beyond the cap was let in")
	}
	st.leave(one)
	if !st.join(one, false) || !st.join(two, false) {
		t.Error("there is room, and a connection was refused")
	}
	now := time.Now()
	m, other := membership{stage: st, local: one}, membership{stage: st, local: two}
	for _, step := range []struct {
		after time.Duration
		m     *membership
		want  refusal
	}{{0, &m, within}, {500, &m, within}, {0, &m, within}, {0, &m, overRate}, {0, &other, within}, {499, &m, overRate}, {1, &m, within}, {0, &m, overMessages},
		{500, &other, within}} {
		now = now.Add(step.after * time.Millisecond)
		if got := st.begin(step.m, now); got != step.want {
			t.Errorf("%+v: %d", step, got)
		}
	}
	r := st.report()
	if r.Most != (Caps{2, 4, 3}) || r.Over != (Caps{1, 1, 2}) || r.Connections != 4 || r.Sites != 2 || r.Configured != (Caps{2, 4, 3}) {
		t.Errorf("%+v", r)
	}
}

func TestGreylist(t *testing.T) {
	st := stageOf(t, "greylist = \"10s\"")
	now, client := time.Now(), netip.MustParseAddr("127.0.0.1")
	for i, step := range []struct {
		after time.Duration
		from  string
		to    string
		want  bool
	}{{0, "a", "x", true}, {9, "a", "X", true}, {0, "b", "x", true}, {1, "A", "x", false}, {0, "b", "x", true}, {9, "b", "x", false}, {100, "a", "x", false}} {
		now = now.Add(step.after * time.Second)
		if got := st.greylisted(client, []byte(step.from), []byte(step.to), now); got != step.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	if st.report().Greylisted != 4 {
		t.Errorf("%+v", st.report())
	}
}

// TestNames: every domain has one MX host, always the same, at one of the sites that are its own.
func TestNames(t *testing.T) {
	s, err := ParseScript("s", []byte(scriptText))
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNames(s, "127.2.0.0/24, 127.3.0.1")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]int{}
	for _, domain := range []string{"provider.example", "a.provider.example", "b.c.provider.example", "other.example", "x", "d1.rcpt.bench.mailrace"} {
		r, ok := n.find(domain)
		if !ok || len(r.MX) != 1 {
			t.Fatalf("%s: %+v", domain, r)
		}
		host, ok := n.find(r.MX[0].Host)
		if !ok || len(host.Addrs) != 1 {
			t.Fatalf("%s: %+v", r.MX[0].Host, host)
		}
		at := host.Addrs[0]
		if again, _ := n.find(domain); again.MX[0] != r.MX[0] || (newStages(s, 1).ofSite(at) != nil) != strings.HasSuffix(domain, "provider.example") {
			t.Errorf("%s: %v", domain, at)
		}
		seen[at]++
	}
	for i := range 1000 {
		r, _ := n.find("d" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + ".example")
		host, _ := n.find(r.MX[0].Host)
		seen[host.Addrs[0]]++
	}
	if len(seen) < 100 {
		t.Errorf("domains are at %d sites only", len(seen))
	}
	for _, name := range []string{"", "_25._tcp.a.example", "mta-sts.a.example", "1.0.0.127.in-addr.arpa", "127-4-0-1" + hostSuffix, "x" + hostSuffix} {
		if r, ok := n.find(name); ok {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, list := range []string{"", "x", "127.0.0.1/8", "0.0.0.0/0", "::1"} {
		if _, err := newNames(s, list); err == nil {
			t.Errorf("%q was taken", list)
		}
	}
}
