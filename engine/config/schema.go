package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// schema is every key there is, and where its value goes.
func schema(c *Config) []field {
	return []field{
		{"hostname", text(&c.Hostname)},
		{"engine", table([]field{
			{"loops", integer(&c.Engine.Loops)},
			{"memory", size(&c.Engine.Memory)},
			{"max_connections", integer(&c.Engine.MaxConnections)},
			{"drain_timeout", duration(&c.Engine.DrainTimeout)},
		})},
		{"listener", tables(func() []field {
			c.Listeners = append(c.Listeners, Listener{StartTLS: true, BinaryMIME: true})
			l := &c.Listeners[len(c.Listeners)-1]
			return []field{
				{"address", text(&l.Address)},
				{"mode", text((*string)(&l.Mode))},
				{"relay_from", list(&l.RelayFrom, parsePrefix)},
				{"relay_domains", list(&l.RelayDomains, lower)},
				{"greet_delay", duration(&l.GreetDelay)},
				{"proxy_from", list(&l.ProxyFrom, parsePrefix)},
				{"xclient_from", list(&l.XClientFrom, parsePrefix)},
				{"relay_certificates", list(&l.RelayCertificates, lower)},
				{"starttls", boolean(&l.StartTLS)},
				{"check_from", boolean(&l.CheckFrom)},
				{"check_sender", boolean(&l.CheckSender)},
				{"binarymime", boolean(&l.BinaryMIME)},
				{"newlines", parsed(&l.FixNewlines, parseNewlines)},
				{"auth", optional(&l.Auth)},
				{"auth_in_clear", boolean(&l.AuthInClear)},
			}
		})},
		{"tls", table([]field{
			{"certificates", tables(func() []field {
				c.TLS.Certificates = append(c.TLS.Certificates, Certificate{})
				pair := &c.TLS.Certificates[len(c.TLS.Certificates)-1]
				return []field{
					{"chain", text(&pair.Chain)},
					{"key", text(&pair.Key)},
				}
			})},
			{"min_version", text(&c.TLS.MinVersion)},
			{"client_ca", text(&c.TLS.ClientCA)},
			{"handshake_timeout", duration(&c.TLS.HandshakeTimeout)},
			{"acme", table([]field{
				{"domains", list(&c.TLS.ACME.Domains, lower)},
				{"email", text(&c.TLS.ACME.Email)},
				{"directory", text(&c.TLS.ACME.Directory)},
				{"directory_ca", text(&c.TLS.ACME.DirectoryCA)},
				{"storage", text(&c.TLS.ACME.Storage)},
				{"http", text(&c.TLS.ACME.HTTP)},
				{"tls_alpn", text(&c.TLS.ACME.TLSALPN)},
				{"agree", boolean(&c.TLS.ACME.Agree)},
				{"eab_key_id", text(&c.TLS.ACME.EABKeyID)},
				{"eab_key", text(&c.TLS.ACME.EABKey)},
			})},
		})},
		{"auth", table(authFields(&c.Auth))},
		{"spool", table([]field{
			{"path", text(&c.Spool.Path)},
			{"shards", integer(&c.Spool.Shards)},
			{"sync", boolean(&c.Spool.Sync)},
			{"wal_failover", text(&c.Spool.Failover)},
			{"wal_failover_after", duration(&c.Spool.FailoverAfter)},
			{"min_free", size(&c.Spool.MinFree)},
			{"min_inodes", integer(&c.Spool.MinInodes)},
			{"reserve", size(&c.Spool.Reserve)},
			{"in_flight", text(&c.Spool.InFlight)},
			{"reshard", text(&c.Spool.Reshard)},
		})},
		{"queue", table([]field{
			{"retry_min", duration(&c.Queue.RetryMin)},
			{"retry_max", duration(&c.Queue.RetryMax)},
			{"expire", duration(&c.Queue.Expire)},
			{"retry", list(&c.Queue.Retry, parseDuration)},
			{"bounce_expire", duration(&c.Queue.BounceExpire)},
			{"hold_max", duration(&c.Queue.HoldMax)},
			{"deliver_by_min", duration(&c.Queue.DeliverByMin)},
			{"in_memory", integer(&c.Queue.InMemory)},
			{"in_doubt", text(&c.Queue.InDoubt)},
		})},
		{"route", tables(func() []field {
			c.Routes = append(c.Routes, Route{})
			route := &c.Routes[len(c.Routes)-1]
			return []field{
				{"domains", list(&route.Domains, lower)},
				{"to", parsed(&route.To, parseTarget)},
				{"name", text(&route.Name)},
				{"connections", integer(&route.Connections)},
				{"pool", text(&route.Pool)},
				{"tls", text((*string)(&route.TLS))},
				{"user", text(&route.User)},
				{"password", parsed(&route.Password, parseSecret)},
				{"token", parsed(&route.Token, parseSecret)},
				{"mechanism", text(&route.Mechanism)},
				{"auth_in_clear", boolean(&route.AuthInClear)},
			}
		})},
		{"policy", tables(func() []field {
			c.Policies = append(c.Policies, Policy{})
			return policyFields(&c.Policies[len(c.Policies)-1])
		})},
		{"provider", tables(func() []field {
			c.Providers = append(c.Providers, Provider{})
			return providerFields(&c.Providers[len(c.Providers)-1])
		})},
		{"source", tables(func() []field {
			c.Sources = append(c.Sources, Source{})
			return sourceFields(&c.Sources[len(c.Sources)-1])
		})},
		{"pool", tables(func() []field {
			c.Pools = append(c.Pools, Pool{})
			return poolFields(&c.Pools[len(c.Pools)-1])
		})},
		{"recipients", tables(func() []field {
			c.Recipients = append(c.Recipients, DefaultRecipients())
			known := &c.Recipients[len(c.Recipients)-1]
			return []field{
				{"domains", list(&known.Domains, lower)},
				{"file", text(&known.File)},
				{"delimiter", text(&known.Delimiter)},
				{"probe", boolean(&known.Probe)},
				{"unsure", parsed(&known.Defer, parseUnsure)},
				{"known", duration(&known.Known)},
				{"unknown", duration(&known.Unknown)},
			}
		})},
		{"dsn", table(dsnFields(&c.DSN))},
		{"tls_report", table([]field{
			{"contact", text(&c.TLSReport.Contact)},
			{"organization", text(&c.TLSReport.Organization)},
		})},
		{"egress", table([]field{
			{"connections", integer(&c.Egress.Connections)},
			{"recipients", integer(&c.Egress.Recipients)},
			{"messages", integer(&c.Egress.Messages)},
			{"window", integer(&c.Egress.Window)},
			{"window_size", size(&c.Egress.WindowSize)},
			{"port", port(&c.Egress.Port)},
			{"allow", list(&c.Egress.Allow, parsePrefix)},
			{"own", list(&c.Egress.Own, lower)},
			{"pool", text(&c.Egress.Pool)},
			{"prefer", text(&c.Egress.Prefer)},
			{"source_retry", duration(&c.Egress.SourceRetry)},
			{"tls", text((*string)(&c.Egress.TLS))},
			{"ca", text(&c.Egress.CA)},
			{"mta_sts", boolean(&c.Egress.STS)},
			{"dane", boolean(&c.Egress.DANE)},
			{"idle", duration(&c.Egress.Idle)},
			{"connect_timeout", duration(&c.Egress.Timeouts.Connect)},
			{"greeting_timeout", duration(&c.Egress.Timeouts.Greeting)},
			{"command_timeout", duration(&c.Egress.Timeouts.Command)},
			{"mail_timeout", duration(&c.Egress.Timeouts.Mail)},
			{"rcpt_timeout", duration(&c.Egress.Timeouts.Rcpt)},
			{"data_start_timeout", duration(&c.Egress.Timeouts.Data)},
			{"block_timeout", duration(&c.Egress.Timeouts.Block)},
			{"data_timeout", duration(&c.Egress.Timeouts.Final)},
		})},
		{"dns", table([]field{
			{"servers", list(&c.DNS.Servers, parseServer)},
			{"timeout", duration(&c.DNS.Timeout)},
			{"trust_ad", list(&c.DNS.TrustAD, parsePrefix)},
			{"lookups", integer(&c.DNS.Lookups)},
			{"cache", integer(&c.DNS.Cache)},
			{"ttl_min", duration(&c.DNS.TTLMin)},
			{"ttl_max", duration(&c.DNS.TTLMax)},
			{"negative_max", duration(&c.DNS.NegativeMax)},
			{"stale", duration(&c.DNS.Stale)},
		})},
		{"limits", table([]field{
			{"message_size", size(&c.Limits.MessageSize)},
			{"recipients", integer(&c.Limits.Recipients)},
			{"line_length", integer(&c.Limits.LineLength)},
			{"errors", integer(&c.Limits.Errors)},
			{"commands", integer(&c.Limits.Commands)},
			{"command_timeout", duration(&c.Limits.CommandTimeout)},
			{"data_timeout", duration(&c.Limits.DataTimeout)},
			{"min_rate", integer(&c.Limits.MinRate)},
			{"rate_window", duration(&c.Limits.RateWindow)},
			{"session_time", duration(&c.Limits.SessionTime)},
			{"session_messages", integer(&c.Limits.SessionMessages)},
			{"priority_max", integer(&c.Limits.PriorityMax)},
			{"unknown_recipients", integer(&c.Limits.UnknownRecipients)},
			{"unknown_delay", duration(&c.Limits.UnknownDelay)},
			{"exempt", list(&c.Limits.Exempt, parsePrefix)},
			{"interval", duration(&c.Limits.Interval)},
			{"client", table(quota(&c.Limits.Client))},
			{"network", table(quota(&c.Limits.Network))},
		})},
		{"idempotency", table([]field{
			{"header", text(&c.Idempotency.Header)},
			{"window", duration(&c.Idempotency.Window)},
			{"max", integer(&c.Idempotency.Max)},
		})},
		{"labels", table([]field{
			{"tenant", text(&c.Labels.Tenant)},
			{"campaign", text(&c.Labels.Campaign)},
			{"envid", parsed(&c.Labels.EnvID, parseEnvID)},
		})},
		{"admin", table([]field{
			{"address", text(&c.Admin.Address)},
			{"names", list(&c.Admin.Names, lower)},
			{"proxy_from", list(&c.Admin.ProxyFrom, parsePrefix)},
			{"inject_from", list(&c.Admin.InjectFrom, parsePrefix)},
			{"inject_users", boolean(&c.Admin.InjectUsers)},
			{"inject_size", size(&c.Admin.InjectSize)},
			{"inject_requests", integer(&c.Admin.InjectRequests)},
			{"inject_timeout", duration(&c.Admin.InjectTimeout)},
		})},
		{"events", table([]field{
			{"path", text(&c.Events.Path)},
			{"max_size", size(&c.Events.MaxSize)},
			{"keep", integer(&c.Events.Keep)},
		})},
		{"log", table([]field{
			{"level", text(&c.Log.Level)},
			{"format", text(&c.Log.Format)},
		})},
	}
}

