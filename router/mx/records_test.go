package mx

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestTexts(t *testing.T) {
	z := world(t, `_mta-sts.one.example. 300 TXT "v=STSv1; " "id=20260301"`, `_mta-sts.one.example. 300 TXT other`, "_mta-sts.two.example. 300 CNAME _mta-sts.one.example.")
	z.fail("_mta-sts.bad.example TXT", dns.RcodeServerFailure)
	for i := range 2 * recordsMost {
		z.add(t, fmt.Sprintf("_smtp._tls.many.example. 300 TXT %d", i))
	}
	r := newResolver(t, z, nil)
	for name, want := range map[string]string{
		"_mta-sts.one.example": "other|v=STSv1; id=20260301", "_mta-sts.two.example": "other|v=STSv1; id=20260301", "_mta-sts.absent.example": "", "_mta-sts.bad.example": noService,
	} {
		a, err := r.Find(t.Context(), TextsOf(name))
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if a.Class != OK {
			got = show(a)
		} else if a.Records != nil {
			got = strings.Join(slices.Sorted(slices.Values(a.Records.Texts)), "|")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if a := find(t, r, Texts, "_smtp._tls.many.example"); len(a.Records.Texts) != recordsMost {
		t.Errorf("%d texts", len(a.Records.Texts))
	}
}

const digest = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// associations shows what Associations found.
func associations(a *Answer) string {
	switch {
	case a.Class != OK:
		return show(a)
	case a.Records == nil:
		return fmt.Sprintf("none, validated %v", a.Validated)
	}
	usable := 0
	for _, t := range a.Records.TLSA {
		if t.Usable() {
			usable++
		}
	}
	return fmt.Sprintf("%s: %d of %d", a.Records.Base, usable, len(a.Records.TLSA))
}

// TLSA records count only if DNSSEC vouches for them and for the addresses. What cannot be known is not "none". RFC 7672 §2.2
func TestD18Associations(t *testing.T) {
	z := newZone(t,
		"mx.signed.example. 300 A 192.0.2.1", "_25._tcp.mx.signed.example. 300 TLSA 3 1 1 "+digest, "_25._tcp.mx.signed.example. 300 TLSA 1 1 1 "+digest,
		"bare.signed.example. 300 A 192.0.2.1",
		"pkix.signed.example. 300 A 192.0.2.1", "_25._tcp.pkix.signed.example. 300 TLSA 0 0 1 "+digest, "_25._tcp.pkix.signed.example. 300 TLSA 3 1 1 0011",
		"mx.plain.example. 300 A 192.0.2.1", "_25._tcp.mx.plain.example. 300 TLSA 3 1 1 "+digest,
		"to.signed.example. 300 CNAME mx.signed.example.",                                                                  // under the name that it leads to
		"own.signed.example. 300 CNAME bare.signed.example.", "_25._tcp.own.signed.example. 300 TLSA 2 0 2 "+digest+digest, // under its own
		"out.signed.example. 300 CNAME mx.plain.example.", "_25._tcp.out.signed.example. 300 TLSA 3 1 1 "+digest, // its own, though it leads out
		"in.plain.example. 300 CNAME mx.signed.example.", "_25._tcp.in.plain.example. 300 TLSA 3 1 1 "+digest, // nothing proves that it leads there
		"fail.signed.example. 300 A 192.0.2.1", "dead.signed.example. 300 A 192.0.2.1", "half.signed.example. 300 A 192.0.2.1", //
		"_25._tcp.half.signed.example. 300 TLSA 3 1 1 "+digest,
		"cname.signed.example. 300 A 192.0.2.1", "_25._tcp.cname.signed.example. 300 CNAME _25._tcp.mx.signed.example.",
	)
	z.sign("signed.example")
	z.fail("_25._tcp.fail.signed.example TLSA", dns.RcodeServerFailure)
	z.hook("_25._tcp.dead.signed.example TLSA", garble)
	z.hook("half.signed.example AAAA", garble) // who suppresses one family does not get rid of DANE
	z.fail("broken.signed.example A", dns.RcodeServerFailure)
	z.fail("broken.signed.example AAAA", dns.RcodeServerFailure)
	r := newResolver(t, z, trusting)
	for host, want := range map[string]string{
		"mx.signed.example":     "mx.signed.example: 1 of 2",
		"bare.signed.example":   "none, validated true",
		"pkix.signed.example":   "pkix.signed.example: 0 of 2",
		"mx.plain.example":      "none, validated false",
		"to.signed.example":     "mx.signed.example: 1 of 2",
		"own.signed.example":    "own.signed.example: 1 of 1",
		"out.signed.example":    "out.signed.example: 1 of 1",
		"in.plain.example":      "none, validated false",
		"fail.signed.example":   noService,
		"dead.signed.example":   noService,
		"broken.signed.example": noService,
		"half.signed.example":   "half.signed.example: 1 of 1",
		"cname.signed.example":  "cname.signed.example: 1 of 2",
		"gone.signed.example":   "none, validated false",
	} {
		a, err := r.Find(t.Context(), AssociationsOf(host, 25))
		if err != nil {
			t.Fatal(err)
		}
		if got := associations(a); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	if z.count("udp _25._tcp.mx.plain.example TLSA") != 0 {
		t.Error("asked for TLSA in a zone that is not signed") // many servers of such zones do not answer that
	}
}

// Without a server that is trusted there is no DANE, and no question.
func TestD18NoTrust(t *testing.T) {
	z := world(t, "_25._tcp.mx1.example. 300 TLSA 3 1 1 "+digest)
	z.hook("*", func(_ dns.ResponseWriter, _, reply *dns.Msg) bool { reply.AuthenticatedData = true; return false })
	a, err := newResolver(t, z, nil).Find(t.Context(), AssociationsOf("mx1.example", 25))
	if err != nil || associations(a) != "none, validated false" || len(z.sightings()) != 0 {
		t.Errorf("%v %v, %d questions", a, err, len(z.sightings()))
	}
}

// What DNSSEC vouches for: the MX records and the addresses, each by itself, through every alias on the way.
func TestD18Exchangers(t *testing.T) {
	z := newZone(t,
		"both.signed.example. 300 MX 10 mx.signed.example.", "half.signed.example. 300 MX 10 mx.plain.example.", "half.plain.example. 300 MX 10 mx.signed.example.",
		"alias.plain.example. 300 CNAME both.signed.example.", "self.signed.example. 300 A 192.0.2.3",
		"mx.signed.example. 300 A 192.0.2.1", "mx.plain.example. 300 A 192.0.2.2")
	z.sign("signed.example")
	r := newResolver(t, z, trusting)
	for name, want := range map[string][2]bool{
		"both.signed.example": {true, true}, "half.signed.example": {true, false}, "half.plain.example": {false, true}, "alias.plain.example": {false, true}, "self.signed.example": {true, true},
	} {
		if a := find(t, r, Exchangers, name); a.Validated != want[0] || a.Hosts[0].Validated != want[1] {
			t.Errorf("%s: MX %v, addresses %v", name, a.Validated, a.Hosts[0].Validated)
		}
	}
}

func TestD18Usable(t *testing.T) {
	for _, c := range []struct {
		tlsa TLSA
		want bool
	}{
		{TLSA{3, 1, 1, make([]byte, 32)}, true}, {TLSA{2, 0, 2, make([]byte, 64)}, true}, {TLSA{3, 0, 0, make([]byte, 900)}, true},
		{TLSA{0, 1, 1, make([]byte, 32)}, false}, {TLSA{1, 1, 1, make([]byte, 32)}, false}, {TLSA{4, 1, 1, make([]byte, 32)}, false}, {TLSA{3, 2, 1, make([]byte, 32)}, false},
		{TLSA{3, 1, 3, make([]byte, 32)}, false}, {TLSA{3, 1, 1, make([]byte, 31)}, false}, {TLSA{3, 1, 2, make([]byte, 32)}, false}, {TLSA{3, 1, 0, nil}, false},
	} {
		if got := c.tlsa.Usable(); got != c.want {
			t.Errorf("%+v: %v", c.tlsa, got)
		}
	}
}
