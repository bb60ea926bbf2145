package config

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"mailrace/proto/header"
	"mailrace/proto/message"
)

// checker gathers what is wrong with the values of a Config.
type checker struct{ problems Errors }

func (k *checker) complain(key, format string, args ...any) {
	k.problems = append(k.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

// problems judges every value, whoever set it.
func (c *Config) problems() Errors {
	k := &checker{}
	k.hostname(c.Hostname)
	k.within("engine.loops", c.Engine.Loops, 0, 256)
	k.bytes("engine.memory", c.Engine.Memory, 16<<20, 1<<50)
	k.within("engine.max_connections", c.Engine.MaxConnections, 1, 1_000_000)
	k.lasts("engine.drain_timeout", c.Engine.DrainTimeout, 0, time.Hour)
	k.listeners(c)
	k.tls(&c.TLS)
	k.auth(&c.Auth)
	k.spool(&c.Spool)
	k.queue(&c.Queue)
	k.routes(c.Routes)
	k.policies(c)
	k.providers(c)
	k.sources(c)
	k.recipients(c.Recipients)
	k.egress(&c.Egress)
	k.dns(&c.DNS)
	k.limits(&c.Limits)
	k.labels(c)
	k.dsn(&c.DSN)
	k.tlsReport(&c.TLSReport)
	k.ownRoutes(c)
	k.admin(c)
	k.lasts("idempotency.window", c.Idempotency.Window, time.Second, 30*24*time.Hour)
	k.within("idempotency.max", c.Idempotency.Max, 1000, 1_000_000_000)
	if c.Events.Path == "" {
		k.complain("events.path", `empty: want a file, "-" for standard output, or "off"`)
	}
	if c.Events.MaxSize != 0 {
		k.bytes("events.max_size", c.Events.MaxSize, 64<<10, 1<<50)
	}
	k.within("events.keep", c.Events.Keep, 0, 1000)
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "text", "json")
	return k.problems
}

func (k *checker) hostname(name string) {
	const want = `the full name of this node, as in "mail.example.com"`
	switch fault := hostFault(name); {
	case name == "":
		k.complain("hostname", "missing: want %s", want)
	case fault != "":
		k.complain("hostname", "%s", advise(fault, want))
	case !strings.Contains(name, "."):
		// RFC 5321 §2.3.5: only resolvable, fully-qualified names identify a host.
		k.complain("hostname", `%s is a short name: want the full one, as in %q`, quote(name), name+".example.com")
	}
}

func (k *checker) listeners(c *Config) {
	if len(c.Listeners) == 0 {
		k.complain("listener", `missing: want at least one [[listener]] with address = "127.0.0.1:2525"`)
	}
	seen := map[string]string{c.Admin.Address: "[admin]"}
	for i, l := range c.Listeners {
		key := fmt.Sprintf("listener[%d]", i)
		if l.Address == "" {
			k.complain(key+".address", `missing: want host:port to listen at, as in "127.0.0.1:2525"`)
		} else if k.address(key+".address", l.Address) && !strings.HasSuffix(l.Address, ":0") {
			if owner, taken := seen[l.Address]; taken {
				k.complain(key+".address", "%s is the address of %s already: want another", quote(l.Address), owner)
			}
			seen[l.Address] = "a listener above"
		}
		k.lasts(key+".greet_delay", l.GreetDelay, 0, time.Minute)
		for j, d := range l.RelayDomains {
			at := fmt.Sprintf("%s.relay_domains[%d]", key, j)
			if d == "*" {
				k.complain(at, `"*" would relay for everybody: want the domains that mail is taken for`)
			} else if fault := patternFault(d, `an exact name or "*.suffix"`); fault != "" {
				k.complain(at, "%s", fault)
			}
		}
		if l.CheckFrom && l.Mode == ModeMX {
			k.complain(key+".check_from", `mail from other hosts has no user: want mode = "submission" or "submissions"`)
		}
		if l.CheckSender && l.Mode != ModeMX && l.Mode != "" {
			k.complain(key+".check_sender", `mail of users is not asked about: want mode = "mx"`)
		}
		k.relayCertificates(key+".relay_certificates", &l, &c.TLS)
		k.listenerAuth(key, &l, c)
		switch l.Mode {
		case "":
			k.complain(key+".mode", `missing: want "mx", "submission" or "submissions"`)
		case ModeSubmissions:
			if !c.TLS.Secure() {
				k.complain(key+".mode", `"submissions" begins with TLS: want certificates in [tls]`)
			}
		default:
			k.oneOf(key+".mode", string(l.Mode), string(ModeMX), string(ModeSubmission), string(ModeSubmissions))
		}
	}
}

// relayCertificates judges the policy of a listener about client certificates, which must be able to work.
func (k *checker) relayCertificates(key string, l *Listener, t *TLS) {
	for i, name := range l.RelayCertificates {
		at := fmt.Sprintf("%s[%d]", key, i)
		if name == "*" {
			k.complain(at, `"*" is no name: want those in the certificates, or "*.suffix"`)
		} else if fault := patternFault(name, `an exact name or "*.suffix"`); fault != "" {
			k.complain(at, "%s", fault)
		}
	}
	switch {
	case len(l.RelayCertificates) == 0:
	case t.ClientCA == "":
		k.complain(key, "nobody issues such certificates: want client_ca in [tls]")
	case !t.Secure() || l.Mode != ModeSubmissions && !l.StartTLS:
		k.complain(key, "there is no TLS here: want certificates in [tls], and starttls = true")
	}
}

// tls judges [tls], and the files that it names.
func (k *checker) tls(t *TLS) {
	for i, c := range t.Certificates {
		key := fmt.Sprintf("tls.certificates[%d]", i)
		if c.Chain == "" {
			k.complain(key+".chain", "missing: want a PEM file that begins with the certificate")
		}
		if c.Key == "" {
			k.complain(key+".key", "missing: want the PEM file of the certificate's private key")
		}
		if c.Chain == "" || c.Key == "" {
			continue
		}
		if _, err := tls.LoadX509KeyPair(c.Chain, c.Key); err != nil {
			k.complain(key, "%s with %s: %v", quote(c.Chain), quote(c.Key), err)
		}
	}
	if t.ClientCA != "" {
		if _, err := t.ClientCAs(); err != nil {
			k.complain("tls.client_ca", "%v", err)
		}
	}
	k.acme(&t.ACME)
	k.oneOf("tls.min_version", t.MinVersion, "1.2", "1.3")
	k.lasts("tls.handshake_timeout", t.HandshakeTimeout, time.Second, 10*time.Minute)
}

func (k *checker) spool(s *Spool) {
	if s.Path == "" {
		k.complain("spool.path", "empty: want a directory")
	}
	k.within("spool.shards", s.Shards, 0, message.MaxShards)
	if s.Failover != "" && filepath.Clean(s.Failover) == filepath.Clean(s.Path) {
		k.complain("spool.wal_failover", "%s is the spool itself: want a directory on another disk", s.Failover)
	}
	k.lasts("spool.wal_failover_after", s.FailoverAfter, time.Millisecond, time.Minute)
	k.oneOf("spool.reshard", s.Reshard, ReshardRefuse, ReshardAuto)
	k.bytes("spool.min_free", s.MinFree, 0, 1<<50)
	k.within("spool.min_inodes", s.MinInodes, 0, 1_000_000_000)
	k.bytes("spool.reserve", s.Reserve, 0, 1<<40)
}

func (k *checker) queue(q *Queue) {
	ok := k.lasts("queue.retry_min", q.RetryMin, 10*time.Millisecond, 24*time.Hour)
	ok = k.lasts("queue.retry_max", q.RetryMax, 10*time.Millisecond, 7*24*time.Hour) && ok
	ok = k.lasts("queue.expire", q.Expire, 100*time.Millisecond, 365*24*time.Hour) && ok
	k.retries("queue.retry", q.Retry)
	if q.BounceExpire != 0 {
		k.lasts("queue.bounce_expire", q.BounceExpire, 100*time.Millisecond, 365*24*time.Hour)
	}
	k.lasts("queue.hold_max", q.HoldMax, 0, 365*24*time.Hour)
	k.lasts("queue.deliver_by_min", q.DeliverByMin, 0, 24*time.Hour)
	k.within("queue.in_memory", q.InMemory, 100, 100_000_000)
	k.oneOf("queue.in_doubt", cmp.Or(q.InDoubt, InDoubtRetry), InDoubtRetry, InDoubtWait, InDoubtGiveUp)
	if !ok {
		return
	}
	if q.RetryMin > q.RetryMax {
		k.complain("queue.retry_min", "%s is longer than queue.retry_max: want %s or less", formatDuration(q.RetryMin), formatDuration(q.RetryMax))
	}
	if q.RetryMax >= q.Expire {
		k.complain("queue.expire", "%s is not longer than queue.retry_max: want more than %s", formatDuration(q.Expire), formatDuration(q.RetryMax))
	}
}

func (k *checker) routes(routes []Route) {
	seen, names := map[string]bool{}, map[string]bool{}
	for i, r := range routes {
		key := fmt.Sprintf("route[%d]", i)
		if names[r.Name] && r.Name != "" {
			k.complain(key+".name", "%s is the name of a route above: want another", quote(r.Name))
		} else if !validLabel(r.Name) {
			k.complain(key+".name", "not a label: want at most 255 octets without control characters")
		}
		names[r.Name] = true
		if len(r.Domains) == 0 {
			k.complain(key+".domains", `missing: want exact names, "*.suffix" or "*", as in ["example.com"]`)
		}
		for j, d := range r.Domains {
			at := fmt.Sprintf("%s.domains[%d]", key, j)
			if fault := patternFault(d, `an exact name, "*.suffix" or "*"`); fault != "" {
				k.complain(at, "%s", fault)
			} else if seen[d] {
				k.complain(at, "%s has a route above already: want it once", quote(d))
			}
			seen[d] = true
		}
		if r.To.Kind == 0 {
			k.complain(key+".to", "missing: want %s", targetForms)
		} else if _, err := parseTarget(r.To.String()); err != nil {
			k.complain(key+".to", "%v", err)
		}
		k.within(key+".connections", r.Connections, 0, 10_000)
		k.routeTLS(key+".tls", &r)
		k.routeLogin(key, &r)
	}
}

// routeTLS judges the TLS of a route.
func (k *checker) routeTLS(key string, r *Route) {
	switch {
	case r.TLS == "":
	case r.To.local() && r.TLS != TLSOff:
		k.complain(key, "%s does not leave this machine: want no tls", quote(r.To.String()))
	case r.To.Kind == ToHostTLS && (r.TLS == TLSOpportunistic || r.TLS == TLSOff):
		k.complain(key, `%s begins with TLS: want "verified" or "required"`, quote(r.To.String()))
	default:
		k.oneOf(key, string(r.TLS), string(TLSOpportunistic), string(TLSRequired), string(TLSVerified), string(TLSOff))
	}
}

// recipients judges what is known of recipients, and that the files can be read. What stands in them is judged at start.
func (k *checker) recipients(tables []Recipients) {
	seen := map[string]bool{}
	for i, t := range tables {
		key := fmt.Sprintf("recipients[%d]", i)
		if len(t.Domains) == 0 {
			k.complain(key+".domains", `missing: want exact names or "*.suffix", as in ["example.com"]`)
		}
		for j, d := range t.Domains {
			at := fmt.Sprintf("%s.domains[%d]", key, j)
			if d == "*" {
				k.complain(at, `"*" is everything: want the domains that mail is relayed for`)
			} else if fault := patternFault(d, `an exact name or "*.suffix"`); fault != "" {
				k.complain(at, "%s", fault)
			} else if seen[d] {
				k.complain(at, "%s has a table above already: want it once", quote(d))
			}
			seen[d] = true
		}
		switch {
		case t.File == "" && !t.Probe:
			k.complain(key, "says nothing: want file or probe = true")
		case t.File != "" && t.Probe:
			k.complain(key+".probe", "file says who is there: want one of them")
		case t.File != "":
			if f, err := os.Open(t.File); err != nil {
				k.complain(key+".file", "%v", err)
			} else {
				f.Close()
			}
		}
		k.lasts(key+".known", t.Known, time.Second, 30*24*time.Hour)
		k.lasts(key+".unknown", t.Unknown, time.Second, 30*24*time.Hour)
	}
}

func (k *checker) egress(e *Egress) {
	k.within("egress.connections", e.Connections, 1, 10_000)
	k.within("egress.recipients", e.Recipients, 1, 10_000)
	k.within("egress.messages", e.Messages, 0, 1_000_000_000)
	k.within("egress.window", e.Window, 0, 10_000)
	k.bytes("egress.window_size", e.WindowSize, 64<<10, 1<<30)
	k.within("egress.port", int(e.Port), 1, 65535)
	k.own(e.Own)
	k.oneOf("egress.tls", string(e.TLS), string(TLSOpportunistic), string(TLSOff))
	if _, err := e.CAs(); err != nil {
		k.complain("egress.ca", "%v", err)
	}
	k.lasts("egress.idle", e.Idle, 0, time.Hour)
	k.lasts("egress.connect_timeout", e.Timeouts.Connect, 100*time.Millisecond, 10*time.Minute)
	for _, t := range []struct {
		key  string
		time time.Duration
	}{
		{"greeting_timeout", e.Timeouts.Greeting}, {"command_timeout", e.Timeouts.Command}, {"mail_timeout", e.Timeouts.Mail}, {"rcpt_timeout", e.Timeouts.Rcpt},
		{"data_start_timeout", e.Timeouts.Data}, {"block_timeout", e.Timeouts.Block}, {"data_timeout", e.Timeouts.Final},
	} {
		k.lasts("egress."+t.key, t.time, 100*time.Millisecond, time.Hour)
	}
}

func (k *checker) limits(l *Limits) {
	k.bytes("limits.message_size", l.MessageSize, 1<<10, 1<<40)
	k.within("limits.recipients", l.Recipients, 1, 100_000)
	k.within("limits.line_length", l.LineLength, 512, 64<<10) // RFC 5321 §4.5.3.1.4
	k.within("limits.errors", l.Errors, 1, 10_000)
	k.within("limits.commands", l.Commands, 1, 1_000_000)
	k.lasts("limits.command_timeout", l.CommandTimeout, 100*time.Millisecond, time.Hour)
	k.lasts("limits.data_timeout", l.DataTimeout, 100*time.Millisecond, time.Hour)
	k.within("limits.min_rate", l.MinRate, 0, 1_000_000)
	k.lasts("limits.rate_window", l.RateWindow, time.Second, time.Hour)
	k.lasts("limits.session_time", l.SessionTime, 0, 7*24*time.Hour)
	k.within("limits.session_messages", l.SessionMessages, 0, 1_000_000_000)
	k.within("limits.priority_max", l.PriorityMax, 0, message.PriorityMax)
	k.within("limits.unknown_recipients", l.UnknownRecipients, 0, 1_000_000)
	k.lasts("limits.unknown_delay", l.UnknownDelay, 0, 30*time.Second)
	k.lasts("limits.interval", l.Interval, time.Second, time.Hour)
	k.quota("limits.client", &l.Client)
	k.quota("limits.network", &l.Network)
}

// labels judges the names of header fields, each of which is taken out of mail.
func (k *checker) labels(c *Config) {
	seen := map[string]bool{}
	for _, l := range []struct{ key, name string }{
		{"labels.tenant", c.Labels.Tenant}, {"labels.campaign", c.Labels.Campaign}, {"idempotency.header", c.Idempotency.Header},
	} {
		name := strings.ToLower(l.name)
		switch {
		case name == "":
		case !header.ValidName(name):
			k.complain(l.key, `%s is not the name of a header field: want printable ASCII without ":", as in "X-Tenant"`, quote(l.name))
		case meansMore(name):
			k.complain(l.key, `%s has a meaning of its own, and would be taken out of mail: want a name like "X-Tenant"`, quote(l.name))
		case seen[name]:
			k.complain(l.key, "%s is the field of another label already: want another", quote(l.name))
		}
		seen[name] = true
	}
}

// meansMore says whether a header field, in lower case, is more than a label.
func meansMore(name string) bool {
	for _, family := range []string{"content-", "resent-", "dkim-", "arc-", "list-"} {
		if strings.HasPrefix(name, family) {
			return true
		}
	}
	return slices.Contains([]string{
		"from", "sender", "reply-to", "to", "cc", "bcc", "date", "message-id", "in-reply-to", "references", "subject", "received", "return-path",
		"mime-version", "authentication-results", "tls-required", "auto-submitted",
	}, name)
}

func (k *checker) quota(key string, q *Quota) {
	k.within(key+".connections", q.Connections, 0, 1_000_000)
	k.within(key+".connection_rate", q.ConnectionRate, 0, 1_000_000_000)
	k.within(key+".messages", q.Messages, 0, 1_000_000_000)
	k.within(key+".recipients", q.Recipients, 0, 1_000_000_000)
	k.within(key+".errors", q.Errors, 0, 1_000_000_000)
	k.within(key+".auth_failures", q.AuthFailures, 0, 1_000_000_000)
}

func (k *checker) within(key string, n, low, high int) {
	if n < low || n > high {
		k.complain(key, "%d is out of range: want %d to %d", n, low, high)
	}
}

func (k *checker) bytes(key string, n, low, high int64) {
	if n < low || n > high {
		k.complain(key, "%s is out of range: want %s to %s", formatSize(n), formatSize(low), formatSize(high))
	}
}

func (k *checker) lasts(key string, d, low, high time.Duration) bool {
	if d < low || d > high {
		k.complain(key, "%s is out of range: want %s to %s", formatDuration(d), formatDuration(low), formatDuration(high))
		return false
	}
	return true
}

func (k *checker) oneOf(key, got string, want ...string) {
	if slices.Contains(want, got) {
		return
	}
	if near := nearest(got, want); near != "" {
		k.complain(key, "%s is not known: did you mean %q?", quote(got), near)
		return
	}
	k.complain(key, "%s is not known: want %s", quote(got), strings.Join(want, ", "))
}

// address checks host:port to listen at.
func (k *checker) address(key, s string) bool {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		k.complain(key, `%s is not an address: want host:port, as in "127.0.0.1:2525" or "[::1]:2525"`, quote(s))
		return false
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil {
		k.complain(key, "%s: %s is not a port: want 0 to 65535", quote(s), quote(p))
		return false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" {
		if fault := hostFault(host); fault != "" {
			k.complain(key, "%s: %s", quote(s), advise(fault, "an IP address or a host name"))
			return false
		}
	}
	return true
}

// patternFault says what is wrong with a domain pattern, or "".
func patternFault(d, want string) string {
	if d == "*" {
		return ""
	}
	fault := hostFault(strings.TrimPrefix(d, "*."))
	if fault == "" && d == strings.ToLower(d) {
		return ""
	}
	return advise(cmp.Or(fault, quote(d)+" has capitals"), want)
}

// advise adds what would be right, unless the fault comes with a guess of its own.
func advise(fault, want string) string {
	if strings.HasSuffix(fault, "?") {
		return fault
	}
	return fault + ": want " + want
}

// hostFault says what is wrong with a domain name, or "". RFC 1123 §2.1: letters, digits and hyphens, labels to 63 octets; RFC 5321
// §4.5.3.1.2: 255 octets in all.
func hostFault(name string) string {
	if len(name) > 255 {
		return quote(name) + " is longer than 255 octets"
	}
	for _, c := range name {
		if c > 0x7f {
			if ascii, err := idna.Lookup.ToASCII(name); err == nil && hostFault(ascii) == "" {
				return fmt.Sprintf("%s is not in ASCII form: did you mean %q?", quote(name), ascii)
			}
			return quote(name) + " is not a domain name"
		}
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return quote(name) + " is not a domain name"
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return quote(name) + " is not a domain name"
			}
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return quote(name) + " is an IP address"
	}
	return ""
}
