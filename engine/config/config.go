// Package config is mailrace.toml: its types, its defaults, and a strict reader whose every complaint names file, line and column, what
// stands there, and what would be right.
package config

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"time"

	"mailrace/proto/message"
)

// Config is one validated configuration. It is read-only once Parse, Load or Validate accepted it. Programs that embed Mailrace begin
// with Default, fill in what they need, and call Validate.
type Config struct {
	Hostname   string // the node's name: banner, EHLO, Received, Reporting-MTA. A domain name with at least two labels
	Engine     Engine
	Listeners  []Listener // at least one
	TLS        TLS
	Auth       Auth
	Spool      Spool
	Queue      Queue
	Routes     []Route // the most specific domain wins, whatever the order; none = everything by MX
	Policies   []Policy
	Providers  []Provider // the first one that has a host counts
	Sources    []Source
	Pools      []Pool
	Egress     Egress
	DNS        DNS
	Limits     Limits
	Recipients []Recipients // the most specific domain wins; none for a domain = everybody is there
	Labels     Labels
	DSN        DSN
	TLSReport  TLSReport
	Admin      Admin
	Events     Events
	Log        Log

	Idempotency Idempotency

	origin *origin // nil = no file
}

// Engine is the node as a whole.
type Engine struct {
	Loops          int           // event loops, 0..256; 0 = one per core
	Memory         int64         // budget for content and buffers held in RAM, bytes
	MaxConnections int           // inbound, and as many outbound
	DrainTimeout   time.Duration // how long a stop waits for transactions under way
}

// Listener is one door that mail comes in by.
type Listener struct {
	Address   string         // host:port to bind; host may be empty (all addresses), port 0 picks a free one
	Mode      Mode           // what is spoken there
	RelayFrom []netip.Prefix // clients that may relay anywhere; nobody by default
	StartTLS  bool           // offer STARTTLS if there are certificates; set by default in files. Submissions has TLS from the start

	BinaryMIME        bool           // take BODY=BINARYMIME; set by default in files. What a next host does not take like that bounces
	RelayDomains      []string       // recipients that anybody may send to: lower-case names, or "*.suffix" (every name below suffix)
	GreetDelay        time.Duration  // before the greeting, for clients that are not exempt (see Limits); who talks before it is refused
	ProxyFrom         []netip.Prefix // proxies, whose connections begin with a PROXY header (version 1 or 2) that tells the client's address
	XClientFrom       []netip.Prefix // clients that may tell by XCLIENT for whom they speak
	FixNewlines       bool           // bare LF and CR in content are replaced, rather than refused
	CheckFrom         bool           // From may name only addresses that the user may send from. Not with ModeMX
	CheckSender       bool           // mail of strangers whose domain takes none, by DNS, is refused
	RelayCertificates []string       // names in client certificates whose holders may relay anywhere: lower-case DNS names, or "*.suffix"
	Auth              *bool          // serve AUTH; nil = on submission and submissions, if Config.Auth is enabled: see Config.Authenticates
	AuthInClear       bool           // also where the session is not under TLS
}

// Mode is the kind of service a listener gives.
type Mode string

const (
	// ModeMX takes mail from other hosts, on port 25.
	ModeMX Mode = "mx"
	// ModeSubmission takes mail from users and programs, on port 587. RFC 6409
	ModeSubmission Mode = "submission"
	// ModeSubmissions is submission with TLS from the start, on port 465. RFC 8314 §3.3
	ModeSubmissions Mode = "submissions"
)

// TLS is how inbound connections are secured. Without certificates they are not.
type TLS struct {
	Certificates     []Certificate // the first that fits the client's SNI and algorithms is used, or else the first of all
	MinVersion       string        // "1.2" or "1.3"
	HandshakeTimeout time.Duration // for a whole handshake
	ClientCA         string        // PEM file: who issues the client certificates of Listener.RelayCertificates; "" = nobody. Read at start
	ACME             ACME
}

