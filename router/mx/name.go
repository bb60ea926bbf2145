package mx

import (
	"errors"
	"strings"

	"golang.org/x/net/idna"
)

// ErrName is why Normal refuses a name.
var ErrName = errors.New("not a host name")

// maxName and maxLabel are the limits of RFC 1035 §2.3.4, in octets without the trailing dot.
const (
	maxName  = 253
	maxLabel = 63
)

// Normal returns a domain as it is compared and asked for: lower case, A-labels (RFC 5890), without a trailing dot. It does not allocate
// where the name is normal already. Address literals pass in lower case. Underscores pass, being in use.
func Normal(name string) (string, error) {
	if strings.HasPrefix(name, "[") {
		return strings.ToLower(name), nil
	}
	name = strings.TrimSuffix(name, ".")
	ascii, upper := true, false
	for i := range len(name) {
		c := name[i]
		ascii = ascii && c < 0x80
		upper = upper || 'A' <= c && c <= 'Z'
	}
	if !ascii {
		a, err := idna.Lookup.ToASCII(name)
		if err != nil {
			return "", ErrName
		}
		name = a
	} else if upper {
		name = strings.ToLower(name)
	}
	if !valid(name) {
		return "", ErrName
	}
	return name, nil
}

// valid says whether a lower-case name has only labels of 1 to 63 letters, digits, hyphens and underscores, no hyphen at either end.
func valid(name string) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	start := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			if c := name[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
			continue
		}
		if n := i - start; n == 0 || n > maxLabel || name[start] == '-' || name[i-1] == '-' {
			return false
		}
		start = i + 1
	}
	return true
}
