package mx

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const chainMax = 16 // CNAMEs that are followed

var errChain = errors.New("CNAMEs lead in a circle or too far")

// rrset is what DNS has under a name.
type rrset struct {
	rrs       []dns.RR
	name      string        // where the CNAMEs lead, or the name itself
	exists    bool          // the name exists, whether or not it has records of the type
	validated bool          // DNSSEC vouches for all of it, and for each step of the way
	ttl       time.Duration // for which this holds: the least of all that led to it, or that of the negative answer
}

// lookup finds the records of a type under a name, following CNAMEs. An error means that there is no verdict: SERVFAIL, REFUSED, FORMERR,
// timeouts and everything malformed.
func (r *Resolver) lookup(name string, qtype uint16) (rrset, error) {
	set := rrset{name: name, ttl: r.opts.TTLMax, validated: true}
	for links := 0; links <= chainMax; {
		m, err := r.query(set.name, qtype)
		if err != nil {
			return rrset{}, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], set.name, err)
		}
		set.validated = set.validated && m.AuthenticatedData
		start := links
		for links <= chainMax {
			if set.rrs = set.take(m.Answer, qtype); len(set.rrs) > 0 {
				set.exists = true
				return set, nil
			}
			target := set.cname(m.Answer)
			if target == "" {
				break
			}
			if !valid(target) {
				return rrset{}, fmt.Errorf("%s %s: a CNAME leads to %.100q", dns.TypeToString[qtype], set.name, target)
			}
			set.name = target
			links++
		}
		if links > chainMax {
			break
		}
		soa := authority(m)
		if m.Rcode == dns.RcodeNameError || soa != nil || links == start {
			set.exists = m.Rcode != dns.RcodeNameError
			set.ttl = min(set.ttl, negativeTTL(soa))
			return set, nil
		}
		// The server gave the chain only in part: ask for where it ends.
	}
	return rrset{}, fmt.Errorf("%s %s: %w", dns.TypeToString[qtype], name, errChain)
}

// take returns the records of the name and a type among rrs. Nothing else of a reply is believed: not the additional section, not other names.
func (s *rrset) take(rrs []dns.RR, qtype uint16) (taken []dns.RR) {
	for _, rr := range rrs {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == dns.ClassINET && same(h.Name, s.name) {
			taken = append(taken, rr)
			s.ttl = min(s.ttl, seconds(h.Ttl))
		}
	}
	return taken
}

// cname returns where the name leads to, or "".
func (s *rrset) cname(rrs []dns.RR) string {
	for _, rr := range rrs {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET && same(c.Hdr.Name, s.name) {
			s.ttl = min(s.ttl, seconds(c.Hdr.Ttl))
			return strings.ToLower(strings.TrimSuffix(c.Target, "."))
		}
	}
	return ""
}

// same compares a name of a reply with one without trailing dot.
func same(wire, name string) bool {
	return strings.EqualFold(strings.TrimSuffix(wire, "."), name)
}

// authority returns the SOA record of a negative reply, or nil.
func authority(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}

// negativeTTL is for how long a negative reply holds; without a SOA record, not at all. RFC 2308 §5
func negativeTTL(soa *dns.SOA) time.Duration {
	if soa == nil {
		return 0
	}
	return min(seconds(soa.Hdr.Ttl), seconds(soa.Minttl))
}

// seconds reads a TTL. Beyond 2^31 it is 0. RFC 2181 §8
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