// ACME is where further certificates are got from, and renewed. RFC 8555
type ACME struct {
	Domains     []string // lower-case names, each of which gets a certificate of its own; none = ACME is off
	Email       string   // where the server's operators reach ours; "" = nowhere
	Directory   string   // https URL of the server's directory
	DirectoryCA string   // PEM file: who issued the server's own certificate; "" = those that the system trusts. Read at start
	Storage     string   // directory of keys and certificates, relative to the working directory; created when missing
	HTTP        string   // host:port that http-01 is answered at; "" = it is not
	TLSALPN     string   // host:port that tls-alpn-01 is answered at; "" = it is not
	Agree       bool     // to the server's terms: without, nothing is asked for
	EABKeyID    string   // external account binding, with EABKey
	EABKey      string   // base64url
}

// Secure says whether there are certificates, or will be.
func (t *TLS) Secure() bool { return len(t.Certificates) > 0 || len(t.ACME.Domains) > 0 }

// DirectoryRoots reads DirectoryCA; nil without one.
func (a *ACME) DirectoryRoots() (*x509.CertPool, error) {
	if a.DirectoryCA == "" {
		return nil, nil
	}
	return readPool(a.DirectoryCA)
}

// ClientCAs reads ClientCA.
func (t *TLS) ClientCAs() (*x509.CertPool, error) { return readPool(t.ClientCA) }

func readPool(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", quote(file))
	}
	return pool, nil
}

// Certificate is a pair of PEM files. They are read again when they change.
type Certificate struct {
	Chain string // the certificate, followed by those that issued it
	Key   string
}

// Spool is where accepted mail is kept.
type Spool struct {
	Path   string // directory, relative to the working directory; created when missing
	Shards int    // 0..256; 0 = one per core
	Sync   bool   // false = a 250 does not wait for the disk: benchmarks only

	Failover      string        // directory on another disk that takes the WAL while this one does not answer; "" = none
	FailoverAfter time.Duration // 1ms..1m: how long that is

	MinFree   int64 // bytes that are free on its file system, or MAIL gets 452; 0 = by the memtables
	MinInodes int   // likewise inodes; 0 = 10,000
	Reserve   int64 // bytes that it holds for the moment when the disk is full all the same; 0 = none

	InFlight string // directory on a file system in memory, for what is in flight; "" = noted in the shards only

	Reshard string // ReshardRefuse or ReshardAuto: what a start does when the spool has another number of shards
}

// What a start does with a spool that has another number of shards than configured.
const (
	// ReshardRefuse: it refuses, and names the command that changes the number.
	ReshardRefuse = "refuse"
	// ReshardAuto: it changes the number first, which reads and writes the whole spool.
	ReshardAuto = "auto"
)

// What is done about a delivery that may have happened.
const (
	// InDoubtRetry: it is tried again, and the recipient may get the message twice.
	InDoubtRetry = "retry"
	// InDoubtWait: it waits until an operator decides.
	InDoubtWait = "wait"
	// InDoubtGiveUp: it is not tried again, and its sender is told that it may have happened.
	InDoubtGiveUp = "give-up"
)

// Queue says when deferred mail is tried again.
type Queue struct {
	RetryMin time.Duration // first delay; doubles, with jitter, up to RetryMax
	RetryMax time.Duration
	Expire   time.Duration // lifetime of a message, above RetryMax

	Retry        []time.Duration // delays in place of RetryMin and RetryMax, one after the other; the last one repeats. None = by these two
	BounceExpire time.Duration   // lifetime of mail with the null reverse-path; 0 = Expire

	HoldMax      time.Duration // for how long a message may be held before its delivery (FUTURERELEASE); 0 = not at all
	DeliverByMin time.Duration // shortest time that a delivery may be given before the message is returned (DELIVERBY)

	InDoubt string // InDoubtRetry, InDoubtWait or InDoubtGiveUp: what is done about deliveries that may have happened

	InMemory int // recipients that are queued in memory; the others wait on the disk
}

