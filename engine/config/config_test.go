package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// minimal is a configuration that is right; the tests add to it.
const minimal = "hostname = 'mail.example.com'\n[[listener]]\naddress = '127.0.0.1:2525'\nmode = 'mx'\n"

// TestDesignFile reads the file that every release must run as it stands.
func TestDesignFile(t *testing.T) {
	c, err := Load("testdata/relay.toml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Hostname = "mail.example.com"
	want.Listeners = []Listener{{Address: "127.0.0.1:2525", Mode: ModeMX, RelayFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, StartTLS: true, BinaryMIME: true}}
	want.Routes = []Route{{Domains: []string{"*"}, To: Target{Kind: ToMX}}}
	want.Admin.Address = "127.0.0.1:8025"
	if c.origin = nil; !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
}

// TestExample: the example shows the defaults, and shows every key.
func TestExample(t *testing.T) {
	c, err := Parse("example.toml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	c.Hostname, c.Listeners, c.Routes, c.Policies, c.Providers, c.Sources, c.Pools, c.Recipients, c.Admin.Address, c.DSN.Templates = "", nil, nil, nil, nil, nil, nil, nil, "", nil
	c.origin = nil
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
	tree, err := parseTree("example.toml", []byte(Example))
	if err != nil {
		t.Fatal(err)
	}
	r := reader{where: map[string]position{}, failed: map[string]bool{}}
	r.fields(tree, "", schema(Default()))
	shown := map[string]bool{}
	for key := range r.where {
		shown[indexes.ReplaceAllString(key, "")] = true
	}
	if want := keys(reflect.TypeFor[Config]()); len(shown) != want {
		t.Errorf("the example shows %d keys and tables, Config has %d: %v", len(shown), want, shown)
	}
}

// keys counts the fields of a configuration type and of the tables in it.
func keys(of reflect.Type) int {
	n := of.NumField()
	for i := range of.NumField() {
		if !of.Field(i).IsExported() {
			n--
			continue
		}
		f := of.Field(i).Type
		if f.Kind() == reflect.Slice {
			f = f.Elem()
		}
		if f.Kind() == reflect.Struct && f.PkgPath() == of.PkgPath() && f != reflect.TypeFor[Target]() && f != reflect.TypeFor[Certificate]() {
			n += keys(f)
		}
		if f == reflect.TypeFor[Timeouts]() { // they stand beside the others
			n--
		}
	}
	return n
}

func TestValues(t *testing.T) {
	c, err := Parse("x", []byte(`
hostname = "MX-1.example.com"
engine = { loops = 2, memory = "2 GiB", drain_timeout = "1m30s" }
admin.address = "[::1]:8025"
[[listener]]
address = ":25"
mode = "mx"
relay_from = ["10.1.2.3", "2001:db8::/32", "::ffff:192.0.2.1"]
[[listener]]
address = "localhost:0"
mode = "mx"
[[route]]
domains = ["Example.COM", "*.example.com"]
to = "smtp://Relay.example.net:2525"
connections = 3
[[route]]
domains = ["v6.example"]
to = "smtp://[2001:db8::1]:26"
[[route]]
domains = ["bare.example"]
to = "smtp://192.0.2.7"
[[route]]
domains = ["gone.example"]
to = "discard"
[[route]]
domains = ["d.example"]
to = "lmtp://Store.example.net"
[[route]]
domains = ["e.example"]
to = "lmtp+unix:///run//dovecot/lmtp"
[[route]]
domains = ["f.example"]
to = "smtps://smart.example.net"
[dns]
servers = ["192.0.2.53", "2001:db8::53", "[2001:db8::53]:5353"]
trust_ad = ["192.0.2.53", "2001:db8::/32"]
stale = "0s"
[egress]
allow = ["127.0.0.0/8"]
port = 2_525
[limits]
message_size = 0x100000
[events]
max_size = 0
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ got, want any }{
		{c.Engine.Loops, 2},
		{c.Engine.Memory, int64(2 << 30)},
		{c.Engine.DrainTimeout, 90 * time.Second},
		{c.Admin.Address, "[::1]:8025"},
		{c.Listeners[0].RelayFrom[0].String(), "10.1.2.3/32"},
		{c.Listeners[0].RelayFrom[2].String(), "192.0.2.1/32"},
		{c.Routes[0].Domains[0], "example.com"},
		{c.Routes[0].To, Target{Kind: ToHost, Host: "relay.example.net", Port: 2525}},
		{c.Routes[0].To.String(), "smtp://relay.example.net:2525"},
		{c.Routes[1].To.String(), "smtp://[2001:db8::1]:26"},
		{c.Routes[2].To.String(), "smtp://192.0.2.7:25"},
		{c.Routes[3].To.String(), "discard"},
		{c.Routes[4].To.String(), "lmtp://store.example.net:24"},
		{c.Routes[5].To.String(), "lmtp+unix:///run/dovecot/lmtp"},
		{c.Routes[5].Security(TLSOpportunistic), TLSOff},
		{c.Routes[6].To.String(), "smtps://smart.example.net:465"},
		{c.Routes[6].Security(TLSOpportunistic), TLSVerified},
		{c.DNS.Servers[0].String(), "192.0.2.53:53"},
		{c.DNS.Servers[1].String(), "[2001:db8::53]:53"},
		{c.DNS.Servers[2].String(), "[2001:db8::53]:5353"},
		{c.DNS.TrustAD[1].String(), "2001:db8::/32"},
		{c.DNS.Stale, time.Duration(0)},
		{c.DNS.TTLMax, 24 * time.Hour},
		{c.Egress.Port, uint16(2525)},
		{c.Limits.MessageSize, int64(1 << 20)},
		{c.Events.MaxSize, int64(0)},
	} {
		if x.got != x.want {
			t.Errorf("got %v, want %v", x.got, x.want)
		}
	}
}

func TestValidate(t *testing.T) {
	c := Default()
	c.Hostname = "mail.example.com"
	c.Listeners = []Listener{{Address: "127.0.0.1:0", Mode: ModeMX}, {Address: "nonsense"}}
	c.Routes = []Route{{Domains: []string{"*"}, To: Target{Kind: ToHost}}, {}}
	want := strings.Join([]string{
		`listener[1].address: "nonsense" is not an address: want host:port, as in "127.0.0.1:2525" or "[::1]:2525"`,
		`listener[1].mode: missing: want "mx", "submission" or "submissions"`,
		`route[0].to: "smtp://:0": "0" is not a port: want 1 to 65535`,
		`route[1].domains: missing: want exact names, "*.suffix" or "*", as in ["example.com"]`,
		`route[1].to: missing: want ` + targetForms,
	}, "\n")
	err := c.Validate()
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	c.Listeners, c.Routes = c.Listeners[:1], nil
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

// TestManyDomains: a route may list very many domains; reading them takes linear time.
func TestManyDomains(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal + "[[route]]\nto = 'mx'\ndomains = [\n")
	for i := range 100_000 {
		fmt.Fprintf(&b, "\"d%d.example\",\n", i)
	}
	b.WriteString("\"d7.example\"]\n")
	_, err := Parse("m.toml", []byte(b.String()))
	if want := `m.toml:100008:1: route.domains: "d7.example" has a route above already: want it once`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.toml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(path, []byte("hostnam = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var problems Errors
	if !errors.As(err, &problems) || problems[0].File != path || problems[0].Line != 1 {
		t.Errorf("got %v", err)
	}
}

// FuzzParse: nothing makes the reader panic, a refusal always says where, and what is accepted is valid.
func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(Example))
	for _, c := range faults {
		f.Add([]byte(c.toml))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("accepted, but: %v", err)
			}
			return
		}
		var problems Errors
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("refused without a problem: %v", err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.Text == "" || strings.ContainsAny(p.String(), "\r\n\x00\x1b") {
				t.Fatalf("complaint %q", p)
			}
		}
	})
}

// TestOrigin tells where values were set.
func TestOrigin(t *testing.T) {
	c, err := Parse("mail.toml", []byte(minimal+"[[route]]\ndomains = ['a.example',\n 'b.example']\nto = 'mx'\n[[route]]\ndomains = ['*']\nto = 'discard'\n[egress]\nconnections = 20\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"hostname": "mail.toml:1", "listener[0].mode": "mail.toml:4", "route[0].domains": "mail.toml:6", "route[0].to": "mail.toml:8", "route[1].to": "mail.toml:11",
		"egress.connections": "mail.toml:13", "egress.messages": "", "route[0].tls": "", "route[0].domains[1]": "", "": "",
	} {
		if got := c.Origin(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if got := Default().Origin("hostname"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestNoFile: who has no configuration is told where to begin.
func TestNoFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "mailrace.toml"))
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mailrace config") {
		t.Error(err)
	}
}