func quota(q *Quota) []field {
	return []field{
		{"connections", integer(&q.Connections)},
		{"connection_rate", integer(&q.ConnectionRate)},
		{"messages", integer(&q.Messages)},
		{"recipients", integer(&q.Recipients)},
		{"errors", integer(&q.Errors)},
		{"auth_failures", integer(&q.AuthFailures)},
	}
}

type setter = func(r *reader, key string, v *value)

func table(known []field) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.Table && v.kind != unstable.InlineTable {
			r.complain(key, v.at, "%s where a table belongs: want [%s]", v.describe(), key)
			return
		}
		r.fields(v, key, known)
	}
}

// tables reads an array of tables; element makes room for one and returns its fields.
func tables(element func() []field) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.ArrayTable && v.kind != unstable.Array {
			r.complain(key, v.at, "%s where tables belong: want [[%s]]", v.describe(), key)
			return
		}
		for i, item := range v.items {
			at := fmt.Sprintf("%s[%d]", key, i)
			r.where[at] = item.at
			table(element())(r, at, item)
		}
	}
}

func text(to *string) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.String {
			r.complain(key, v.at, "%s is not a string: want it in quotes", v.describe())
			return
		}
		*to = v.text
	}
}

func boolean(to *bool) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.Bool {
			r.complain(key, v.at, "%s is not a truth value: want true or false", v.describe())
			return
		}
		*to = v.text == "true"
	}
}