// Route sends the mail of some domains to one place.
type Route struct {
	Domains     []string // lower-case names, "*.suffix" (every name below suffix, not suffix itself), or "*"
	To          Target
	Name        string   // for Policy.Routes, and the log; "" = its target there
	Connections int      // most connections to each site of this route; 0 = Egress.Connections
	TLS         Security // "" = Egress.TLS, but see Security
	Pool        string   // of sources; "" = Egress.Pool by MX, none to a host

	User        string // who we are at the host; "" = AUTH is not used. Hosts only
	Password    Secret // of User: this or Token
	Token       Secret // for OAUTHBEARER and XOAUTH2
	Mechanism   string // of AUTH; "" = the best that the host offers
	AuthInClear bool   // also where the session is not under TLS
}

// Security says whether deliveries go under TLS.
type Security string

const (
	// TLSOpportunistic: where the host offers it, whatever its certificate; where it fails, in clear. RFC 7435
	TLSOpportunistic Security = "opportunistic"
	// TLSRequired: or not at all; whatever the certificate.
	TLSRequired Security = "required"
	// TLSVerified: or not at all, with a certificate for the name of the host.
	TLSVerified Security = "verified"
	// TLSOff: never.
	TLSOff Security = "off"
)

// Security is the TLS of the route's connections, where egress says what is done when a route says nothing.
func (r *Route) Security(egress Security) Security {
	switch {
	case r.To.local():
		return TLSOff
	case r.TLS != "":
		return r.TLS
	case r.To.Kind == ToHostTLS, r.User != "" && !r.AuthInClear:
		return TLSVerified
	}
	return egress
}

// Egress is how mail leaves.
type Egress struct {
	Connections int            // most connections to one site
	Recipients  int            // most recipients of one transaction
	Messages    int            // transactions over one connection, 0 = no limit
	Window      int            // messages on their way over one connection, unanswered, where the peer has CHUNKING and PIPELINING; 0 = content goes by DATA
	WindowSize  int64          // octets of content on their way
	Port        uint16         // port of MX hosts
	Allow       []netip.Prefix // addresses that MX routes may reach although they are private, loopback or otherwise not public
	Own         []string       // names and addresses of this node besides Hostname and those of its listeners: an MX host that has one leads back here
	Pool        string         // of sources, for mail by MX that nothing else is said of; "" = from any address of this machine
	Prefer      string         // PreferIPv4 or PreferIPv6: which addresses of a host are tried first
	SourceRetry time.Duration  // for how long a source that cannot be used is out of service at first
	TLS         Security       // of routes that say nothing: TLSOpportunistic or TLSOff
	CA          string         // PEM file: who issues the certificates of hosts that are to be verified; "" = those whom the system trusts. Read at start
	STS         bool           // domains may demand TLS of MX routes that are not off, by MTA-STS
	DANE        bool           // and by DANE; for nothing while DNS.TrustAD is empty
	Idle        time.Duration  // how long a connection without work is kept
	Timeouts    Timeouts
}

// Timeouts are how long a remote server may take. The defaults are those of RFC 5321 §4.5.3.2
type Timeouts struct {
	Connect  time.Duration // for connecting, and for a TLS handshake
	Greeting time.Duration // for its banner
	Command  time.Duration // for the reply to EHLO, STARTTLS, AUTH and RSET
	Mail     time.Duration // for the reply to MAIL
	Rcpt     time.Duration // and to each RCPT
	Data     time.Duration // and to DATA
	Block    time.Duration // to take some of the content
	Final    time.Duration // for the reply to the end of data; by LMTP for each of them
}

// CAs reads CA; nil stands for those whom the system trusts.
func (e *Egress) CAs() (*x509.CertPool, error) {
	if e.CA == "" {
		return nil, nil
	}
	return readPool(e.CA)
}

