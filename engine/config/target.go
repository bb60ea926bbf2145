package config

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"mailrace/proto/maildir"
)

// TargetKind is the way a route leads.
type TargetKind uint8

const (
	// ToMX looks up the MX records of the recipient's domain.
	ToMX TargetKind = iota + 1
	// ToHost hands everything to one host over SMTP.
	ToHost
	// ToHostTLS does so under TLS from the start. RFC 8314 §3.3
	ToHostTLS
	// ToLMTP hands everything to one host over LMTP.
	ToLMTP
	// ToSocket does so at a Unix socket.
	ToSocket
	// ToMaildir writes it into mailboxes on this machine.
	ToMaildir
	// ToDiscard settles the mail as delivered and forgets it.
	ToDiscard
)

// Target is where a route leads.
type Target struct {
	Kind TargetKind
	Host string // where there is one: lower-case name or IP address without brackets
	Port uint16 // of Host; in files 25 for smtp, 465 for smtps and 24 for lmtp unless given
	Path string // ToSocket: absolute; ToMaildir: template of proto/maildir
}

// targetForms says what a target can be.
const targetForms = `"mx", "smtp://host:port", "smtps://host:port", "lmtp://host:port", "lmtp+unix:///path", "maildir:///path" or "discard"`

// schemes are the targets that are URLs, those to a host with the port that stands for none.
var schemes = []struct {
	name string
	kind TargetKind
	port uint16
}{{"smtp", ToHost, 25}, {"smtps", ToHostTLS, 465}, {"lmtp", ToLMTP, 24}, {"lmtp+unix", ToSocket, 0}, {"maildir", ToMaildir, 0}}

func (t Target) String() string {
	switch t.Kind {
	case ToDiscard:
		return "discard"
	case ToMX:
		return "mx"
	}
	for _, s := range schemes {
		switch {
		case s.kind != t.Kind:
		case s.port == 0:
			return s.name + "://" + t.Path
		default:
			return s.name + "://" + net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
		}
	}
	return ""
}

// local says whether the mail stays on this machine, or goes nowhere: nothing of a connection is to be configured.
func (t Target) local() bool { return t.Kind == ToSocket || t.Kind == ToMaildir || t.Kind == ToDiscard }

func parseTarget(s string) (Target, error) {
	switch s {
	case "mx":
		return Target{Kind: ToMX}, nil
	case "discard":
		return Target{Kind: ToDiscard}, nil
	}
	name, rest, isURL := strings.Cut(s, "://")
	for _, scheme := range schemes {
		switch {
		case !isURL || name != scheme.name:
		case scheme.port == 0:
			return parsePath(s, rest, scheme.kind)
		default:
			return parseHost(s, rest, scheme.kind, scheme.name, scheme.port)
		}
	}
	if near := nearest(s, []string{"mx", "discard"}); near != "" {
		return Target{}, fmt.Errorf("%s is not a target: did you mean %q?", quote(s), near)
	}
	if host, p, err := net.SplitHostPort(s); err == nil && host != "" && !strings.Contains(s, "/") {
		return Target{}, fmt.Errorf("%s is not a target: did you mean %q?", quote(s), "smtp://"+net.JoinHostPort(host, p))
	}
	return Target{}, fmt.Errorf("%s is not a target: want %s", quote(s), targetForms)
}

// parseHost reads what stands behind the scheme of s: a host, and a port if it is not the usual one.
func parseHost(s, rest string, kind TargetKind, scheme string, usual uint16) (Target, error) {
	host, p, err := net.SplitHostPort(rest)
	if err != nil {
		host, p = strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]"), strconv.Itoa(int(usual))
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return Target{}, fmt.Errorf("%s: %s is not a port: want 1 to 65535", quote(s), quote(p))
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	} else {
		host = strings.ToLower(host)
		if fault := hostFault(host); fault != "" {
			return Target{}, fmt.Errorf("%s: %s", quote(s), advise(fault, `"`+scheme+`://host:port"`))
		}
	}
	return Target{Kind: kind, Host: host, Port: uint16(n)}, nil
}

// socketMax is the most octets of the path of a Unix socket: what sun_path holds.
const socketMax = 107

// parsePath reads an absolute path behind the scheme of s.
func parsePath(s, p string, kind TargetKind) (Target, error) {
	switch {
	case !strings.HasPrefix(p, "/"):
		return Target{}, fmt.Errorf("%s: %s is not an absolute path: want three slashes, as in %q", quote(s), quote(p), strings.TrimSuffix(s, p)+"/"+p)
	case strings.ContainsRune(p, 0):
		return Target{}, fmt.Errorf("%s: the path holds NUL", quote(s))
	case path.Clean(p) == "/":
		return Target{}, fmt.Errorf("%s: want a path behind the root", quote(s))
	case kind == ToMaildir:
		template, err := maildir.Parse(p)
		if err != nil {
			return Target{}, fmt.Errorf("%s: %w", quote(s), err)
		}
		return Target{Kind: kind, Path: template.String()}, nil
	case len(p) > socketMax:
		return Target{}, fmt.Errorf("%s: the path of a socket has %d octets at most", quote(s), socketMax)
	}
	return Target{Kind: kind, Path: path.Clean(p)}, nil
}
