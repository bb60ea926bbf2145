package sink_test

import (
	"context"
	"net"
	netsmtp "net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/bench/sink"
)

// startScript runs a sink at all addresses of this machine, and returns its port.
func startScript(t *testing.T, o sink.Options, script string) (*sink.Sink, string) {
	t.Helper()
	o.Script = filepath.Join(t.TempDir(), "script.toml")
	if err := os.WriteFile(o.Script, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Address = "0.0.0.0:0"
	s, err := sink.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, port, _ := net.SplitHostPort(s.Addr())
	return s, port
}

// mail sends a message over a connection that is open.
func mail(c *netsmtp.Client, to string) error {
	if err := c.Mail("from@a.example"); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	_, _ = w.Write([]byte("Subject: x\r\n\r\nhello\r\n"))
	return w.Close()
}

func dial(t *testing.T, address string) *netsmtp.Client {
	t.Helper()
	c, err := netsmtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func wantCode(t *testing.T, what, code string, err error) {
	t.Helper()
	if (err == nil) != (code == "") || err != nil && !strings.HasPrefix(err.Error(), code) {
		t.Errorf("%s: %v, want %q", what, err, code)
	}
}

// TestScriptedSites: who connects to a site of the script meets what it says, at each site by itself, and others meet the flags.
func TestScriptedSites(t *testing.T) {
	s, port := startScript(t, sink.Options{Permfail: sink.Shares{sink.Rcpt: 1}}, `
[[destination]]
name = "capped"
sites = ["127.1.0.0/24"]
connections = 1
messages = 2

[[destination]]
name = "down"
sites = ["127.1.1.1"]
tempfail = "connect=1"

[[destination]]
name = "rated"
sites = ["127.1.1.2"]
rate = "1/h"
`)
	c := dial(t, "127.1.0.1:"+port)
	wantCode(t, "first", "", mail(c, "x@b.example"))
	_, err := netsmtp.Dial("127.1.0.1:" + port)
	wantCode(t, "second connection", "421", err)
	wantCode(t, "another site", "", mail(dial(t, "127.1.0.2:"+port), "x@b.example"))
	wantCode(t, "second", "", mail(c, "x@b.example"))
	wantCode(t, "third", "421", mail(c, "x@b.example"))
	_, err = netsmtp.Dial("127.1.1.1:" + port)
	wantCode(t, "down", "421", err)
	c = dial(t, "127.1.1.2:"+port)
	wantCode(t, "rate", "", mail(c, "x@b.example"))
	wantCode(t, "beyond the rate", "451", mail(c, "x@b.example"))
	wantCode(t, "flags", "554", mail(dial(t, "127.0.0.1:"+port), "x@b.example"))
	r := s.Report()
	if len(r.Destinations) != 3 || r.Messages != 4 || r.Failures["rcpt"].Permfail != 1 || r.Failures["connect"].Tempfail != 1 {
		t.Fatalf("%+v", r)
	}
	if d := r.Destinations[0]; d.Accepted != 3 || d.Over != (sink.Caps{Connections: 1, Messages: 1}) || d.Most != (sink.Caps{Connections: 1, Messages: 2}) || d.Sites != 2 {
		t.Errorf("%+v", d)
	}
	if d := r.Destinations[1]; d.Failures["connect"].Tempfail != 1 {
		t.Errorf("%+v", d)
	}
	if d := r.Destinations[2]; d.Accepted != 1 || d.Over.Rate != 1 {
		t.Errorf("%+v", d)
	}
}

// TestScriptedDomains: a domain meets what the script says of it, and the flags do not count for it.
func TestScriptedDomains(t *testing.T) {
	s, port := startScript(t, sink.Options{Tempfail: sink.Shares{sink.Rcpt: 1}}, `
[[destination]]
name = "gone"
domains = ["gone.example"]
permfail = "rcpt=1"

[[destination]]
name = "slow"
domains = ["*.slow.example"]
delay = "1ms"
tempfail = "dot=1"

[[destination]]
name = "grey"
domains = ["grey.example"]
greylist = "1h"
connections = 1
messages = 2

[[destination]]
name = "good"
domains = ["good.example"]
`)
	c := dial(t, "127.0.0.1:"+port)
	wantCode(t, "gone", "554", mail(c, "x@gone.example"))
	_ = c.Reset()
	wantCode(t, "slow", "451", mail(c, "x@A.Slow.example"))
	wantCode(t, "good", "", mail(c, "x@good.example"))
	wantCode(t, "flags", "451 \"4.3.0", mail(c, "x@other.example"))
	_ = c.Reset()
	wantCode(t, "grey", "451 \"4.7.1", mail(c, "x@grey.example"))
	wantCode(t, "a second connection for it", "421", mail(dial(t, "127.0.0.1:"+port), "y@grey.example"))
	_ = c.Reset()
	wantCode(t, "grey", "451 \"4.7.1", mail(c, "x@grey.example"))
	_ = c.Reset()
	wantCode(t, "a third message", "421", mail(c, "x@grey.example"))
	r := s.Report()
	for i, want := range []string{"0 messages at 1 sites, most 1 connections", "0 messages at 1 sites, most 1 connections",
		"0 messages at 1 sites, most 1 connections, over a cap: 1 connections, 1 messages of one, 0 of a rate, 2 greylisted",
		"1 messages at 1 sites, most 1 connections"} {
		if got := r.Destinations[i].String(); got != want {
			t.Errorf("%s: %s, want %s", r.Destinations[i].Name, got, want)
		}
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "2 greylisted") {
		t.Errorf("%v\n%s", err, text.String())
	}
}

// TestSinkNames: any client finds its way to a site by DNS, and mail is taken there.
func TestSinkNames(t *testing.T) {
	s, port := startScript(t, sink.Options{DNS: "127.0.0.1:0"}, "[[destination]]\nname = \"one\"\nsites = [\"127.8.0.1\"]\ndomains = [\"one.example\"]\n")
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", s.Report().Names)
	}}
	for domain, want := range map[string]string{"one.example.": "127.8.0.1", "two.example.": "127.1.0."} {
		mx, err := r.LookupMX(t.Context(), domain)
		if err != nil || len(mx) != 1 {
			t.Fatalf("%v, %v", mx, err)
		}
		at, err := r.LookupHost(t.Context(), mx[0].Host)
		if err != nil || len(at) != 1 || !strings.HasPrefix(at[0], want) {
			t.Fatalf("%v, %v", at, err)
		}
		wantCode(t, domain, "", mail(dial(t, at[0]+":"+port), "x@b.example"))
	}
	if d := s.Report().Destinations[0]; d.Accepted != 1 {
		t.Errorf("%+v", d)
	}
	for _, o := range []sink.Options{{Address: "127.0.0.1:0", DNS: "127.0.0.1:0"}, {Address: ":0", Sites: "127.1.0.0/24"}, {Address: ":0", DNS: "nowhere"},
		{Address: ":0", DNS: "127.0.0.1:0", Sites: "x"}, {Address: ":0", Script: "none"}} {
		if s, err := sink.Start(o); err == nil {
			s.Close()
			t.Errorf("%+v was taken", o)
		}
	}
}