// optional is a truth value whose default depends on others.
func optional(to **bool) setter {
	return func(r *reader, key string, v *value) {
		var is bool
		if boolean(&is)(r, key, v); !r.failed[key] {
			*to = &is
		}
	}
}

func integer(to *int) setter {
	return func(r *reader, key string, v *value) {
		n, err := strconv.ParseInt(v.text, 0, 64)
		if v.kind != unstable.Integer || err != nil {
			r.complain(key, v.at, "%s is not a whole number: want digits without quotes", v.describe())
			return
		}
		*to = int(n)
	}
}

func port(to *uint16) setter {
	return func(r *reader, key string, v *value) {
		n := -1
		if integer(&n)(r, key, v); r.failed[key] {
			return
		}
		if n < 1 || n > 65535 {
			r.complain(key, v.at, "%d is not a port: want 1 to 65535", n)
			return
		}
		*to = uint16(n)
	}
}

func size(to *int64) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.String && v.kind != unstable.Integer {
			r.complain(key, v.at, `%s is not a size: want a number of bytes or a string as in "10MB"`, v.describe())
			return
		}
		n, err := strconv.ParseInt(v.text, 0, 64)
		if v.kind == unstable.String || err != nil || n < 0 {
			n, err = parseSize(v.text)
		}
		if err != nil {
			r.complain(key, v.at, "%v", err)
			return
		}
		*to = n
	}
}

