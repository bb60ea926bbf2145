// Package mx finds the mail exchangers of a domain and their addresses in DNS, keeps the answers for as long as they are valid, and turns
// every way in which DNS can fail into deliver, defer or bounce. It also finds the TLSA records of a host (DANE) and TXT records (MTA-STS,
// TLSRPT).
//
// Who asks does not wait but by choice: Cached tells what is known, Lookup calls back, Find waits. Everything else happens on at most
// Options.Workers goroutines. An answer is asked for again before it expires, where it is in use; and used beyond its time, where no name
// server gives a verdict (RFC 8767), but never to bounce mail.
//
// The DNS is not trusted: names are believed about themselves only, addresses must be public ones or allowed, every count is bounded, and what
// cannot be read is no verdict. Questions go out with a random id from a socket of their own, and a reply counts only if it comes from the
// server to that socket with that id and that question. Letters of mixed case in questions (0x20) are not used: servers that compare octets
// would deny names that exist, and mail would bounce; a validating name server on this machine is what helps against forgers.
package mx

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Kind is what is asked.
type Kind uint8

const (
	// Exchangers asks for the mail exchangers of a domain with their addresses (RFC 5321 §5.1). An address literal, "[192.0.2.1]" or
	// "[IPv6:2001:db8::1]", is its own exchanger. Addresses that are not public are left out unless they are allowed.
	Exchangers Kind = iota
	// Addresses asks for the addresses of a host that the operator named: no MX, no filter. An IP address without brackets is its own.
	Addresses
	// Texts asks for the TXT records of a name, as _mta-sts.example.com and _smtp._tls.example.com: see TextsOf.
	Texts
	// Associations asks for the TLSA records of a port of a host: see AssociationsOf.
	Associations
)

// Query is a question. It is comparable.
type Query struct {
	Kind Kind
	Name string // in the form that Normal gives, or an address literal
}

// TextsOf asks for the TXT records of name, which is in normal form. A name without any, or that does not exist, is an answer without
// Records of Class OK.
func TextsOf(name string) Query { return Query{Texts, name} }

// AssociationsOf asks which certificates the host, in normal form, may have on the port, as RFC 7672 §2.2.2 says: TLSA records count only
// if they, and the addresses of the host, were validated. The answer is one of
//   - OK with Records: DANE applies, also if no record is usable (TLSA.Usable); Records.Base is the name that it goes by.
//   - OK without Records: DANE does not apply: it is proven that there are none, or the zone is not signed, or no server is trusted.
//   - Temporary: that is not known, and somebody may have seen to it: delivery has to wait, or to go to another host.
func AssociationsOf(host string, port uint16) Query {
	return Query{Associations, "_" + strconv.Itoa(int(port)) + "._tcp." + host}
}

// service takes the name of AssociationsOf apart.
func (q Query) service() (prefix, host string) {
	at := strings.Index(q.Name, "._tcp.") + len("._tcp.")
	return q.Name[:at], q.Name[at:]
}

// Class is the verdict of a lookup.
type Class uint8

const (
	// OK: there is at least one host with at least one address. Of Texts and Associations: DNS has a verdict.
	OK Class = iota
	// Temporary: no verdict for now: defer.
	Temporary
	// Permanent: the mail cannot be delivered there: bounce. Never of Texts and Associations.
	Permanent
)

func (c Class) String() string { return [...]string{"ok", "temporary", "permanent"}[c] }

// Host is a mail exchanger.
type Host struct {
	Name       string // normal form, without trailing dot; of an address literal the text of the address
	Preference uint16 // lower is tried first
	Validated  bool   // DNSSEC vouches for the addresses, by a trusted server. Without it no TLSA record counts
	Addrs      []netip.Addr
}

// TLSA is one record of RFC 6698.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte // certificate, key or digest
}

