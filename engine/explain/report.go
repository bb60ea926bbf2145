// Package explain tells which way mail for an address would go now, and why: the route and the line of the configuration that sets it, what DNS
// says, the state of the site, the limits and policies, and what the mail would meet. It changes nothing, but that it asks DNS what delivery would
// ask, and keeps the answers.
package explain

import "time"

// Report is the way of mail for an address. Its form as JSON is stable: fields may be added, and none changes its meaning.
type Report struct {
	Time     time.Time `json:"time"`
	Node     bool      `json:"node"` // told by a running node; false = made of a configuration and DNS, and nothing is known of sites
	Address  Address   `json:"address"`
	Route    *Route    `json:"route,omitempty"` // nil = none matches
	DNS      *DNS      `json:"dns,omitempty"`   // nil = nothing has to be looked up
	Pool     *Pool     `json:"pool,omitempty"`  // nil = connections come from any address of this machine
	Site     *Site     `json:"site,omitempty"`  // nil = the mail comes to none
	Policies []Setting `json:"policies"`
	Limits   []Setting `json:"limits"`
	Egress   []Setting `json:"egress"`
	Verdict  Verdict   `json:"verdict"`
}

// Address is a forward-path.
type Address struct {
	Given    string `json:"given"`              // as it stands in the envelope
	Normal   string `json:"normal"`             // local-part without needless quotes, domain in lower case and A-labels (RFC 5890)
	Domain   string `json:"domain"`             // of Normal; of an address without one the hostname of the node
	SMTPUTF8 bool   `json:"smtputf8,omitempty"` // the next host must offer SMTPUTF8: Given is not ASCII

	local string // as written
}

// Route is the route that matches.
type Route struct {
	Name    string `json:"name"`
	To      string `json:"to"`
	Pattern string `json:"pattern"`           // of its domains
	Source  string `json:"source"`            // file:line of the domains, or Default
	Mailbox string `json:"mailbox,omitempty"` // of a maildir route: the directory of the address
}

// Where the answer of DNS came from.
const (
	Asked   = "asked"   // just now
	Cache   = "cache"   // it was known
	Stale   = "stale"   // its time is over, and no server gives a verdict
	Literal = "literal" // the address or the route says it itself
	Unknown = "unknown" // there is no answer
)

// DNS is what has been looked up.
type DNS struct {
	Question  string `json:"question"` // "mx" or "addresses"
	Name      string `json:"name"`
	From      string `json:"from"`
	Class     string `json:"class"` // ok, temporary or permanent
	Reply     string `json:"reply,omitempty"`
	Validated bool   `json:"validated"`             // DNSSEC vouches for it, by a trusted server
	TTL       int64  `json:"ttl_seconds"`           // for which it may still be used
	MXTTL     int64  `json:"mx_ttl_seconds"`        // for which the MX records may
	Age       int64  `json:"age_seconds,omitempty"` // of a stale answer: how long its time is over
	Hosts     []Host `json:"hosts"`
}

// Host is a mail exchanger, or the host of the route.
type Host struct {
	Name       string        `json:"name"`
	Preference uint16        `json:"preference"`
	Validated  bool          `json:"validated"` // its addresses are
	Stale      bool          `json:"stale,omitempty"`
	TTL        int64         `json:"ttl_seconds"`
	Dropped    string        `json:"dropped,omitempty"` // why it is not used
	Demand     string        `json:"demand,omitempty"`  // what it must show of TLS, for the domain: as tls_policy in records
	Addresses  []HostAddress `json:"addresses"`
}

// HostAddress is one address of it.
type HostAddress struct {
	Address  string    `json:"address"`
	Dropped  string    `json:"dropped,omitempty"`  // why it is not used
	Failures int       `json:"failures,omitempty"` // in a row
	Until    time.Time `json:"passed_over_until,omitzero"`
}

// States of a site.
const (
	SiteUnknown = "unknown" // nobody was asked, or nobody answered: see Site.Fault
	SiteVacant  = "vacant"  // neither mail nor connections, and no failure that is remembered
	SiteInUse   = "in use"
	SiteBackoff = "backed off"
)

// Site is where the mail queues.
type Site struct {
	Name            string    `json:"name"`
	Provider        string    `json:"provider,omitempty"`        // whose limits hold for all of its sites; "" = none is configured for it
	ProviderSource  string    `json:"provider_source,omitempty"` // file:line of the provider
	State           string    `json:"state"`
	Fault           string    `json:"fault,omitempty"`
	Queued          int       `json:"queued"`    // recipients in memory
	OnDisk          int64     `json:"on_disk"`   // recipients that have no room there, or wait for a site that failed; an estimate
	InFlight        int       `json:"in_flight"` // recipients
	Connections     int       `json:"connections"`
	Opening         int       `json:"opening"` // of these
	Idle            int       `json:"idle"`    // of these
	ConnectionsMost int       `json:"connections_most"`
	Shared          int       `json:"connections_shared,omitempty"`      // connections to the same hosts under any policy, and of the provider: those of this site are among them
	SharedMost      int       `json:"connections_shared_most,omitempty"` // of these
	Failures        int       `json:"failures"`                          // times in a row that it failed as a whole
	Backoff         time.Time `json:"backoff_until,omitzero"`
	Pause           time.Time `json:"no_further_connection_until,omitzero"`
	LastError       string    `json:"last_error,omitempty"`
}

// Default is the Source of what no line of the configuration sets.
const Default = "default"

// Setting is a value that holds for the mail, and who set it.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Key    string `json:"key,omitempty"`    // of the configuration
	Source string `json:"source,omitempty"` // file:line, or Default
}

// What mail would do.
const (
	Deliver = "deliver" // it would be handed to a host, or written
	Discard = "discard" // it would count as delivered, and be gone
	Wait    = "wait"    // it would be deferred
	Bounce  = "bounce"  // its sender would be told that it cannot be delivered
)

// Verdict is what mail would meet if it were sent now.
type Verdict struct {
	Would string    `json:"would"`
	Until time.Time `json:"until,omitzero"` // of Wait: not attempted before
	Text  string    `json:"text"`           // for people; of Bounce and Wait with code and enhanced status code where there are some
}