// DNS is whom to ask.
type DNS struct {
	Servers []netip.AddrPort // empty = those of /etc/resolv.conf
	Timeout time.Duration    // of one query to one server
	TrustAD []netip.Prefix   // servers whose AD bit is believed: all of Servers, or empty

	Lookups     int           // under way at a time
	Cache       int           // answers that are kept
	TTLMin      time.Duration // for which an answer is believed at least
	TTLMax      time.Duration // at most
	NegativeMax time.Duration // for which it is believed at most that there is nothing
	Stale       time.Duration // for which answers are used beyond their time, while no server gives a verdict; 0 = not at all
}

// Limits bound what a client may do.
type Limits struct {
	MessageSize    int64         // octets of content; announced as SIZE
	Recipients     int           // of one transaction; 452 4.5.3 beyond
	LineLength     int           // octets of a command line, CRLF included
	Errors         int           // refused commands, then 421 and close
	Commands       int           // commands in a row that carry no mail (NOOP, RSET, HELP …), then 421 and close
	CommandTimeout time.Duration // for the next command, to its end
	DataTimeout    time.Duration // for the next octets of content

	MinRate         int           // octets of content per second; 0 = no floor
	RateWindow      time.Duration // how far content may fall behind MinRate, then 421 and close
	SessionTime     time.Duration // then 421 and close, after the message under way; 0 = no limit. Not for exempt clients
	SessionMessages int           // of one session, then 421 and close; 0 = no limit. Not for exempt clients

	PriorityMax int // highest MT-PRIORITY that clients who may relay can give, 0..9

	UnknownRecipients int           // of a session, told at once; the replies to further ones wait. Not for exempt clients
	UnknownDelay      time.Duration // how long the first of them waits; doubles, up to 30 s. 0 = none does

	Exempt   []netip.Prefix // clients without quotas and limits of the session, beside those in RelayFrom
	Interval time.Duration  // of the rates of Client and Network
	Client   Quota          // of an IPv4 address, or of the /64 of an IPv6 address
	Network  Quota          // of a /24 of IPv4, or a /48 of IPv6
}

// Quota is what one client or network that is not exempt may do, at all listeners together. 0 = no limit.
type Quota struct {
	Connections    int // open at once; 421 beyond
	ConnectionRate int // new ones in an interval; 421 beyond
	Messages       int // in an interval; 450 beyond
	Recipients     int // in an interval; 452 beyond
	Errors         int // refused commands in an interval; further connections get 421
	AuthFailures   int // failed AUTHs in an interval; further ones get 421
}

// Idempotency is how long a repeated injection is known by its key.
type Idempotency struct {
	Header string        // header field that holds the key, beside Labels.EnvID; "" = none
	Window time.Duration // since the first one
	Max    int           // keys that are held, some 70 bytes each; beyond it the oldest are forgotten early
}

// Recipients is what is known of those that Listener.RelayDomains lead to: File or Probe, not both.
type Recipients struct {
	Domains   []string      // lower-case names, or "*.suffix" (every name below suffix)
	File      string        // one recipient a line, or *@domain; read again when it changes
	Delimiter string        // octets that begin a subaddress, for File
	Probe     bool          // the next host is asked
	Defer     bool          // when that cannot be asked, recipients are deferred rather than accepted
	Known     time.Duration // how long it is believed that a recipient is there
	Unknown   time.Duration // and that it is not
}

// DefaultRecipients has the defaults of a table of recipients.
func DefaultRecipients() Recipients {
	return Recipients{Known: 6 * time.Hour, Unknown: 10 * time.Minute}
}

// Labels say where the labels of mail stand that comes from clients that may relay. The tenant of a user who authenticated goes before all.
type Labels struct {
	Tenant   string   // header field; "" = none
	Campaign string   // likewise
	EnvID    []string // parts of an ENVID, between slashes: "tenant", "campaign", "key"; empty = it says nothing
}

// Admin is the HTTP service.
type Admin struct {
	Address   string         // host:port; "" = off
	Names     []string       // by which clients may call it, besides its addresses, Hostname and the name in Address
	ProxyFrom []netip.Prefix // proxies, whose connections may begin with a PROXY header (version 1 or 2) that tells the client's address

	InjectFrom     []netip.Prefix // networks whose clients may inject mail without a name
	InjectUsers    bool           // users of Auth may inject, by HTTP Basic authentication, which sends passwords in clear
	InjectSize     int64          // octets of a request's body, unpacked
	InjectRequests int            // injections at a time; 429 beyond
	InjectTimeout  time.Duration  // for one of them: the body, and making it durable
}

