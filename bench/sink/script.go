package sink

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Script says how destinations behave. What it does not speak of behaves as the options of the sink say.
type Script struct {
	Destinations []Destination `toml:"destination"`
}

// Destination is how some sites behave, or some domains. Counts are of each site by itself, which is a local address: a destination of 100 addresses
// with one connection each takes 100. 0 = no limit, and never.
//
// Who connects to one of Sites meets it from the banner on. One without Sites is known by the domain of the recipient, and goes before that of the
// address from RCPT on: its behaviour at the verbs before is nobody's.
type Destination struct {
	Name        string     `toml:"name"`        // in reports; required, each once
	Domains     []pattern  `toml:"domains"`     // of recipients: exact names, "*.suffix", or "*". With Sites: whose MX hosts they are, for the name server
	Sites       []prefix   `toml:"sites"`       // IPv4 addresses or ranges of the sink's own. A domain's MX host is one of them, always the same
	Delay       Delays     `toml:"delay"`       // as in --delay
	Tempfail    Shares     `toml:"tempfail"`    // as in --tempfail
	Permfail    Shares     `toml:"permfail"`    // as in --permfail
	Drop        Shares     `toml:"drop"`        // as in --drop
	Connections int        `toml:"connections"` // most open at a time; a further one gets 421
	Messages    int        `toml:"messages"`    // most of one connection, then 421
	Rate        Rate       `toml:"rate"`        // most messages in any span of the time that it names, then 451
	Greylist    greylisted `toml:"greylist"`    // how long the first attempt of a client, sender and recipient, and those after it, get 451
}

const (
	scriptMost = 4 << 20 // octets of a script
	countMost  = 1_000_000
	sitesMost  = 1 << 20 // addresses of all destinations
)

// pattern is a domain, "*.suffix" or "*", in lower case.
type pattern struct{ name string }

func (p *pattern) UnmarshalText(text []byte) error {
	name := strings.ToLower(strings.TrimSuffix(string(text), "."))
	if rest := strings.TrimPrefix(name, "*."); name != "*" && (rest == "" || strings.ContainsAny(rest, "* @\t") || strings.Contains("."+rest+".", "..")) {
		return fmt.Errorf("%q: want a domain, *.suffix or *", text)
	}
	p.name = name
	return nil
}

// prefix is a range of IPv4 addresses, or one.
type prefix struct{ netip.Prefix }

func (p *prefix) UnmarshalText(text []byte) (err error) {
	if one, fault := netip.ParseAddr(string(text)); fault == nil {
		p.Prefix = netip.PrefixFrom(one, one.BitLen())
	} else if p.Prefix, err = netip.ParsePrefix(string(text)); err != nil || p.Prefix != p.Masked() {
		return fmt.Errorf("%q: want an address or a range such as 127.1.0.0/24", text)
	}
	if !p.Addr().Is4() {
		return fmt.Errorf("%q: want IPv4", text)
	}
	return nil
}

func (p prefix) size() int { return 1 << (32 - p.Bits()) }

// Rate is a number of messages in a time. It reads "50/s", "1000/m" or "20000/h".
type Rate struct {
	Messages int
	Per      time.Duration
}

var rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}

func (r Rate) String() string {
	for unit, per := range rateUnits {
		if r.Messages > 0 && r.Per == per {
			return strconv.Itoa(r.Messages) + "/" + unit
		}
	}
	return ""
}

// UnmarshalText reads what String writes.
func (r *Rate) UnmarshalText(text []byte) error {
	number, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > countMost || rateUnits[unit] == 0 {
		return fmt.Errorf("%q: want messages in a second, minute or hour such as 50/s, 1000/m or 20000/h, up to %d", text, countMost)
	}
	r.Messages, r.Per = n, rateUnits[unit]
	return nil
}

// greylisted is a time above 0.
type greylisted time.Duration

func (g *greylisted) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return fmt.Errorf("%q: want a time such as 30s", text)
	}
	*g = greylisted(d)
	return nil
}

// UnmarshalText reads delays as Set does.
func (d *Delays) UnmarshalText(text []byte) error { return d.Set(string(text)) }

// UnmarshalText reads shares as Set does.
func (s *Shares) UnmarshalText(text []byte) error { return s.Set(string(text)) }

// LoadScript reads a script. Its errors name the file and the line.
func LoadScript(path string) (*Script, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, scriptMost+1))
	if err != nil {
		return nil, fmt.Errorf("script: %w", err)
	}
	return ParseScript(path, text)
}