func duration(to *time.Duration) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.String {
			hint := "5m"
			if v.kind == unstable.Integer {
				hint = v.text + "s"
			}
			r.complain(key, v.at, "%s is not a duration: want a string as in %q", v.describe(), hint)
			return
		}
		parsed(to, parseDuration)(r, key, v)
	}
}

// parsed reads a string that has a form of its own.
func parsed[T any](to *T, parse func(string) (T, error)) setter {
	return func(r *reader, key string, v *value) {
		var s string
		if text(&s)(r, key, v); r.failed[key] {
			return
		}
		got, err := parse(s)
		if err != nil {
			r.complain(key, v.at, "%v", err)
			return
		}
		*to = got
	}
}

// list reads an array of such strings.
func list[T any](to *[]T, parse func(string) (T, error)) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.Array {
			r.complain(key, v.at, "%s is not an array: want [%s]", v.describe(), v.describe())
			return
		}
		*to = nil // what stands in the file replaces the default
		for i, item := range v.items {
			var got T
			at := fmt.Sprintf("%s[%d]", key, i)
			r.where[at] = item.at
			if parsed(&got, parse)(r, at, item); !r.failed[at] {
				*to = append(*to, got)
			} else {
				r.failed[key] = true
			}
		}
	}
}

// lower reads a domain pattern.
func lower(s string) (string, error) { return strings.ToLower(s), nil }

// parseNewlines reads what is done with bare newlines: whether they are fixed.
func parseNewlines(s string) (bool, error) {
	if s != "reject" && s != "fix" {
		return false, fmt.Errorf(`%s is not known: want "reject" or "fix"`, quote(s))
	}
	return s == "fix", nil
}

// parseUnsure reads what is done with recipients that cannot be verified: whether they are deferred.
func parseUnsure(s string) (bool, error) {
	if s != "accept" && s != "defer" {
		return false, fmt.Errorf(`%s is not known: want "accept" or "defer"`, quote(s))
	}
	return s == "defer", nil
}

// parseEnvID reads which labels an ENVID holds.
func parseEnvID(s string) (parts []string, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, "/") {
		if part != "tenant" && part != "campaign" && part != "key" || slices.Contains(parts, part) {
			return nil, fmt.Errorf(`%s is not a form of ENVID: want tenant, campaign and key, each once at most, with "/" between, as in "tenant/campaign/key"`, quote(s))
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// parsePrefix reads "10.0.0.0/8" or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf(`%s is not an address range: want "192.0.2.0/24", "2001:db8::/32" or a single address`, quote(s))
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%s is an IPv4 range in IPv6 form: want the IPv4 form", quote(s))
	}
	if m := p.Masked(); m != p {
		return p, fmt.Errorf("%s has bits set behind the prefix: did you mean %q?", quote(s), m)
	}
	return p, nil
}

// parseServer reads the address of a DNS server, port 53 unless given.
func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap, nil
	}
	return netip.AddrPort{}, fmt.Errorf(`%s is not the address of a server: want an IP address, with a port if it is not 53: "192.0.2.1" or "[2001:db8::1]:5353"`, quote(s))
}