// Events is the event log.
type Events struct {
	Path    string // file; "-" = standard output; "off" = none
	MaxSize int64  // bytes after which the file is rotated; 0 = never. Files only
	Keep    int    // rotated files kept, 0..1000
}

// Log is what the node says about itself, on standard error.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Default returns the configuration of an empty file: everything but the hostname and a listener.
func Default() *Config {
	return &Config{
		Engine: Engine{Memory: 1 << 30, MaxConnections: 20_000, DrainTimeout: 30 * time.Second},
		TLS: TLS{
			MinVersion: "1.2", HandshakeTimeout: 30 * time.Second,
			ACME: ACME{Directory: "https://acme-v02.api.letsencrypt.org/directory", Storage: "acme"},
		},
		Auth: Auth{
			Queue: 256, Cache: 5 * time.Minute, Failures: 20, FailureWindow: 10 * time.Minute, FailureDelay: time.Second,
			OAuth: OAuth{Claim: "email", Timeout: 10 * time.Second},
		},
		Spool: Spool{Path: "spool", Sync: true, Reserve: 64 << 20, FailoverAfter: 100 * time.Millisecond, InFlight: "/dev/shm", Reshard: ReshardRefuse},
		Queue: Queue{RetryMin: 5 * time.Minute, RetryMax: 4 * time.Hour, Expire: 5 * 24 * time.Hour, HoldMax: 7 * 24 * time.Hour, DeliverByMin: time.Minute, InDoubt: InDoubtRetry, InMemory: 200_000},
		Egress: Egress{
			Connections: 20, Recipients: 100, Messages: 1000, Window: 100, WindowSize: 1 << 20, Port: 25, Prefer: PreferIPv4, SourceRetry: 5 * time.Minute, TLS: TLSOpportunistic, STS: true, DANE: true, Idle: 10 * time.Second,
			Timeouts: Timeouts{
				Connect: 30 * time.Second, Greeting: 5 * time.Minute, Command: 5 * time.Minute, Mail: 5 * time.Minute, Rcpt: 5 * time.Minute,
				Data: 2 * time.Minute, Block: 3 * time.Minute, Final: 10 * time.Minute,
			},
		},
		DNS: DNS{
			Timeout: 5 * time.Second, Lookups: 256, Cache: 500_000,
			TTLMin: 30 * time.Second, TTLMax: 24 * time.Hour, NegativeMax: 15 * time.Minute, Stale: 24 * time.Hour,
		},
		Limits: Limits{
			MessageSize: 10_240_000, Recipients: 1000, LineLength: 2048, Errors: 20, Commands: 100,
			CommandTimeout: 5 * time.Minute, DataTimeout: 5 * time.Minute,
			MinRate: 500, RateWindow: 30 * time.Second, SessionTime: time.Hour, SessionMessages: 1000, UnknownRecipients: 5, UnknownDelay: time.Second, PriorityMax: message.PriorityMax,
			Interval: time.Minute,
			Client:   Quota{Connections: 50, ConnectionRate: 200, Messages: 2000, Recipients: 5000, Errors: 100, AuthFailures: 10},
			Network:  Quota{Connections: 200, ConnectionRate: 1000, Messages: 10_000, Recipients: 25_000, AuthFailures: 100},
		},
		DSN:         DefaultDSN(),
		Admin:       Admin{InjectSize: 32 << 20, InjectRequests: 16, InjectTimeout: time.Minute},
		Idempotency: Idempotency{Window: 24 * time.Hour, Max: 1_000_000},
		Events:      Events{Path: "events.jsonl", MaxSize: 1 << 30, Keep: 4},
		Log:         Log{Level: "info", Format: "text"},
	}
}
