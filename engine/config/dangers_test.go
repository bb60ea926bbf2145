package config

import (
	"strings"
	"testing"
)

func TestDangers(t *testing.T) {
	const head = "hostname = 'mail.example.com'\n[[listener]]\nmode = 'mx'\n"
	const admin = head + "address = '127.0.0.1:25'\nrelay_from = ['0.0.0.0/0']\nproxy_from = ['::/0']\nnewlines = 'fix'\nrelay_domains = ['example.com']\n"
	for _, c := range []struct {
		text string
		want []string
	}{
		{head + "address = ':25'\nrelay_from = ['10.0.0.0/8']\nrelay_domains = ['example.com']\n", nil},
		{head + "address = ':25'\nrelay_from = ['10.0.0.0/8', '::/0']\n", []string{"listener :25: relay_from is everybody"}},
		{head + "address = '192.0.2.1:25'\nproxy_from = ['0.0.0.0/0']\n", []string{"proxy_from or xclient_from is everybody"}},
		{head + "address = ':25'\nxclient_from = ['0.0.0.0/0']\n", []string{"proxy_from or xclient_from is everybody"}},
		{head + "address = ':25'\nnewlines = 'fix'\n", nil},
		{head + "address = ':25'\nnewlines = 'fix'\nrelay_domains = ['example.com']\n", []string{`newlines = "fix"`}},
		{head + "address = ':25'\nauth = true\nauth_in_clear = true\n[auth]\nusers = 'dangers_test.go'\n", []string{"auth_in_clear"}},
		{head + "address = ':25'\nauth_in_clear = true\n[auth]\nusers = 'dangers_test.go'\n", nil},
		{admin, nil},
		{admin + "[dns]\nservers = ['127.0.0.1', '192.0.2.53']\ntrust_ad = ['127.0.0.1', '192.0.2.0/24']\n", []string{"dns: trust_ad: who sits on the way to 192.0.2.53:53"}},
		{admin + "[admin]\naddress = 'localhost:8080'\ninject_from = ['0.0.0.0/0']\n", nil},
		{admin + "[admin]\naddress = ':8080'\ninject_from = ['127.0.0.0/8']\n", nil},
		{admin + "[admin]\naddress = ':8080'\nproxy_from = ['0.0.0.0/0']\n", []string{"admin :8080: proxy_from is everybody"}},
		{admin + "[admin]\naddress = ':8080'\ninject_from = ['0.0.0.0/0']\ninject_users = true\n[auth]\nusers = 'dangers_test.go'\n",
			[]string{"admin :8080: inject_from is everybody", "inject_users takes passwords in clear"}},
	} {
		cfg, err := Parse("m.toml", []byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got := cfg.Dangers()
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", c.text, got)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], c.want[i]) {
				t.Errorf("%s: %q, want %q", c.text, got[i], c.want[i])
			}
		}
	}
}

// TestNotes: DANE without a name server that validates is said to do nothing, where it could do something.
func TestNotes(t *testing.T) {
	const head = "hostname = 'mail.example.com'\n[[listener]]\nmode = 'mx'\naddress = ':25'\n"
	for text, want := range map[string]int{
		head:                              1,
		head + "[egress]\ndane = false\n": 0,
		head + "[egress]\ntls = 'off'\n":  0,
		head + "[dns]\nservers = ['127.0.0.1']\ntrust_ad = ['127.0.0.1']\n":       0,
		head + "[[route]]\ndomains = ['*']\nto = 'smtp://a.example'\n":            0,
		head + "[[route]]\ndomains = ['*']\nto = 'mx'\n":                          1,
		head + "[[route]]\ndomains = ['*']\nto = 'mx'\ntls = 'off'\n":             0,
		head + "[egress]\nmta_sts = false\n[[route]]\ndomains = ['*']\nto='mx'\n": 1,
	} {
		cfg, err := Parse("m.toml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if notes := cfg.Notes(); len(notes) != want || want > 0 && !strings.Contains(notes[0], "dane of [egress]") {
			t.Errorf("%s: %q", text, notes)
		}
	}
}
