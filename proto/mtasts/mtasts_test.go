package mtasts

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseRecord(t *testing.T) {
	for name, c := range map[string]struct {
		texts []string
		id    string
	}{
		"of RFC 8461 §3.1":        {[]string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		"no semicolon at the end": {[]string{"v=STSv1;id=1"}, "1"},
		"spaces":                  {[]string{"v = STSv1 ;\tid = a1 ; x=y"}, "a1"},
		"beside others":           {[]string{"v=spf1 -all", "v=STSv1; id=1;", "v=STSv2; id=9"}, "1"},
		"two":                     {[]string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, ""},
		"one of two without id":   {[]string{"v=STSv1; id=1;", "v=STSv1;"}, ""},
		"none":                    {nil, ""},
		"no id":                   {[]string{"v=STSv1; x=1"}, ""},
		"bad id":                  {[]string{"v=STSv1; id=a-b"}, ""},
		"long id":                 {[]string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		"the version is later":    {[]string{"id=1; v=STSv1;"}, ""},
		"nothing behind":          {[]string{"v=STSv1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if id := ParseRecord(c.texts); id != c.id {
				t.Errorf("%q, want %q", id, c.id)
			}
		})
	}
}

func TestParsePolicy(t *testing.T) {
	many := "version: STSv1\nmode: enforce\nmax_age: 1\n" + strings.Repeat("mx: a.example\n", 101)
	for name, c := range map[string]struct {
		text  string
		want  Policy
		fault string
	}{
		"of RFC 8461 §3.2": {"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n",
			Policy{Enforce, []string{"mail.example.com", "*.example.net", "backupmx.example.com"}, 7 * 24 * time.Hour}, ""},
		"none, lines of LF":       {"mode:none\nversion:STSv1\nmax_age:0", Policy{Mode: None}, ""},
		"the first counts":        {"version: STSv1\nmode: testing\nmode: enforce\nmx: A.Example.\nmax_age: 60\nmax_age: 1\n", Policy{Testing, []string{"a.example"}, time.Minute}, ""},
		"unknown keys":            {"version: STSv1\nx-new: a: b\nmode: testing\nmx: a.example\n\nmax_age: 9999999999\n", Policy{Testing, []string{"a.example"}, AgeMax}, ""},
		"empty":                   {"", Policy{}, "version is missing"},
		"HTML":                    {"<html>\n", Policy{}, "not a field"},
		"no mx":                   {"version: STSv1\nmode: enforce\nmax_age: 1\n", Policy{}, "mx is missing"},
		"no max_age":              {"version: STSv1\nmode: enforce\nmx: a.example\n", Policy{}, "max_age is missing"},
		"another version":         {"version: STSv2\n", Policy{}, "version"},
		"unknown mode":            {"version: STSv1\nmode: Enforce\n", Policy{}, "mode"},
		"negative max_age":        {"max_age: -1\n", Policy{}, "max_age"},
		"a star within":           {"mx: a.*.example\n", Policy{}, "mx"},
		"a star alone":            {"mx: *.\n", Policy{}, "mx"},
		"too many mail exchanger": {many, Policy{}, "more than"},
		"too long":                {strings.Repeat("a: b\n", PolicyMax/5+1), Policy{}, "longer"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := ParsePolicy(c.text)
			switch {
			case c.fault != "":
				if err == nil || !strings.Contains(err.Error(), c.fault) {
					t.Errorf("%v, %v, want %q", p, err, c.fault)
				}
			case err != nil:
				t.Error(err)
			case !reflect.DeepEqual(*p, c.want):
				t.Errorf("%+v, want %+v", *p, c.want)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	p := &Policy{Mode: Enforce, MX: []string{"mx.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mx.example.com": true, "a.mx.example.com": false, "xmx.example.com": false, "example.com": false,
		"a.example.net": true, "a.b.example.net": false, "example.net": false, ".example.net": false, "aexample.net": false,
	} {
		if p.Allows(host) != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add("version: STSv1\nmode: enforce\nmx: *.example.net\nmax_age: 604800\n", "mx.example.net")
	f.Add("v=STSv1; id=1;", "a")
	f.Fuzz(func(t *testing.T, text, host string) {
		if id := ParseRecord([]string{text, host}); id != "" && !validID(id) {
			t.Errorf("id %q", id)
		}
		p, err := ParsePolicy(text)
		if err != nil {
			return
		}
		p.Allows(host)
		if p.MaxAge < 0 || p.MaxAge > AgeMax || len(p.MX) > patternsMax || p.Mode != None && len(p.MX) == 0 {
			t.Errorf("%+v", p)
		}
		again := fmt.Sprintf("version: STSv1\nmode: %s\nmax_age: %d\n", p.Mode, p.MaxAge/time.Second)
		for _, mx := range p.MX {
			again += "mx: " + mx + "\n"
		}
		if q, err := ParsePolicy(again); len(again) <= PolicyMax && (err != nil || !reflect.DeepEqual(p, q)) {
			t.Errorf("%+v became %+v, %v", p, q, err)
		}
	})
}
