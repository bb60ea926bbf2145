package engine

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/proto/message"
)

// proofs are the certificates of a network in which far.example has two mail exchangers, mx1 and mx2.
type proofs struct {
	good, other *tls.Config // valid for both exchangers, and for neither
	ca          string
	ee, wrong   string // TLSA records of mx1: that of good, and that of nothing
	unusable    string
}

func newProofs(t *testing.T) *proofs {
	t.Helper()
	p := &proofs{}
	p.good, p.ca = certified(t, "mx1.far.example", "mx2.far.example", "mta-sts.far.example")
	p.other, _ = certified(t, "other.example")
	leaf, err := x509.ParseCertificate(p.good.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	p.ee, p.wrong = "3 1 1 "+hex.EncodeToString(sum[:]), "3 1 1 "+strings.Repeat("00", 32)
	p.unusable = "1 1 1 " + hex.EncodeToString(sum[:]) // PKIX-EE: RFC 7672 §3.1.3
	return p
}

// The sorts of host: what stands for STARTTLS. One that requires offers REQUIRETLS too, and one that is dead nothing.
const bare, valid, invalid, broken, requires, dead = "bare", "valid", "invalid", "broken", "requires", "dead"

func (p *proofs) manners(sort string) manners {
	switch sort {
	case valid:
		return manners{tls: p.good}
	case invalid:
		return manners{tls: p.other}
	case broken:
		return manners{tls: unfriendly}
	case requires:
		return manners{tls: p.good, secret: []string{"REQUIRETLS"}}
	}
	return manners{}
}

// TestPoliciesAndFailover: whatever is demanded of the hosts of a domain, a host that does not show it is as good as one that is not there, and the
// next one is asked at once (RFC 8461 §5, RFC 7672 §2.2). Where none shows it mail waits, and does not go out; what can never
// be shown comes back.
func TestPoliciesAndFailover(t *testing.T) {
	proofs := newProofs(t)
	const noSTS, noTLSA, bogus = "", "", "bogus"
	all, first, second := "*.far.example", "mx1.far.example", "mx2.far.example"
	ee, wrong, unusable := proofs.ee, proofs.wrong, proofs.unusable
	for name, c := range map[string]struct {
		sts      string
		tlsa     string // of mx1
		route    config.Security
		require  bool
		mx1, mx2 string
		want     string // the host and how it was spoken to, or the end
		why      string // what in the RFC says so
	}{
		"enforce, all is well":                        {policyOf("enforce", all), noTLSA, "", false, valid, valid, "mx1 verified", "RFC 8461 §4.2"},
		"enforce, the first has no STARTTLS":          {policyOf("enforce", all), noTLSA, "", false, bare, valid, "mx2 verified", "RFC 8461 §5"},
		"enforce, the first has another certificate":  {policyOf("enforce", all), noTLSA, "", false, invalid, valid, "mx2 verified", "RFC 8461 §5"},
		"enforce, the first fails in the handshake":   {policyOf("enforce", all), noTLSA, "", false, broken, valid, "mx2 verified", "RFC 8461 §5"},
		"enforce, the first is not named":             {policyOf("enforce", second), noTLSA, "", false, valid, valid, "mx2 verified", "RFC 8461 §5"},
		"enforce, the second is not named":            {policyOf("enforce", first), noTLSA, "", false, bare, valid, "deferral 4.7.4", "RFC 8461 §5"},
		"enforce, none has STARTTLS":                  {policyOf("enforce", all), noTLSA, "", false, bare, bare, "deferral 4.7.4", "RFC 8461 §5, RFC 3463 §3.8"},
		"enforce, none has the certificate":           {policyOf("enforce", all), noTLSA, "", false, invalid, invalid, "deferral 4.7.5", "RFC 8461 §5"},
		"enforce, none is named":                      {policyOf("enforce", "mx.elsewhere.example"), noTLSA, "", false, valid, valid, "deferral 4.7.5", "RFC 8461 §5"},
		"testing, the first has no STARTTLS":          {policyOf("testing", all), noTLSA, "", false, bare, valid, "mx1 clear", "RFC 8461 §5"},
		"testing, the first has another certificate":  {policyOf("testing", all), noTLSA, "", false, invalid, valid, "mx1 encrypted", "RFC 8461 §5"},
		"testing, the first is not named":             {policyOf("testing", second), noTLSA, "", false, valid, valid, "mx1 *", "RFC 8461 §5"},
		"none, the first has no STARTTLS":             {policyOf("none", all), noTLSA, "", false, bare, valid, "mx1 ", "RFC 8461 §5"},
		"none, none is named":                         {policyOf("none", "mx.elsewhere.example"), noTLSA, "", false, invalid, valid, "mx1 encrypted", "RFC 8461 §5"},
		"DANE, met":                                   {noSTS, ee, "", false, valid, bare, "mx1 verified", "RFC 7672 §2.2"},
		"DANE, the first has no STARTTLS":             {noSTS, ee, "", false, bare, bare, "mx2 ", "RFC 7672 §2.2: mx2 has no records"},
		"DANE, the first has another certificate":     {noSTS, wrong, "", false, valid, invalid, "mx2 encrypted", "RFC 7672 §2.2: mx2 has no records"},
		"DANE, unusable, any certificate":             {noSTS, unusable, "", false, invalid, bare, "mx1 encrypted", "RFC 7672 §2.2: TLS without authentication"},
		"DANE, unusable, the first has no STARTTLS":   {noSTS, unusable, "", false, bare, bare, "mx2 ", "RFC 7672 §2.2: TLS is mandatory"},
		"DANE, unusable beside usable":                {noSTS, unusable + ";" + ee, "", false, invalid, bare, "mx2 ", "RFC 7672 §2.2: authentication is mandatory"},
		"DANE, bogus":                                 {noSTS, bogus, "", false, valid, bare, "mx2 ", "RFC 7672 §2.1.1"},
		"DANE at the first, MTA-STS at the second":    {policyOf("enforce", all), wrong, "", false, valid, valid, "mx2 verified", "RFC 8461 §2"},
		"DANE at the first, the second is not named":  {policyOf("enforce", first), wrong, "", false, valid, valid, "deferral 4.7.5", "RFC 8461 §2, §5"},
		"DANE met by one that the policy leaves out":  {policyOf("enforce", second), ee, "", false, valid, valid, "mx1 verified", "RFC 8461 §2"},
		"REQUIRETLS, the first offers it":             {policyOf("enforce", all), noTLSA, "", true, requires, valid, "mx1 verified", "RFC 8689 §4.2.1"},
		"REQUIRETLS, none offers it":                  {policyOf("enforce", all), noTLSA, "", true, valid, valid, "bounce 5.7.30", "RFC 8689 §4.2.1, §5"},
		"REQUIRETLS, the second offers it":            {policyOf("enforce", all), noTLSA, "", true, valid, requires, "mx2 verified", "RFC 8689 §4.2.1: each host of the list"},
		"REQUIRETLS, one is dead, none offers it":     {policyOf("enforce", all), noTLSA, "", true, dead, valid, "deferral 4.7.30", "RFC 8689 §4.2.1: the dead one may"},
		"REQUIRETLS, testing is no proof":             {policyOf("testing", all), noTLSA, "", true, requires, requires, "bounce 5.7.30", "RFC 8689 §4.2.1 step 1"},
		"REQUIRETLS, nothing proves the MX":           {noSTS, noTLSA, "", true, requires, requires, "bounce 5.7.30", "RFC 8689 §4.2.1 step 1"},
		"REQUIRETLS, by DANE":                         {noSTS, ee, "", true, requires, bare, "mx1 verified", "RFC 8689 §4.2.1"},
		"required, the first has no STARTTLS":         {noSTS, noTLSA, config.TLSRequired, false, bare, invalid, "mx2 encrypted", "the route"},
		"required, none has STARTTLS":                 {noSTS, noTLSA, config.TLSRequired, false, bare, bare, "deferral 4.7.4", "the route"},
		"verified, the first has no STARTTLS":         {noSTS, noTLSA, config.TLSVerified, false, bare, valid, "mx2 verified", "the route"},
		"verified, the first has another certificate": {noSTS, noTLSA, config.TLSVerified, false, invalid, valid, "mx2 verified", "the route"},
		"verified, none has STARTTLS":                 {noSTS, noTLSA, config.TLSVerified, false, bare, bare, "deferral 4.7.4", "the route"},
		"verified, none has the certificate":          {noSTS, noTLSA, config.TLSVerified, false, invalid, invalid, "deferral 4.7.5", "the route"},
		"nothing demanded, the first is broken":       {noSTS, noTLSA, "", false, broken, valid, "mx1 ", "RFC 3207 §4, opportunistic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, c.tlsa != "")
			n.cfg.Routes[0].TLS, n.cfg.Egress.CA = c.route, proofs.ca
			hosts := map[string]*host{"mx1": n.addWith(first, "127.0.1.1", proofs.manners(c.mx1), nil), "mx2": n.addWith(second, "127.0.1.2", proofs.manners(c.mx2), nil)}
			if c.mx1 == dead {
				hosts["mx1"].close()
			}
			n.add("sender.example", "127.0.1.3", nil)
			n.zone.add(t, "far.example. 300 IN MX 10 mx1.far.example.", "far.example. 300 IN MX 20 mx2.far.example.", "mta-sts.far.example. 300 IN A 127.0.0.1")
			if c.sts != "" {
				n.zone.add(t, `_mta-sts.far.example. 300 IN TXT "v=STSv1; id=1;"`)
			}
			at := fmt.Sprintf("_%d._tcp.mx1.far.example.", n.port)
			for record := range strings.SplitSeq(c.tlsa, ";") {
				if record == bogus {
					n.zone.fail(at)
				} else if record != "" {
					n.zone.add(t, at+" 300 IN TLSA "+record)
				}
			}
			n.web, _ = webServer(t, proofs.good, func(string) (int, string, string) { return 200, "text/plain", c.sts })
			n.serve()
			n.submit(func(m *message.Message) {
				if c.require {
					m.Flags |= message.RequireTLS
				}
			}, "a@far.example")
			n.pass(4*time.Minute, func() bool { return len(n.records("delivery", "bounce")) > 0 }) // there is no second attempt before 5 minutes
			got := n.outcome("a@far.example", hosts)
			if want, _ := strings.CutSuffix(c.want, "*"); got != c.want && (want == c.want || !strings.HasPrefix(got, want)) {
				t.Errorf("%q, want %q by %s: %+v", got, c.want, c.why, n.records())
			}
		})
	}
}

// outcome is what became of the mail to a recipient: the host that has it and what its connection showed, or the record and its enhanced code.
func (n *network) outcome(recipient string, hosts map[string]*host) (got string) {
	for _, e := range n.records("delivery", "bounce", "deferral") {
		if e.Recipient == recipient {
			got = e.Type + " " + e.Enhanced
			for name, h := range hosts {
				if e.Type == "delivery" && len(h.mail) > 0 {
					got = name + " " + e.TLSVerdict
				}
			}
		}
	}
	return got
}