// ParseScript reads a script; name stands for its file in errors.
func ParseScript(name string, text []byte) (*Script, error) {
	if len(text) > scriptMost {
		return nil, fmt.Errorf("%s: more than %d octets", name, scriptMost)
	}
	s := new(Script)
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(s)
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown):
		first := &unknown.Errors[0]
		line, _ := first.Position()
		return nil, fmt.Errorf("%s:%d: unknown key %s", name, line, strings.Join(first.Key(), "."))
	case errors.As(err, &wrong):
		line, _ := wrong.Position()
		return nil, fmt.Errorf("%s:%d: %s%s", name, line, keyOf(wrong), strings.TrimPrefix(wrong.Error(), "toml: "))
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if i, err := s.fault(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, headerLine(text, i), err)
	}
	return s, nil
}

func keyOf(e *toml.DecodeError) string {
	if len(e.Key()) == 0 {
		return ""
	}
	return strings.Join(e.Key(), ".") + ": "
}

// headerLine is the line of the header of the i-th destination, from 1.
func headerLine(text []byte, i int) int {
	line := 0
	for row := range bytes.Lines(text) {
		line++
		if bytes.HasPrefix(bytes.ReplaceAll(row, []byte(" "), nil), []byte("[[destination]]")) {
			if i--; i < 0 {
				return line
			}
		}
	}
	return 1 // they stand in an array in brackets
}

// fault is what is wrong with a destination, which it names by its index.
func (s *Script) fault() (int, error) {
	names, domains, sites := map[string]bool{}, map[string]string{}, 0
	for i := range s.Destinations {
		d := &s.Destinations[i]
		if err := d.fault(); err != nil {
			return i, err
		}
		if names[d.Name] {
			return i, fmt.Errorf("destination %q is there above already", d.Name)
		}
		names[d.Name] = true
		for _, p := range d.Domains {
			if other := domains[p.name]; other != "" {
				return i, fmt.Errorf("destination %q: domain %q is one of %q already", d.Name, p.name, other)
			}
			domains[p.name] = d.Name
		}
		for _, p := range d.Sites {
			if sites += p.size(); sites > sitesMost {
				return i, fmt.Errorf("destination %q: with its sites there are more than %d", d.Name, sitesMost)
			}
			for _, other := range s.Destinations[:i] {
				if slices.ContainsFunc(other.Sites, func(o prefix) bool { return o.Overlaps(p.Prefix) }) {
					return i, fmt.Errorf("destination %q: sites %v are those of %q already", d.Name, p, other.Name)
				}
			}
		}
	}
	return 0, nil
}

func (d *Destination) fault() error {
	switch {
	case d.Name == "":
		return errors.New("destination without a name")
	case len(d.Domains)+len(d.Sites) == 0:
		return fmt.Errorf("destination %q: neither domains nor sites", d.Name)
	case d.Connections < 0 || d.Messages < 0 || max(d.Connections, d.Messages) > countMost:
		return fmt.Errorf("destination %q: want counts of 0 to %d", d.Name, countMost)
	}
	for v := range verbs {
		switch sum := d.Tempfail[v] + d.Permfail[v] + d.Drop[v]; {
		case sum > 1:
			return fmt.Errorf("destination %q: %v: shares of tempfail, permfail and drop add up to %g, above 1", d.Name, v, sum)
		case v < Rcpt && len(d.Sites) == 0 && (sum > 0 || d.Delay[v] > 0):
			return fmt.Errorf("destination %q: it has no sites and is known at RCPT, which is too late for %v", d.Name, v)
		}
	}
	return nil
}

// byDomain finds the destination of a domain in lower case, the most specific pattern first, or nil.
func byDomain[T any](patterns map[string]*T, domain []byte) *T {
	if t := patterns[string(domain)]; t != nil {
		return t
	}
	for rest := domain; ; {
		_, after, more := bytes.Cut(rest, []byte("."))
		if !more {
			return patterns["*"]
		}
		// "*.suffix" stands without its star.
		if t := patterns[string(rest[len(rest)-len(after)-1:])]; t != nil {
			return t
		}
		rest = after
	}
}

// patternKey is a pattern as byDomain looks for it.
func patternKey(p pattern) string { return cmp.Or(strings.TrimPrefix(p.name, "*"), "*") }
