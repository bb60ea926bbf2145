// Package mx finds the mail exchangers of a domain and their addresses in DNS, keeps the answers for as long as they are valid, and turns
// every way in which DNS can fail into deliver, defer or bounce. Workers ask; nobody waits for them but by a callback.
package mx

import (
	"net/netip"
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
)

// Query is a question. It is comparable.
type Query struct {
	Kind Kind
	Name string // in the form that Normal gives, or an address literal
}

// Class is the verdict of a lookup.
type Class uint8

const (
	// OK: there is at least one host with at least one address.
	OK Class = iota
	// Temporary: no verdict for now: defer.
	Temporary
	// Permanent: the mail cannot be delivered there: bounce.
	Permanent
)

func (c Class) String() string { return [...]string{"ok", "temporary", "permanent"}[c] }

// Host is a mail exchanger.
type Host struct {
	Name       string // normal form, without trailing dot; of an address literal the text of the address
	Preference uint16 // lower is tried first
	Addrs      []netip.Addr
}

// Answer is what a lookup found. It is shared and immutable.
type Answer struct {
	Query    Query
	Class    Class
	Code     int    // of Temporary and Permanent: the reply code that says the same, 451 or 550
	Enhanced string // of Temporary and Permanent: enhanced status code, RFC 3463 and RFC 7505
	Text     string // of Temporary and Permanent: a sentence for people
	Hosts    []Host // of OK: in ascending preference, each with addresses
	Expires  time.Time

	// Key says which site this is: the hosts in order of preference, "a,b" where equal and "a;b" where b is second. Answers with the
	// same key lead to the same site. Hash is a hash of it, the same on every run.
	Key  string
	Hash uint64
}