// Usable says whether SMTP may go by the record: it is of DANE-TA(2) or DANE-EE(3) and in a known form. RFC 7672 §3.1. With records of which
// none is usable a session is to be encrypted, and proves nothing.
func (t *TLSA) Usable() bool {
	if t.Usage != 2 && t.Usage != 3 || t.Selector > 1 {
		return false
	}
	switch t.Matching {
	case 0:
		return len(t.Data) > 0
	case 1:
		return len(t.Data) == 32
	case 2:
		return len(t.Data) == 64
	}
	return false
}

// Records are what a name has. They are shared and immutable.
type Records struct {
	Texts []string // of Texts: each record's strings joined, in no order
	TLSA  []TLSA   // of Associations
	Base  string   // of Addresses and Exchangers: where the CNAMEs of the host or domain lead. Of Associations: under which host the records stand, that or itself. RFC 7672 §2.2.3

	// Of Exchangers, where somebody beside the resolver judged the hosts: what is demanded of each of Hosts, and the Key and Hash of all of them,
	// whatever is demanded.
	Demands []Demand
	Key     string
	Hash    uint64
}

// Answer is what a lookup found. It is shared and immutable.
type Answer struct {
	Query    Query
	Class    Class
	Code     int    // of Temporary and Permanent: the reply code that says the same, 451 or 550
	Enhanced string // of Temporary and Permanent: enhanced status code, RFC 3463 and RFC 7505
	Text     string // of Temporary and Permanent: a sentence for people
	Hosts    []Host // of OK: in ascending preference, those of the same by name, each with addresses
	Expires  time.Time

	// Validated: DNSSEC vouches for this, by a trusted server (Options.Trusted): of Exchangers for the MX records, or that there are none, and
	// not for the addresses; of Addresses and Texts for the records; of Associations for what AssociationsOf says.
	Validated bool
	// Stale: the time of this is over, and no server gave a verdict since. RFC 8767
	Stale bool

	// Key says which site this is: the hosts in order of preference, "a,b" where equal and "a;b" where b is second. Answers with the
	// same key lead to the same site. Hash is a hash of it, the same on every run.
	Key  string
	Hash uint64

	// Records are what Texts and Associations found, and of Addresses where the CNAMEs of the host lead; nil = nothing.
	Records *Records
}

// Exchange is the Key and Hash of the hosts as DNS names them: they are the same for all domains that have these, whatever each of them demands.
func (a *Answer) Exchange() (key string, hash uint64) {
	if a.Records != nil && a.Records.Key != "" {
		return a.Records.Key, a.Records.Hash
	}
	return a.Key, a.Hash
}

// entry is an answer in the cache, with what is known besides.
type entry struct {
	Answer
	until   uint32 // Unix seconds: DNS said that it holds until then. Of stale ones it was before
	refresh uint32 // Unix seconds: who wants to know from then on has it asked again, though it is still valid
	failed  error  // of Temporary: what went wrong

	// Of Exchangers: whom the MX records name, this node included, in the order of Hosts; the first best of them are in question; and
	// until when that holds, Unix seconds, which may be longer than their addresses do.
	listed      []Host
	best        uint8
	listedUntil uint32

	// Of Addresses: how the last domain looked that prefers this host, so that the next one that looks the same can share its memory.
	look atomic.Pointer[entry]
}

// shareWith takes the parts of e that are the same in other from there.
func (e *entry) shareWith(other *entry) {
	if e.Key != other.Key || !slices.EqualFunc(e.Hosts, other.Hosts, equalHosts) {
		return
	}
	alike := len(e.listed) == len(e.Hosts)
	e.Key, e.Hosts = other.Key, other.Hosts
	if alike {
		e.listed = e.Hosts
	} else if slices.EqualFunc(e.listed, other.listed, equalHosts) {
		e.listed = other.listed
	}
}

func equalHosts(a, b Host) bool {
	return a.Name == b.Name && a.Preference == b.Preference && a.Validated == b.Validated && slices.Equal(a.Addrs, b.Addrs)
}

// live says whether the answer may be used at now.
func (e *entry) live(now time.Time) bool { return now.Before(e.Expires) }

// fresh says whether the answer need not be asked for again yet.
func (e *entry) fresh(now time.Time) bool {
	return e.live(now) && (e.Stale || now.Unix() < int64(e.refresh))
}
