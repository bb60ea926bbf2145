package egress

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"

	"mailrace/router"
)

// tickets is how many TLS sessions are kept to be resumed, one for each host, port and what is demanded there.
const tickets = 4096

// purse is the part of the TLS sessions kept that a connection may resume: those with the same server, under the same demand. So what was agreed on
// while nobody looked at the certificate never serves mail that wants it verified; and it is verified again, whatever is resumed.
type purse struct {
	all tls.ClientSessionCache
	key string
}

// Get implements tls.ClientSessionCache.
func (p purse) Get(string) (*tls.ClientSessionState, bool) { return p.all.Get(p.key) }

// Put implements tls.ClientSessionCache.
func (p purse) Put(_ string, s *tls.ClientSessionState) { p.all.Put(p.key, s) }

// purseKey names the sessions that may be resumed with a target. New TLSA records are another demand: a certificate that they do not mean any more is
// not resumed.
func purseKey(target *router.Target) string {
	key := fmt.Sprintf("%s:%d %d", serverName(target), target.Addr.Port(), target.TLS)
	d := target.Demand
	if d == nil {
		return key
	}
	sum := sha256.New()
	for i := range d.TLSA {
		r := &d.TLSA[i]
		fmt.Fprintf(sum, "%d %d %d %d ", r.Usage, r.Selector, r.Matching, len(r.Data))
		sum.Write(r.Data)
	}
	return fmt.Sprintf("%s %d %t %x %q", key, d.Kind, d.Signed, sum.Sum(nil), d.Names)
}

// config is the TLS of a connection to a target, whose certificate verify judges, also that of a session that is resumed. afresh: none is.
func (t *TLS) config(target *router.Target, afresh bool, verify func(tls.ConnectionState) error) *tls.Config {
	c := &tls.Config{
		ServerName: serverName(target), MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, VerifyConnection: verify, // where the route or the domain says so
		DynamicRecordSizingDisabled: true,
	}
	if !afresh {
		c.ClientSessionCache = purse{t.cache, purseKey(target)}
	}
	return c
}
