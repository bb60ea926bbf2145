// Package mtasts reads what a domain publishes for MTA-STS (RFC 8461): the TXT record that says which policy is the present one, and the policy
// itself, which names the mail exchangers that may get its mail, under TLS. All of it comes from strangers.
package mtasts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mode is what a policy wants of senders whose connection does not comply.
type Mode string

const (
	// Enforce: do not deliver there.
	Enforce Mode = "enforce"
	// Testing: deliver, and report.
	Testing Mode = "testing"
	// None: the domain has no policy any more.
	None Mode = "none"
)

const (
	version = "STSv1"
	// PolicyMax bounds the octets of a policy. RFC 8461 §3.3
	PolicyMax = 64 << 10
	// patternsMax bounds the mail exchangers of a policy.
	patternsMax = 100
	idMax       = 32
	nameMax     = 255
	// AgeMax is the longest that a policy may be kept. RFC 8461 §3.2
	AgeMax = 31557600 * time.Second
)

// Policy is what a domain wants. It is immutable once it is parsed.
type Policy struct {
	Mode   Mode          `json:"mode"`
	MX     []string      `json:"mx,omitempty"` // lower-case names, or "*.name" for one label in place of the star
	MaxAge time.Duration `json:"max_age"`      // 0 to AgeMax
}

// ParseRecord finds the id of the present policy among the TXT records of _mta-sts.domain. Without exactly one valid record there is none: "".
// RFC 8461 §3.1
func ParseRecord(texts []string) (id string) {
	found := false
	for _, text := range texts {
		first, rest, more := strings.Cut(text, ";")
		key, value, _ := strings.Cut(first, "=")
		if !more || strings.TrimRight(key, " \t") != "v" || trim(value) != version {
			continue
		}
		if found {
			return ""
		}
		found, id = true, recordID(rest)
	}
	return id
}

// recordID finds the id among the fields of a record, or "".
func recordID(fields string) string {
	for field := range strings.SplitSeq(fields, ";") {
		if key, value, _ := strings.Cut(field, "="); trim(key) == "id" {
			if value = trim(value); validID(value) {
				return value
			}
			return ""
		}
	}
	return ""
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			return false
		}
	}
	return len(id) > 0 && len(id) <= idMax
}

func trim(s string) string { return strings.Trim(s, " \t") }

// ParsePolicy reads a policy file. Of a key that stands there twice the first counts, but for mx; unknown ones are passed over. RFC 8461 §3.2
func ParsePolicy(text string) (*Policy, error) {
	if len(text) > PolicyMax {
		return nil, fmt.Errorf("the policy is longer than %d octets", PolicyMax)
	}
	p := &Policy{}
	seen := map[string]bool{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, "\r \t")
		if line == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%.50q is not a field", line)
		}
		key, value = trim(key), trim(value)
		if seen[key] && key != "mx" {
			continue
		}
		seen[key] = true
		if err := p.set(key, value); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return nil, fmt.Errorf("%s is missing", key)
		}
	}
	if p.Mode != None && len(p.MX) == 0 {
		return nil, errors.New("mx is missing")
	}
	return p, nil
}

func (p *Policy) set(key, value string) error {
	switch key {
	case "version":
		if value != version {
			return fmt.Errorf("version %.50q is not known", value)
		}
	case "mode":
		if p.Mode = Mode(value); p.Mode != Enforce && p.Mode != Testing && p.Mode != None {
			return fmt.Errorf("mode %.50q is not known", value)
		}
	case "max_age":
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %.50q is not a number of seconds", value)
		}
		p.MaxAge = time.Duration(min(n, uint64(AgeMax/time.Second))) * time.Second
	case "mx":
		pattern := strings.ToLower(strings.TrimSuffix(value, "."))
		if name := strings.TrimPrefix(pattern, "*."); name == "" || len(name) > nameMax || strings.ContainsAny(name, "* \t") {
			return fmt.Errorf("mx %.50q is neither a name nor a star before one", value)
		}
		if len(p.MX) == patternsMax {
			return fmt.Errorf("more than %d mx", patternsMax)
		}
		p.MX = append(p.MX, strings.Clone(pattern))
	}
	return nil
}

// Allows says whether the policy names a host, which is in lower case and without trailing dot. A star stands for one label. RFC 8461 §4.1
func (p *Policy) Allows(host string) bool {
	for _, pattern := range p.MX {
		if pattern == host {
			return true
		}
		suffix, star := strings.CutPrefix(pattern, "*")
		label, ok := strings.CutSuffix(host, suffix)
		if star && ok && label != "" && !strings.Contains(label, ".") {
			return true
		}
	}
	return false
}
