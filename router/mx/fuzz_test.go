package mx

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// FuzzReply feeds the adapter whatever a server may send. It must neither panic nor take a reply to another question, nor a name that is none.
func FuzzReply(f *testing.F) {
	m := new(dns.Msg)
	m.SetQuestion("one.example.", dns.TypeMX)
	m.Id = 0x1234
	for _, lines := range [][]string{
		{"one.example. 300 MX 10 mx1.example."},
		{"one.example. 300 CNAME two.example.", "two.example. 5 MX 0 ."},
		{"one.example. 300 A 192.0.2.1", "one.example. 300 AAAA 2001:db8::1", "one.example. 4294967295 TXT a b c", "one.example. 300 TLSA 3 1 1 00"},
	} {
		reply := new(dns.Msg)
		reply.SetReply(m)
		for _, line := range lines {
			rr, _ := dns.NewRR(line)
			reply.Answer = append(reply.Answer, rr)
		}
		p, _ := reply.Pack()
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		reply, truncated, err := parse(p, m)
		if err != nil || truncated || len(reply.Question) == 0 {
			return
		}
		if reply.Id != m.Id || !strings.EqualFold(reply.Question[0].Name, "one.example.") {
			t.Fatal("took a reply to another question")
		}
		readAll(t, reply)
	})
}

// readAll does with a reply whatever the resolver does with one.
func readAll(t *testing.T, reply *dns.Msg) {
	set := rrset{name: "one.example", ttl: 24 * time.Hour}
	for range 3 {
		if rrs := set.take(reply.Answer, dns.TypeMX); len(rrs) > 0 {
			hosts, null := named(rrs)
			if null && len(hosts) > 0 {
				t.Fatal("a null MX with hosts")
			}
			for i, h := range hosts {
				if !valid(h.Name) {
					t.Fatalf("took the name %q", h.Name)
				}
				if i > 0 && h.Preference < hosts[i-1].Preference {
					t.Fatal("not in order")
				}
			}
		}
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			for _, rr := range set.take(reply.Answer, qtype) {
				addressOf(rr)
			}
		}
		for _, text := range textsOf(set.take(reply.Answer, dns.TypeTXT)) {
			if len(text) > recordBytes {
				t.Fatal("took a text that is too long")
			}
		}
		for _, tlsa := range tlsaOf(set.take(reply.Answer, dns.TypeTLSA)) {
			if tlsa.Usable() && len(tlsa.Data) == 0 || len(tlsa.Data) > recordBytes {
				t.Fatalf("took %+v", tlsa)
			}
		}
		set.name = set.cname(reply.Answer)
	}
	if ttl := negativeTTL(authority(reply)); ttl < 0 || set.ttl < 0 || set.ttl > 24*time.Hour {
		t.Fatalf("%v, %v", ttl, set.ttl)
	}
	bogus(reply)
}
