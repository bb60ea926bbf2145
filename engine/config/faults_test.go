package config

import (
	"strings"
	"testing"
)

// faults: what stands in the file, and every word of the answer. The file is called m.toml. Cases that begin with "+" are appended to
// minimal (4 lines).
var faults = []struct{ toml, want string }{
	// syntax and structure
	{"hostname = ", `m.toml:1:11: expected value, not end of input`},
	{"hostname = 'a\n", `m.toml:1:14: literal strings cannot have new lines`},
	{"+mode = 'mx'\n", `m.toml:5:1: mode: key mode is already defined`},
	{"hostname = 'a.b'\nhostname = 'c.d'\n", `m.toml:2:1: hostname: key hostname is already defined`},
	{"+[spool]\n[spool]\n", `m.toml:6:2: spool: table spool already exists`},
	{"+[queue\n", `m.toml:5:7: expected ']' to close table name`},
	{"\xff", `m.toml:1:1: invalid character at start of key: U+00FF 'ÿ'`},

	// unknown keys
	{"+[engine]\nlops = 1\n", `m.toml:6:1: engine.lops: unknown key: did you mean "loops"?`},
	{"+[engin]\n", `m.toml:5:2: engin: unknown key: did you mean "engine"?`},
	{"+somewhere = []\n", `m.toml:5:1: listener.somewhere: unknown key: [listener] has address, mode, relay_from, relay_domains, greet_delay, proxy_from, xclient_from, relay_certificates, starttls, check_from, check_sender, binarymime, newlines, auth, auth_in_clear`},
	{"+[queue]\nsomething = 1\n", `m.toml:6:1: queue.something: unknown key: [queue] has retry_min, retry_max, expire, retry, bounce_expire, hold_max, deliver_by_min, in_memory, in_doubt`},
	{"+[queue]\n\"\\n\" = 1\n", `m.toml:6:1: queue."\n": unknown key: [queue] has retry_min, retry_max, expire, retry, bounce_expire, hold_max, deliver_by_min, in_memory, in_doubt`},

	// what must be there
	{"", "" +
		`m.toml:1:1: hostname: missing: want the full name of this node, as in "mail.example.com"` + "\n" +
		`m.toml:1:1: listener: missing: want at least one [[listener]] with address = "127.0.0.1:2525"`},
	{"hostname = 'mail.example.com'\n", `m.toml:1:1: listener: missing: want at least one [[listener]] with address = "127.0.0.1:2525"`},
	{"hostname = 'mail.example.com'\n[[listener]]\n", "" +
		`m.toml:2:3: listener.address: missing: want host:port to listen at, as in "127.0.0.1:2525"` + "\n" +
		`m.toml:2:3: listener.mode: missing: want "mx", "submission" or "submissions"`},
	{"+[[route]]\n", "" +
		`m.toml:5:3: route.domains: missing: want exact names, "*.suffix" or "*", as in ["example.com"]` + "\n" +
		`m.toml:5:3: route.to: missing: want ` + targetForms},

	// types
	{"hostname = 1\nlistener = 5\nspool = true\n", "" +
		`m.toml:1:12: hostname: 1 is not a string: want it in quotes` + "\n" +
		`m.toml:2:12: listener: 5 where tables belong: want [[listener]]` + "\n" +
		`m.toml:3:9: spool: true where a table belongs: want [spool]`},
	{"+[engine]\nloops = '2'\nmemory = true\ndrain_timeout = 30\n", "" +
		`m.toml:6:9: engine.loops: "2" is not a whole number: want digits without quotes` + "\n" +
		`m.toml:7:10: engine.memory: true is not a size: want a number of bytes or a string as in "10MB"` + "\n" +
		`m.toml:8:17: engine.drain_timeout: 30 is not a duration: want a string as in "30s"`},
	{"+[engine]\nloops = 1.5\ndrain_timeout = true\n", "" +
		`m.toml:6:9: engine.loops: 1.5 is not a whole number: want digits without quotes` + "\n" +
		`m.toml:7:17: engine.drain_timeout: true is not a duration: want a string as in "5m"`},
	{"+relay_from = '127.0.0.0/8'\n", `m.toml:5:14: listener.relay_from: "127.0.0.0/8" is not an array: want ["127.0.0.0/8"]`},
	{"+relay_domains = ['*', 'a_b.example', '*.x.example']\n", "" +
		`m.toml:5:18: listener.relay_domains: "*" would relay for everybody: want the domains that mail is taken for` + "\n" +
		`m.toml:5:23: listener.relay_domains: "a_b.example" is not a domain name: want an exact name or "*.suffix"`},
	{"+relay_from = [1]\n", `m.toml:5:15: listener.relay_from: 1 is not a string: want it in quotes`},
	{"+[spool]\nsync = 'yes'\n", `m.toml:6:8: spool.sync: "yes" is not a truth value: want true or false`},
	{"+[egress]\nidle = 2026-01-01\nport = []\n", "" +
		`m.toml:6:8: egress.idle: a date or time is not a duration: want a string as in "5m"` + "\n" +
		`m.toml:7:1: egress.port: an array is not a whole number: want digits without quotes`},
	{"+[listener.tls]\n", `m.toml:5:11: listener.tls: unknown key: [listener] has address, mode, relay_from, relay_domains, greet_delay, proxy_from, xclient_from, relay_certificates, starttls, check_from, check_sender, binarymime, newlines, auth, auth_in_clear`},

	{"+[[route]]\ndomains = ['*']\nto = 'mx'\ntls = 'verifed'\n[egress]\ntls = 'required'\nca = '/nowhere/ca.pem'\n", "" +
		`m.toml:8:7: route.tls: "verifed" is not known: did you mean "verified"?` + "\n" +
		`m.toml:10:7: egress.tls: "required" is not known: want opportunistic, off` + "\n" +
		`m.toml:11:6: egress.ca: open /nowhere/ca.pem: no such file or directory`},

	// notifications
	{"+[dsn]\ndelay_after = ['1h', '5s0']\ndelay_to = 'al'\n", "" +
		`m.toml:6:22: dsn.delay_after: "5s0" has no unit: want "5s0s", "5s0m" or the like` + "\n" +
		`m.toml:7:12: dsn.delay_to: "al" is not known: want "asked" or "all"`},
	{"+[dsn]\ndelay_after = ['1h', '30m', '30m', '1ms', '1d', '2d', '3d', '4d', '5d']\n", "" +
		`m.toml:6:1: dsn.delay_after: 9 notices of one message: want 8 or less` + "\n" +
		`m.toml:6:22: dsn.delay_after: 30m is not longer than the one before it: want them in ascending order, each once` + "\n" +
		`m.toml:6:29: dsn.delay_after: 30m is not longer than the one before it: want them in ascending order, each once` + "\n" +
		`m.toml:6:36: dsn.delay_after: 1ms is out of range: want 10ms to 365d`},
	{"+[dsn]\nreturn_max = '2MiB'\ngather = '2h'\ndouble_bounce_to = 'Post <a@b.example>'\n", "" +
		`m.toml:6:14: dsn.return_max: 2MiB is out of range: want 1KiB to 1MiB` + "\n" +
		`m.toml:7:10: dsn.gather: 2h is out of range: want 0ms to 1h` + "\n" +
		`m.toml:8:20: dsn.double_bounce_to: "Post <a@b.example>" is not an address: want one, as in "postmaster@example.com"`},
	{"+[tls_report]\ncontact = 'Reports <a@b.example>'\n", `m.toml:6:11: tls_report.contact: "Reports <a@b.example>" is not an address: want one, as in "tls@example.com"`},
	{"+[tls_report]\ncontact = 'postmaster'\norganization = '" + strings.Repeat("x", 256) + "'\n", "" +
		`m.toml:6:11: tls_report.contact: "postmaster" is not an address: want one, as in "tls@example.com"` + "\n" +
		`m.toml:7:16: tls_report.organization: 256 octets: want 255 or less`},
	{"+[[dsn.template]]\n[[dsn.template]]\ndomains = ['a.example', '*', 'A.example', 'b_c']\nfrom = \"a\\nBcc: x@y.example\"\nsubject = '{{.Sbject}}'\ntext = '/nowhere/de.txt'\nlanguage = 'German '\n", "" +
		`m.toml:5:7: dsn.template.domains: missing: want those of senders: exact names, "*.suffix" or "*", as in ["example.com"]` + "\n" +
		`m.toml:5:7: dsn.template: says nothing: want from, subject or text` + "\n" +
		`m.toml:7:30: dsn.template.domains: "a.example" has a template above already: want it once` + "\n" +
		`m.toml:7:43: dsn.template.domains: "b_c" is not a domain name: want an exact name, "*.suffix" or "*"` + "\n" +
		`m.toml:10:8: dsn.template.text: open /nowhere/de.txt: no such file or directory`},
	{"+[[dsn.template]]\ndomains = ['a.example']\nsubject = '{{.Sbject}}'\n", `m.toml:7:11: dsn.template.subject: subject:1:2: executing "subject" at <.Sbject>: can't evaluate field Sbject in type *dsn.Fields`},
	{"+[[dsn.template]]\ndomains = ['a.example']\ntext = 'testdata/broken.txt'\n", `m.toml:7:8: dsn.template.text: testdata/broken.txt:2: bad character U+007D '}'`},
	{"+[[dsn.template]]\ndomains = ['a.example']\nfrom = \"a\\nBcc: x@y.example\"\n", `m.toml:7:8: dsn.template.from: not an address: want one in ASCII, as in "Post office <postmaster@example.com>"`},
	{"+[[dsn.template]]\ndomains = ['a.example']\nfrom = 'x@y.example'\nlanguage = 'German '\n", `m.toml:8:12: dsn.template.language: not the code of a language: want one as in "de" or "pt-BR"`},
	// loops
	{"+[[route]]\ndomains = ['*']\nto = 'smtp://127.0.0.1:2525'\n", `m.toml:7:6: route.to: "smtp://127.0.0.1:2525" is a listener of this node: mail would go round`},
	{"hostname = 'a.b'\n[[listener]]\naddress=':25'\nmode='mx'\n[[listener]]\naddress='[::]:2525'\nmode='mx'\n[[route]]\ndomains=['a.example']\nto='smtp://[::1]:2525'\n[[route]]\ndomains=['b.example']\nto='smtp://127.0.0.2'\n[[route]]\ndomains=['c.example']\nto='smtp://127.0.0.1:26'\n", "" +
		`m.toml:10:4: route.to: "smtp://[::1]:2525" is a listener of this node: mail would go round` + "\n" +
		`m.toml:13:4: route.to: "smtp://127.0.0.2:25" is a listener of this node: mail would go round`},

	// ACME
	{"+[tls.acme]\ndomains = ['Mail.example.com']\n", "" +
		`m.toml:5:6: tls.acme.agree: the server's terms must be agreed to: want agree = true` + "\n" +
		`m.toml:6:1: tls.acme.domains: nothing would answer for them: want http = ":80", or tls_alpn = ":443"`},
	{"+[tls.acme]\nagree = true\nhttp = ':80'\ndomains = ['*.example.com', 'mail', 'a_b.example', 'x.example', 'x.example']\n", "" +
		`m.toml:8:12: tls.acme.domains: "*.example.com": neither http-01 nor tls-alpn-01 proves a wildcard: want full names` + "\n" +
		`m.toml:8:29: tls.acme.domains: "mail" is a short name: want a full one, as in "mail.example.com"` + "\n" +
		`m.toml:8:37: tls.acme.domains: "a_b.example" is not a domain name: want a full name, as in "mail.example.com"` + "\n" +
		`m.toml:8:65: tls.acme.domains: "x.example" stands there already: want it once`},
	{"+[tls.acme]\nagree = true\ndomains = ['x.example']\nhttp = '127.0.0.1:0'\ntls_alpn = '443'\nemail = 'a b@x'\ndirectory = 'http://x'\n" +
		"directory_ca = '/nowhere/ca.pem'\nstorage = ''\neab_key_id = 'x'\n", "" +
		`m.toml:8:8: tls.acme.http: "127.0.0.1:0": the server must know the port: want one, as in ":80"` + "\n" +
		`m.toml:9:12: tls.acme.tls_alpn: "443" is not an address: want host:port, as in "127.0.0.1:2525" or "[::1]:2525"` + "\n" +
		`m.toml:10:9: tls.acme.email: "a b@x" is not an address: want one, as in "postmaster@example.com"` + "\n" +
		`m.toml:11:13: tls.acme.directory: "http://x" is no https URL: want that of the server's directory` + "\n" +
		`m.toml:12:16: tls.acme.directory_ca: open /nowhere/ca.pem: no such file or directory` + "\n" +
		`m.toml:13:11: tls.acme.storage: empty: want a directory` + "\n" +
		`m.toml:14:14: tls.acme.eab_key_id: an external account has both an id and a key: want eab_key_id and eab_key`},
	{"+[tls.acme]\nagree = true\ndomains = ['x.example']\nhttp = '127.0.0.1:80'\ntls_alpn = ':443'\neab_key_id = 'x'\neab_key = '+/'\n", "" +
		`m.toml:9:12: tls.acme.tls_alpn: ":443" is on another host than http: want the same` + "\n" +
		`m.toml:11:11: tls.acme.eab_key: not in base64url without padding: want the key as the server's operators gave it`},

	// host names and addresses
	{"hostname = 'mail'\n[[listener]]\naddress='1.2.3.4:25'\nmode='mx'", `m.toml:1:12: hostname: "mail" is a short name: want the full one, as in "mail.example.com"`},
	{"hostname = 'ma_il.example.com'\n[[listener]]\naddress='1.2.3.4:25'\nmode='mx'", `m.toml:1:12: hostname: "ma_il.example.com" is not a domain name: want the full name of this node, as in "mail.example.com"`},
	{"hostname = 'a.example.com.'\n[[listener]]\naddress='1.2.3.4:25'\nmode='mx'", `m.toml:1:12: hostname: "a.example.com." is not a domain name: want the full name of this node, as in "mail.example.com"`},
	{"hostname = '192.0.2.1'\n[[listener]]\naddress='1.2.3.4:25'\nmode='mx'", `m.toml:1:12: hostname: "192.0.2.1" is an IP address: want the full name of this node, as in "mail.example.com"`},
	{"hostname = 'post.bücher.example'\n[[listener]]\naddress='1.2.3.4:25'\nmode='mx'", `m.toml:1:12: hostname: "post.b\u00fccher.example" is not in ASCII form: did you mean "post.xn--bcher-kva.example"?`},
	{"+relay_certificates = ['*', 'a_b']\nstarttls = false\n[tls]\nclient_ca = '/nowhere/ca.pem'\n", "" +
		`m.toml:5:1: listener.relay_certificates: there is no TLS here: want certificates in [tls], and starttls = true` + "\n" +
		`m.toml:5:23: listener.relay_certificates: "*" is no name: want those in the certificates, or "*.suffix"` + "\n" +
		`m.toml:5:28: listener.relay_certificates: "a_b" is not a domain name: want an exact name or "*.suffix"` + "\n" +
		`m.toml:8:13: tls.client_ca: open /nowhere/ca.pem: no such file or directory`},
	{"+relay_certificates = ['a.example']\n", `m.toml:5:1: listener.relay_certificates: nobody issues such certificates: want client_ca in [tls]`},
	{"hostname = 'a.b'\n[[listener]]\naddress='127.0.0.1'\nmode='submission'",
		`m.toml:3:9: listener.address: "127.0.0.1" is not an address: want host:port, as in "127.0.0.1:2525" or "[::1]:2525"`},
	{"+[tls]\ncertificates = [{ chain = '/nowhere/chain.pem', key = 'key.pem' }, { chain = 'c' }, {}]\nmin_version = '1.1'\nhandshake_timeout = '1ms'\n", "" +
		`m.toml:6:17: tls.certificates: "/nowhere/chain.pem" with "key.pem": open /nowhere/chain.pem: no such file or directory` + "\n" +
		`m.toml:6:68: tls.certificates.key: missing: want the PEM file of the certificate's private key` + "\n" +
		`m.toml:6:85: tls.certificates.chain: missing: want a PEM file that begins with the certificate` + "\n" +
		`m.toml:6:85: tls.certificates.key: missing: want the PEM file of the certificate's private key` + "\n" +
		`m.toml:7:15: tls.min_version: "1.1" is not known: did you mean "1.2"?` + "\n" +
		`m.toml:8:21: tls.handshake_timeout: 1ms is out of range: want 1s to 10m`},
	{"hostname = 'a.b'\n[[listener]]\naddress='127.0.0.1:70000'\nmode='submissions'", "" +
		`m.toml:3:9: listener.address: "127.0.0.1:70000": "70000" is not a port: want 0 to 65535` + "\n" +
		`m.toml:4:6: listener.mode: "submissions" begins with TLS: want certificates in [tls]`},
	{"hostname = 'a.b'\n[[listener]]\naddress='no_host:25'\nmode='smtp'", "" +
		`m.toml:3:9: listener.address: "no_host:25": "no_host" is not a domain name: want an IP address or a host name` + "\n" +
		`m.toml:4:6: listener.mode: "smtp" is not known: want mx, submission, submissions`},
	{"+[[listener]]\naddress = '127.0.0.1:2525'\nmode = 'mx'\n", `m.toml:6:11: listener.address: "127.0.0.1:2525" is the address of a listener above already: want another`},
	{"+[admin]\naddress = '127.0.0.1:2525'\n", `m.toml:3:11: listener.address: "127.0.0.1:2525" is the address of [admin] already: want another`},
	{"+[admin]\naddress = '8025'\n", `m.toml:6:11: admin.address: "8025" is not an address: want host:port, as in "127.0.0.1:2525" or "[::1]:2525"`},
	{"+relay_from = ['10.0.0.0/33', '10.1.2.3/8', 'localhost', '::ffff:10.0.0.0/104']\n", "" +
		`m.toml:5:15: listener.relay_from: "10.0.0.0/33" is not an address range: want "192.0.2.0/24", "2001:db8::/32" or a single address` + "\n" +
		`m.toml:5:30: listener.relay_from: "10.1.2.3/8" has bits set behind the prefix: did you mean "10.0.0.0/8"?` + "\n" +
		`m.toml:5:44: listener.relay_from: "localhost" is not an address range: want "192.0.2.0/24", "2001:db8::/32" or a single address` + "\n" +
		`m.toml:5:57: listener.relay_from: "::ffff:10.0.0.0/104" is an IPv4 range in IPv6 form: want the IPv4 form`},
	{"+[dns]\nservers = ['ns1.example.com', '192.0.2.1:0']\n", "" +
		`m.toml:6:12: dns.servers: "ns1.example.com" is not the address of a server: want an IP address, with a port if it is not 53: "192.0.2.1" or "[2001:db8::1]:5353"` + "\n" +
		`m.toml:6:31: dns.servers: "192.0.2.1:0" is not the address of a server: want an IP address, with a port if it is not 53: "192.0.2.1" or "[2001:db8::1]:5353"`},
	{"+[dns]\nservers = ['::1','::2','::3','::4','::5','::6','::7','::8','::9']\n", `m.toml:6:1: dns.servers: 9 servers: want 8 or less`},
	{"+[dns]\nservers = ['127.0.0.1','192.0.2.53']\ntrust_ad = ['127.0.0.0/8']\n",
		`m.toml:7:1: dns.trust_ad: 192.0.2.53:53 of servers is not among them: mail that it finds the way for would lose its protection: want all of servers, or none`},
	{"+[dns]\nlookups = 0\ncache = 10\nttl_min = '2h'\nttl_max = '1m'\nnegative_max = '20s'\nstale = '8d'\n", "" +
		`m.toml:6:11: dns.lookups: 0 is out of range: want 1 to 10000` + "\n" +
		`m.toml:7:9: dns.cache: 10 is out of range: want 1000 to 100000000` + "\n" +
		`m.toml:8:11: dns.ttl_min: 2h is out of range: want 1s to 1h` + "\n" +
		`m.toml:9:11: dns.ttl_max: 1m is out of range: want 2h to 1w` + "\n" +
		`m.toml:10:16: dns.negative_max: 20s is out of range: want 2h to 1d` + "\n" +
		`m.toml:11:9: dns.stale: 8d is out of range: want 0ms to 1w`},
	{"+[egress]\nown = ['192.0.2.1', 'mx1.example.com', '2001:db8::1', 'not a name']\n",
		`m.toml:6:55: egress.own: "not a name" is not a domain name: want a name or an IP address, as in "mx1.example.com" or "192.0.2.1"`},

	// sizes and durations
	{"+[engine]\nmemory = '1 G'\n", `m.toml:6:10: engine.memory: "1 G" is ambiguous: want "1GB" (decimal) or "1GiB" (binary)`},
	{"+[engine]\nmemory = '1GIB0'\n", `m.toml:6:10: engine.memory: "1GIB0" is not a size: want a whole number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in "10MB"`},
	{"+[engine]\nmemory = '99999999999999999999'\n", `m.toml:6:10: engine.memory: "99999999999999999999" is too large: want less than 8388608TiB`},
	{"+[engine]\nmemory = '1MiB'\n", `m.toml:6:10: engine.memory: 1MiB is out of range: want 16MiB to 1024TiB`},
	{"+[limits]\nmessage_size = -1\n", `m.toml:6:16: limits.message_size: "-1" is not a size: want a whole number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in "10MB"`},
	{"+[queue]\nretry_min = '5'\nretry_max = '1 hour'\nexpire = '-5d'\n", "" +
		`m.toml:6:13: queue.retry_min: "5" has no unit: want "5s", "5m" or the like` + "\n" +
		`m.toml:7:13: queue.retry_max: "1 hour" is not a duration: want whole numbers with ms, s, m, h, d or w, as in "90s" or "1h30m"` + "\n" +
		`m.toml:8:10: queue.expire: "-5d" is not a duration: want whole numbers with ms, s, m, h, d or w, as in "90s" or "1h30m"`},
	{"+[queue]\nretry_min = '99999999999w'\nretry_max = '1ms'\nexpire = '52w2d'\n", "" +
		`m.toml:6:13: queue.retry_min: "99999999999w" is too long: want less than 292 years` + "\n" +
		`m.toml:7:13: queue.retry_max: 1ms is out of range: want 10ms to 1w` + "\n" +
		`m.toml:8:10: queue.expire: 366d is out of range: want 100ms to 365d`},
	{"+[queue]\nhold_max = '366d'\ndeliver_by_min = '25h'\nin_memory = 99\n[limits]\npriority_max = 10\n", "" +
		`m.toml:6:12: queue.hold_max: 366d is out of range: want 0ms to 365d` + "\n" +
		`m.toml:7:18: queue.deliver_by_min: 25h is out of range: want 0ms to 1d` + "\n" +
		`m.toml:8:13: queue.in_memory: 99 is out of range: want 100 to 100000000` + "\n" +
		`m.toml:10:16: limits.priority_max: 10 is out of range: want 0 to 9`},
	{"+[queue]\nretry_min = '5h'\n", `m.toml:6:13: queue.retry_min: 5h is longer than queue.retry_max: want 4h or less`},
	{"+[queue]\nexpire = '4h'\n", `m.toml:6:10: queue.expire: 4h is not longer than queue.retry_max: want more than 4h`},

	// ranges
	{"+[engine]\nloops = 257\nmax_connections = 0\ndrain_timeout = '2h'\n", "" +
		`m.toml:6:9: engine.loops: 257 is out of range: want 0 to 256` + "\n" +
		`m.toml:7:19: engine.max_connections: 0 is out of range: want 1 to 1000000` + "\n" +
		`m.toml:8:17: engine.drain_timeout: 2h is out of range: want 0ms to 1h`},
	{"+[spool]\nreshard = 'automatic'\n", `m.toml:6:11: spool.reshard: "automatic" is not known: want refuse, auto`},
	{"+[queue]\nin_doubt = 'giveup'\n", `m.toml:6:12: queue.in_doubt: "giveup" is not known: did you mean "give-up"?`},
	{"+[queue]\nin_doubt = 'never'\n", `m.toml:6:12: queue.in_doubt: "never" is not known: want retry, wait, give-up`},
	{"+[spool]\nreshard = 'Auto'\n", `m.toml:6:11: spool.reshard: "Auto" is not known: did you mean "auto"?`},
	{"+[spool]\npath = ''\nshards = 257\n", "" +
		`m.toml:6:8: spool.path: empty: want a directory` + "\n" +
		`m.toml:7:10: spool.shards: 257 is out of range: want 0 to 256`},
	{"+[spool]\npath = '/a'\nwal_failover = '/a/'\nwal_failover_after = '2m'\n", "" +
		`m.toml:7:16: spool.wal_failover: /a/ is the spool itself: want a directory on another disk` + "\n" +
		`m.toml:8:22: spool.wal_failover_after: 2m is out of range: want 1ms to 1m`},
	{"+[spool]\nmin_free = '2048TiB'\nmin_inodes = -1\nreserve = '2TiB'\n", "" +
		`m.toml:6:12: spool.min_free: 2048TiB is out of range: want 0 to 1024TiB` + "\n" +
		`m.toml:7:14: spool.min_inodes: -1 is out of range: want 0 to 1000000000` + "\n" +
		`m.toml:8:11: spool.reserve: 2TiB is out of range: want 0 to 1TiB`},
	{"+[egress]\nconnections = 0\nrecipients = 0\nmessages = -1\nport = 65536\nconnect_timeout = '1ms'\n", "" +
		`m.toml:6:15: egress.connections: 0 is out of range: want 1 to 10000` + "\n" +
		`m.toml:7:14: egress.recipients: 0 is out of range: want 1 to 10000` + "\n" +
		`m.toml:8:12: egress.messages: -1 is out of range: want 0 to 1000000000` + "\n" +
		`m.toml:9:8: egress.port: 65536 is not a port: want 1 to 65535` + "\n" +
		`m.toml:10:19: egress.connect_timeout: 1ms is out of range: want 100ms to 10m`},
	{"+[egress]\nwindow = -1\nwindow_size = '1KiB'\n", "" +
		`m.toml:6:10: egress.window: -1 is out of range: want 0 to 10000` + "\n" +
		`m.toml:7:15: egress.window_size: 1KiB is out of range: want 64KiB to 1GiB`},
	{"+[limits]\nrecipients = 0\nline_length = 100\nerrors = 0\ncommands = 0\ncommand_timeout = '0s'\n", "" +
		`m.toml:6:14: limits.recipients: 0 is out of range: want 1 to 100000` + "\n" +
		`m.toml:7:15: limits.line_length: 100 is out of range: want 512 to 65536` + "\n" +
		`m.toml:8:10: limits.errors: 0 is out of range: want 1 to 10000` + "\n" +
		`m.toml:9:12: limits.commands: 0 is out of range: want 1 to 1000000` + "\n" +
		`m.toml:10:19: limits.command_timeout: 0ms is out of range: want 100ms to 1h`},
	{"+[admin]\nnames = ['a.example', '-b.example']\nproxy_from = ['there']\n", "" +
		`m.toml:6:23: admin.names: "-b.example" is not a domain name: want a name that stands in URLs, as in "mta.example.com"` + "\n" +
		`m.toml:7:15: admin.proxy_from: "there" is not an address range: want "192.0.2.0/24", "2001:db8::/32" or a single address`},
	{"+[admin]\ninject_from = ['here']\ninject_size = 1\ninject_requests = 0\ninject_timeout = '1ms'\ninject_users = true\n", "" +
		`m.toml:6:16: admin.inject_from: "here" is not an address range: want "192.0.2.0/24", "2001:db8::/32" or a single address` + "\n" +
		`m.toml:7:15: admin.inject_size: 1 is out of range: want 1KiB to 1GiB` + "\n" +
		`m.toml:8:19: admin.inject_requests: 0 is out of range: want 1 to 10000` + "\n" +
		`m.toml:9:18: admin.inject_timeout: 1ms is out of range: want 1s to 1h` + "\n" +
		`m.toml:10:16: admin.inject_users: there are no users: want a file of them, users in [auth]`},
	{"+[idempotency]\nwindow = '1ms'\nmax = 10\n", "" +
		`m.toml:6:10: idempotency.window: 1ms is out of range: want 1s to 30d` + "\n" +
		`m.toml:7:7: idempotency.max: 10 is out of range: want 1000 to 1000000000`},
	{"+[events]\npath = ''\nmax_size = '1kB'\nkeep = -1\n", "" +
		`m.toml:6:8: events.path: empty: want a file, "-" for standard output, or "off"` + "\n" +
		`m.toml:7:12: events.max_size: 1kB is out of range: want 64KiB to 1024TiB` + "\n" +
		`m.toml:8:8: events.keep: -1 is out of range: want 0 to 1000`},
	{"+[log]\nlevel = 'inf'\nformat = 'xml'\n", "" +
		`m.toml:6:9: log.level: "inf" is not known: did you mean "info"?` + "\n" +
		`m.toml:7:10: log.format: "xml" is not known: want text, json`},

	{"+newlines = 'mend'\n", `m.toml:5:12: listener.newlines: "mend" is not known: want "reject" or "fix"`},

	// recipients
	{"+[[recipients]]\n[[recipients]]\ndomains = ['*', 'a_b', 'a.example', 'a.example']\nfile = '/nowhere/list'\nunsure = 'no'\nknown = '0s'\nunknown = '31d'\n" +
		"[[recipients]]\ndomains = ['b.example']\nfile = 'x'\nprobe = true\n[limits]\nunknown_recipients = -1\nunknown_delay = '31s'\n", "" +
		`m.toml:5:3: recipients.domains: missing: want exact names or "*.suffix", as in ["example.com"]` + "\n" +
		`m.toml:5:3: recipients: says nothing: want file or probe = true` + "\n" +
		`m.toml:7:12: recipients.domains: "*" is everything: want the domains that mail is relayed for` + "\n" +
		`m.toml:7:17: recipients.domains: "a_b" is not a domain name: want an exact name or "*.suffix"` + "\n" +
		`m.toml:7:37: recipients.domains: "a.example" has a table above already: want it once` + "\n" +
		`m.toml:8:8: recipients.file: open /nowhere/list: no such file or directory` + "\n" +
		`m.toml:9:10: recipients.unsure: "no" is not known: want "accept" or "defer"` + "\n" +
		`m.toml:10:9: recipients.known: 0ms is out of range: want 1s to 30d` + "\n" +
		`m.toml:11:11: recipients.unknown: 31d is out of range: want 1s to 30d` + "\n" +
		`m.toml:15:9: recipients.probe: file says who is there: want one of them` + "\n" +
		`m.toml:17:22: limits.unknown_recipients: -1 is out of range: want 0 to 1000000` + "\n" +
		`m.toml:18:17: limits.unknown_delay: 31s is out of range: want 0ms to 30s`},

	// labels
	{"+check_from = true\n[labels]\ntenant = 'X Tenant'\ncampaign = 'From'\nenvid = 'tenant/'\n[idempotency]\nheader = ':'\n", "" +
		`m.toml:5:14: listener.check_from: mail from other hosts has no user: want mode = "submission" or "submissions"` + "\n" +
		`m.toml:7:10: labels.tenant: "X Tenant" is not the name of a header field: want printable ASCII without ":", as in "X-Tenant"` + "\n" +
		`m.toml:8:12: labels.campaign: "From" has a meaning of its own, and would be taken out of mail: want a name like "X-Tenant"` + "\n" +
		`m.toml:9:9: labels.envid: "tenant/" is not a form of ENVID: want tenant, campaign and key, each once at most, with "/" between, as in "tenant/campaign/key"` + "\n" +
		`m.toml:11:10: idempotency.header: ":" is not the name of a header field: want printable ASCII without ":", as in "X-Tenant"`},
	{"+[labels]\ntenant = 'DKIM-Signature'\ncampaign = 'Return-Path'\n", "" +
		`m.toml:6:10: labels.tenant: "DKIM-Signature" has a meaning of its own, and would be taken out of mail: want a name like "X-Tenant"` + "\n" +
		`m.toml:7:12: labels.campaign: "Return-Path" has a meaning of its own, and would be taken out of mail: want a name like "X-Tenant"`},
	{"+[labels]\ntenant = 'X-A'\ncampaign = 'x-a'\nenvid = 'key/key'\n", "" +
		`m.toml:7:12: labels.campaign: "x-a" is the field of another label already: want another` + "\n" +
		`m.toml:8:9: labels.envid: "key/key" is not a form of ENVID: want tenant, campaign and key, each once at most, with "/" between, as in "tenant/campaign/key"`},

	// users
	{"+auth = true\n", `m.toml:5:8: listener.auth: there are no users: want users in [auth], or [auth.oauth]`},
	{"+auth = 'yes'\nauth_in_clear = 1\n", "" +
		`m.toml:5:8: listener.auth: "yes" is not a truth value: want true or false` + "\n" +
		`m.toml:6:17: listener.auth_in_clear: 1 is not a truth value: want true or false`},
	{"hostname = 'a.b'\n[[listener]]\naddress='127.0.0.1:0'\nmode='submission'\n[auth]\nusers='/dev/null'\n",
		`m.toml:2:3: listener.auth: AUTH is for TLS, of which there is none here: want certificates in [tls] and starttls = true, or auth_in_clear = true`},
	{"+[auth]\nusers = '/nowhere/users.toml'\nmechanisms = ['plain', 'XOAUTH2', 'PLAIN', 'CRAM-MD5', 'LOGI']\n", "" +
		`m.toml:6:9: auth.users: stat /nowhere/users.toml: no such file or directory: want the file that "mailrace user add" makes` + "\n" +
		`m.toml:7:24: auth.mechanisms: XOAUTH2 takes tokens: want introspection or jwks in [auth.oauth]` + "\n" +
		`m.toml:7:35: auth.mechanisms: PLAIN stands here twice` + "\n" +
		`m.toml:7:44: auth.mechanisms: "CRAM-MD5" is not known: want PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, XOAUTH2, OAUTHBEARER` + "\n" +
		`m.toml:7:56: auth.mechanisms: "LOGI" is not known: did you mean "LOGIN"?`},
	{"+[auth]\nmechanisms = ['LOGIN']\nworkers = -1\nqueue = 0\ncache = '2d'\nfailures = -1\nfailure_window = '0s'\nfailure_delay = '1m'\n", "" +
		`m.toml:6:15: auth.mechanisms: LOGIN takes passwords: want users in [auth]` + "\n" +
		`m.toml:7:11: auth.workers: -1 is out of range: want 0 to 1024` + "\n" +
		`m.toml:8:9: auth.queue: 0 is out of range: want 1 to 1000000` + "\n" +
		`m.toml:9:9: auth.cache: 2d is out of range: want 0ms to 1d` + "\n" +
		`m.toml:10:12: auth.failures: -1 is out of range: want 0 to 1000000` + "\n" +
		`m.toml:11:18: auth.failure_window: 0ms is out of range: want 1s to 1d` + "\n" +
		`m.toml:12:17: auth.failure_delay: 1m is out of range: want 0ms to 10s`},
	{"+[auth.oauth]\nintrospection = 'http://idp.example/i'\njwks = '/nowhere/jwks.json'\nclaim = ''\ntimeout = '1ms'\n", "" +
		`m.toml:6:17: auth.oauth.introspection: "http://idp.example/i" is not secured: want https` + "\n" +
		`m.toml:7:8: auth.oauth.jwks: there is introspection, too: want one of them` + "\n" +
		`m.toml:8:9: auth.oauth.claim: empty: want the claim that names the user, as in "email"` + "\n" +
		`m.toml:9:11: auth.oauth.timeout: 1ms is out of range: want 100ms to 1m`},
	{"+[auth.oauth]\nintrospection = 'idp.example'\n", `m.toml:6:17: auth.oauth.introspection: "idp.example" is not a URL: want one as in "https://idp.example.com/introspect"`},
	{"+[limits.client]\nauth_failures = -1\n", `m.toml:6:17: limits.client.auth_failures: -1 is out of range: want 0 to 1000000000`},

	// policies
	{"+[[listener]]\naddress = '127.0.0.1:2526'\nmode = 'submission'\ncheck_sender = true\n", `m.toml:8:16: listener.check_sender: mail of users is not asked about: want mode = "mx"`},
	{"+[[provider]]\n[[provider]]\nname = 'a'\nmx = ['*.co.uk', '*', '*.A.example', 'com', 'a..b']\naddresses = ['0.0.0.0/0', '192.0.2.1/24']\nconnections = -1\n" +
		"[[provider]]\nname = 'a'\nmx = ['*.a.example']\n[[provider]]\nname = 'say \"x\"'\nmx = ['mx.b.example']\n", "" +
		`m.toml:5:3: provider.name: missing: want what records and mailrace explain call the provider` + "\n" +
		`m.toml:5:3: provider: has no hosts: want mx, as in ["*.provider.example"], or addresses, as in ["192.0.2.0/24"]` + "\n" +
		`m.toml:8:7: provider.mx: anybody has names below "co.uk": want the provider's own, as in "*.provider.co.uk"` + "\n" +
		`m.toml:8:18: provider.mx: "*" is everything: want names or "*.suffix"` + "\n" +
		`m.toml:8:45: provider.mx: "a..b" is not a domain name: want an exact name or "*.suffix"` + "\n" +
		`m.toml:9:14: provider.addresses: 0.0.0.0/0 is everything: want the addresses of the provider` + "\n" +
		`m.toml:9:27: provider.addresses: "192.0.2.1/24" has bits set behind the prefix: did you mean "192.0.2.0/24"?` + "\n" +
		`m.toml:10:15: provider.connections: -1 is out of range: want 0 to 1000000` + "\n" +
		`m.toml:12:8: provider.name: "a" is the name of a provider above: want another` + "\n" +
		`m.toml:13:7: provider.mx: "*.a.example" is in a provider above: want it once` + "\n" +
		`m.toml:15:8: provider.name: not a name: want 1 to 255 octets without control characters, quotes and backslashes`},
	{"+[[policy]]\n[[policy]]\ndomains = ['a.example']\nmx = ['*.b.example']\nroutes = ['r']\n[[policy]]\ndomains = ['*']\nretry_min = '5h'\n", "" +
		`m.toml:5:3: policy: is for no mail: want domains, mx, routes, tenants or campaigns. What holds for all mail stands in [queue]` + "\n" +
		`m.toml:6:3: policy: says nothing: want retry, retry_min, retry_max, expire, bounce_expire or pool` + "\n" +
		`m.toml:8:1: policy.mx: a policy is for one of domains, mx and routes: want a table for each` + "\n" +
		`m.toml:9:1: policy.routes: a policy is for one of domains, mx and routes: want a table for each` + "\n" +
		`m.toml:11:12: policy.domains: "*" is everything: want names or "*.suffix", or none of them. What holds for all mail stands in [queue]` + "\n" +
		`m.toml:12:13: policy.retry_min: 5h is longer than queue.retry_max: want 4h or less, or retry_max, too`},
	{"+[[route]]\ndomains = ['*']\nto = 'mx'\nname = 'bulk'\n[[route]]\ndomains = ['a.example']\nto = 'discard'\nname = 'bulk'\n[[policy]]\nroutes = ['bulk', 'balk', 'other']\nexpire = '1ms'\n", "" +
		`m.toml:12:8: route.name: "bulk" is the name of a route above: want another` + "\n" +
		`m.toml:14:19: policy.routes: "balk" is no route: did you mean "bulk"?` + "\n" +
		`m.toml:14:27: policy.routes: "other" is no route: want the name of a [[route]]` + "\n" +
		`m.toml:15:10: policy.expire: 1ms is out of range: want 100ms to 365d`},
	{"+[[policy]]\nmx = ['mx.a.example', '*.a..example']\nretry = ['1m', '1ms', 'soon']\n[[policy]]\ndomains = ['a.example']\nretry = ['1m', '8d']\nretry_max = '1m'\n", "" +
		`m.toml:6:23: policy.mx: "a..example" is not a domain name: want an exact name or "*.suffix"` + "\n" +
		`m.toml:7:16: policy.retry: 1ms is out of range: want 10ms to 1w` + "\n" +
		`m.toml:7:23: policy.retry: "soon" is not a duration: want whole numbers with ms, s, m, h, d or w, as in "90s" or "1h30m"` + "\n" +
		`m.toml:10:1: policy.retry: retry_min or retry_max stands here, too: want the list, or these` + "\n" +
		`m.toml:10:16: policy.retry: 8d is out of range: want 10ms to 1w`},
	{"+[[policy]]\ndomains = ['A.example', '*.a.example']\nexpire = '1h'\n[[policy]]\ndomains = ['a.example']\ntenants = ['t', 'u']\nexpire = '1h'\n" +
		"[[policy]]\ndomains = ['b.example', '*.a.example']\nretry_max = '1m'\n[[policy]]\ndomains = ['a.example']\ntenants = ['u', '', 'v', 'v']\nretry_min = '2h'\nretry_max = '1h'\n", "" +
		`m.toml:13:25: policy.domains: "*.a.example" has a policy above already: want it once` + "\n" +
		`m.toml:14:13: policy.retry_max: 1m is shorter than queue.retry_min: want 5m or more, or retry_min, too` + "\n" +
		`m.toml:16:12: policy.domains: "a.example" of tenant "u" has a policy above already: want it once` + "\n" +
		`m.toml:17:17: policy.tenants: not a label: want 1 to 255 octets without control characters` + "\n" +
		`m.toml:17:26: policy.tenants: "v" stands here twice: want it once` + "\n" +
		`m.toml:18:13: policy.retry_min: 2h is longer than retry_max: want 1h or less`},
	{"+[[policy]]\ntenants = ['t']\nbounce_expire = '1h'\n[[policy]]\ntenants = ['u', 't']\nexpire = '1h'\n", `m.toml:9:17: policy.tenants: "t" has a policy above already: want it once`},
	{"+[[policy]]\ncampaigns = ['c', '', 'c']\npool = 'p'\n[[policy]]\ntenants = ['t']\ncampaigns = ['c']\nexpire = '1h'\n[[policy]]\ntenants = ['t', 'u']\ncampaigns = ['d', 'c']\nexpire = '1h'\n[[policy]]\ncampaigns = ['c']\nexpire = '1h'\n", "" +
		`m.toml:6:19: policy.campaigns: not a label: want 1 to 255 octets without control characters` + "\n" +
		`m.toml:6:23: policy.campaigns: "c" stands here twice: want it once` + "\n" +
		`m.toml:7:8: policy.pool: "p" is no pool: want the name of a [[pool]]` + "\n" +
		`m.toml:13:12: policy.tenants: "t" campaign "c" has a policy above already: want it once` + "\n" +
		`m.toml:17:14: policy.campaigns: campaign "c" has a policy above already: want it once`},

	// sources and pools
	{"+[[source]]\n[[source]]\nname = 'a b'\nipv4 = '::1'\nipv6 = '192.0.2.1'\nehlo = '-'\n[[source]]\nname = 'a'\nipv4 = '0.0.0.0'\nsocks5 = '10.0.0.1'\nproxy = ':1'\n[[source]]\nname = 'a'\nsocks5 = '10.0.0.1:1080'\nuser = 'u'\n[[source]]\nname = 'b'\nipv6 = '2001:db8::1'\npassword = 'env:X'\nproxy = '10.0.0.1:1'\n", "" +
		`m.toml:5:3: source.name: missing: want a name, as in "a"` + "\n" +
		`m.toml:5:3: source: has no address: want ipv4, ipv6 or both` + "\n" +
		`m.toml:6:3: source: has no address: want ipv4, ipv6 or both` + "\n" +
		`m.toml:7:8: source.name: "a b" cannot be a name: want at most 64 letters, digits, ".", "_" and "-"` + "\n" +
		`m.toml:8:8: source.ipv4: "::1" is no IPv4 address to send from: want one as in "192.0.2.10"` + "\n" +
		`m.toml:9:8: source.ipv6: "192.0.2.1" is no IPv6 address to send from: want one as in "2001:db8::10"` + "\n" +
		`m.toml:10:8: source.ehlo: "-" is not a domain name: want the name of the source's address, as in "out1.example.com"` + "\n" +
		`m.toml:13:8: source.ipv4: "0.0.0.0" is no IPv4 address to send from: want one as in "192.0.2.10"` + "\n" +
		`m.toml:14:10: source.socks5: "10.0.0.1" is not the address of a proxy: want host:port, as in "10.0.0.5:1080"` + "\n" +
		`m.toml:15:9: source.proxy: ":1" is not the address of a proxy: want host:port, as in "10.0.0.5:1080"` + "\n" +
		`m.toml:16:3: source.password: missing: want where it stands, as in "file:/etc/mailrace/proxy.password"` + "\n" +
		`m.toml:17:8: source.name: "a" is the name of one above: want another` + "\n" +
		`m.toml:20:3: source.user: nobody asks for it: it is for socks5`},
	{"+[[source]]\nname = 'a'\nipv4 = '192.0.2.1'\n[[pool]]\n[[pool]]\nname = 'p'\nsources = [{ name = 'a', weight = 0 }, { name = 'aa' }, { name = 'a', weight = 1000001 }, { nam = 'a' }]\n[[pool]]\nname = 'p'\nsources = ['a']\n[[route]]\ndomains = ['*']\nto = 'discard'\npool = 'p'\n[egress]\npool = 'q'\nprefer = 'v6'\nsource_retry = '0s'\n", "" +
		`m.toml:8:3: pool.name: missing: want a name, as in "a"` + "\n" +
		`m.toml:8:3: pool.sources: missing: want names of sources, as in [{ name = "a", weight = 1 }]` + "\n" +
		`m.toml:11:35: pool.sources.weight: 0 is out of range: want 1 to 1000000` + "\n" +
		`m.toml:11:40: pool.sources: "aa" is no source: want the name of a [[source]]` + "\n" +
		`m.toml:11:57: pool.sources: "a" stands here twice: want it once` + "\n" +
		`m.toml:11:80: pool.sources.weight: 1000001 is out of range: want 1 to 1000000` + "\n" +
		`m.toml:11:91: pool.sources: names no source: want the name of a [[source]]` + "\n" +
		`m.toml:11:93: pool.sources.nam: unknown key: did you mean "name"?` + "\n" +
		`m.toml:13:8: pool.name: "p" is the name of one above: want another` + "\n" +
		`m.toml:18:8: route.pool: "discard" needs no connection: want no pool` + "\n" +
		`m.toml:20:8: egress.pool: "q" is no pool: want the name of a [[pool]]` + "\n" +
		`m.toml:21:10: egress.prefer: "v6" is not known: want ipv4, ipv6` + "\n" +
		`m.toml:22:16: egress.source_retry: 0ms is out of range: want 1s to 1d`},
	{"+[queue]\nretry = ['0s']\nbounce_expire = '400d'\n", "" +
		`m.toml:6:10: queue.retry: 0ms is out of range: want 10ms to 1w` + "\n" +
		`m.toml:7:17: queue.bounce_expire: 400d is out of range: want 100ms to 365d`},

	// routes
	{"+[[route]]\ndomains = ['*', 'a.example', 'A.example']\nto = 'mx'\n[[route]]\ndomains = ['*']\nto = 'mx'\n", "" +
		`m.toml:6:30: route.domains: "a.example" has a route above already: want it once` + "\n" +
		`m.toml:9:12: route.domains: "*" has a route above already: want it once`},
	{"+[[route]]\ndomains = ['*example.com', '.example.com', 'bücher.example', '*.*']\nto = 'mx'\nconnections = -1\n", "" +
		`m.toml:6:12: route.domains: "*example.com" is not a domain name: want an exact name, "*.suffix" or "*"` + "\n" +
		`m.toml:6:28: route.domains: ".example.com" is not a domain name: want an exact name, "*.suffix" or "*"` + "\n" +
		`m.toml:6:44: route.domains: "b\u00fccher.example" is not in ASCII form: did you mean "xn--bcher-kva.example"?` + "\n" +
		`m.toml:6:63: route.domains: "*" is not a domain name: want an exact name, "*.suffix" or "*"` + "\n" +
		`m.toml:8:15: route.connections: -1 is out of range: want 0 to 10000`},
	{"+[[route]]\ndomains = ['a']\nto = 'MX'\n", `m.toml:7:6: route.to: "MX" is not a target: did you mean "mx"?`},
	{"+[[route]]\ndomains = ['a']\nto = 'host.example:25'\n", `m.toml:7:6: route.to: "host.example:25" is not a target: did you mean "smtp://host.example:25"?`},
	{"+[[route]]\ndomains = ['a']\nto = 'lmtp://lo calhost'\n", `m.toml:7:6: route.to: "lmtp://lo calhost": "lo calhost" is not a domain name: want "lmtp://host:port"`},
	{"+[[route]]\ndomains = ['a']\nto = 'lmtp+unix://run/lmtp'\n", `m.toml:7:6: route.to: "lmtp+unix://run/lmtp": "run/lmtp" is not an absolute path: want three slashes, as in "lmtp+unix:///run/lmtp"`},
	{"+[[route]]\ndomains = ['a']\nto = 'maildir:///var/mail/{name}'\n", `m.toml:7:6: route.to: "maildir:///var/mail/{name}": {name} is no placeholder: want {local}, {user}, {domain}, {address}`},
	{"+[[route]]\ndomains = ['a']\nto = 'maildir://mail'\nuser = 'u'\n", `m.toml:7:6: route.to: "maildir://mail": "mail" is not an absolute path: want three slashes, as in "maildir:///mail"`},
	{"+[[route]]\ndomains = ['a']\nto = 'lmtp+unix:///..'\n", `m.toml:7:6: route.to: "lmtp+unix:///..": want a path behind the root`},
	{"+[[route]]\ndomains = ['a']\nto = 'lmtp+unix:///" + strings.Repeat("x", 107) + "'\n", `m.toml:7:6: route.to: "lmtp+unix:///` + strings.Repeat("x", 47) + `\u2026": the path of a socket has 107 octets at most`},
	{"+[[route]]\ndomains = ['a']\nto = 'lmtp+unix:///run/lmtp'\ntls = 'required'\n", `m.toml:8:7: route.tls: "lmtp+unix:///run/lmtp" does not leave this machine: want no tls`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtps://host.example'\ntls = 'opportunistic'\n", `m.toml:8:7: route.tls: "smtps://host.example:465" begins with TLS: want "verified" or "required"`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nuser = 'u'\npassword = 'hunter2'\n", "" +
		`m.toml:8:8: route.user: there is nothing to log in with: want password or token, as in password = "file:/etc/mailrace/relay.password"` + "\n" +
		`m.toml:9:12: route.password: a secret does not belong in this file: want "file:/path" or "env:NAME", where it stands`},
	{"+[[route]]\ndomains = ['a']\nto = 'mx'\nuser = 'u'\npassword = 'env:X'\n", `m.toml:8:8: route.user: "mx" is not one host to log in at: want smtp://, smtps:// or lmtp://`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nauth_in_clear = true\n", `m.toml:5:3: route.user: missing: want the name that password or token is for`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nuser = 'u'\ntls = 'opportunistic'\n", "" +
		`m.toml:8:8: route.user: there is nothing to log in with: want password or token, as in password = "file:/etc/mailrace/relay.password"` + "\n" +
		`m.toml:9:7: route.tls: "opportunistic" may show the credentials to everybody on the way: want "verified" or "required", or auth_in_clear = true`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nuser = 'u'\npassword = 'file:/nowhere/p'\nmechanism = 'XOAUTH2'\n", "" +
		`m.toml:9:12: route.password: stat /nowhere/p: no such file or directory` + "\n" +
		`m.toml:10:13: route.mechanism: "XOAUTH2" is not known: want SCRAM-SHA-256, PLAIN, LOGIN`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nuser = 'u'\ntoken = 'file:/dev/null'\nmechanism = 'xoauth2'\n", "" +
		`m.toml:9:9: route.token: "/dev/null" is no file` + "\n" +
		`m.toml:10:13: route.mechanism: "xoauth2" is not known: did you mean "XOAUTH2"?`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://h'\nuser = 'u'\ntoken = 'env:MAILRACE_TEST_NOT_SET'\npassword = 'env:MAILRACE_TEST_NOT_SET'\n",
		`m.toml:9:9: route.token: there is a password, too: want one of them`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://host.example:0'\n", `m.toml:7:6: route.to: "smtp://host.example:0": "0" is not a port: want 1 to 65535`},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://ho st'\n", `m.toml:7:6: route.to: "smtp://ho st": "ho st" is not a domain name: want "smtp://host:port"`},
	{"+[[route]]\ndomains = ['a']\nto = 'somewhere'\n", `m.toml:7:6: route.to: "somewhere" is not a target: want ` + targetForms},
	{"+[[route]]\ndomains = ['a']\nto = 'smtp://'\n", `m.toml:7:6: route.to: "smtp://": "" is not a domain name: want "smtp://host:port"`},
}

func TestFaults(t *testing.T) {
	for _, c := range faults {
		text := c.toml
		if len(text) > 0 && text[0] == '+' {
			text = minimal + text[1:]
		}
		_, err := Parse("m.toml", []byte(text))
		if err == nil {
			t.Errorf("%q was accepted, want\n%s", c.toml, c.want)
		} else if err.Error() != c.want {
			t.Errorf("%q: got\n%s\nwant\n%s", c.toml, err, c.want)
		}
	}
}
