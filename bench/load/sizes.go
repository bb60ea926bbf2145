package load

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Size is one size of a mix.
type Size struct {
	Octets int // of content
	Weight int // share of the messages that have it, relative to the others
}

// Sizes is a mix of sizes. As a flag it reads "10KiB" or "4KiB:70,30KiB:25,1MiB:5".
type Sizes []Size

func (s Sizes) String() string {
	parts := make([]string, len(s))
	for i, z := range s {
		parts[i] = FormatOctets(z.Octets)
		if len(s) > 1 {
			parts[i] += ":" + strconv.Itoa(z.Weight)
		}
	}
	return strings.Join(parts, ",")
}

// Set reads a mix; it replaces the sizes that were there.
func (s *Sizes) Set(text string) error {
	var mix Sizes
	for part := range strings.SplitSeq(text, ",") {
		octets, weight, weighted := strings.Cut(part, ":")
		z := Size{Weight: 1}
		var err error
		if z.Octets, err = ParseOctets(octets); err != nil {
			return err
		}
		if weighted {
			if z.Weight, err = strconv.Atoi(weight); err != nil || z.Weight < 1 {
				return fmt.Errorf("weight %q: want a whole number above 0", weight)
			}
		}
		mix = append(mix, z)
	}
	*s = mix
	return nil
}

// pick returns the index of the size that message n has: the same one in every run of the same mix.
func (s Sizes) pick(n uint64) int {
	if len(s) == 1 {
		return 0
	}
	total := 0
	for _, z := range s {
		total += z.Weight
	}
	n = (n + 1) * 0x9e3779b97f4a7c15 // splitmix64: neighbours are unrelated
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	at := int((n ^ n>>31) % uint64(total))
	for i, z := range s {
		if at -= z.Weight; at < 0 {
			return i
		}
	}
	return len(s) - 1
}

// octetUnits are what sizes may be written in, longest suffix first.
var octetUnits = []struct {
	suffix string
	factor int
}{{"MiB", 1 << 20}, {"KiB", 1 << 10}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"M", 1 << 20}, {"K", 1 << 10}, {"k", 1 << 10}, {"B", 1}, {"", 1}}

// ParseOctets reads a size such as 10240, 10KiB or 1MiB, up to 1 GiB.
func ParseOctets(text string) (int, error) {
	for _, u := range octetUnits {
		if digits, ok := strings.CutSuffix(text, u.suffix); ok {
			if n, err := strconv.Atoi(digits); err == nil && n > 0 && n <= 1<<30/u.factor {
				return n * u.factor, nil
			}
			break
		}
	}
	return 0, fmt.Errorf("size %q: want octets such as 10240, 10KiB or 1MiB, up to 1024MiB", text)
}

// FormatOctets prints a size in the largest unit that it is a whole number of.
func FormatOctets(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "KiB"
	}
	return strconv.Itoa(n)
}

// Domains are recipient domains. As a flag they read "a.example,b.example", or a number of made-up ones.
type Domains []string

func (d Domains) String() string {
	if made := MadeUpDomains(len(d)); len(d) > 0 && strings.Join(d, ",") == strings.Join(made, ",") {
		return strconv.Itoa(len(d))
	}
	return strings.Join(d, ",")
}

// Set reads a list or a number; it replaces the domains that were there.
func (d *Domains) Set(text string) error {
	if n, err := strconv.Atoi(text); err == nil {
		if n < 1 || n > 1_000_000 {
			return fmt.Errorf("domains: want 1..1000000, not %d", n)
		}
		*d = MadeUpDomains(n)
		return nil
	}
	var list Domains
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name == "" {
			return fmt.Errorf("domains %q: an empty name", text)
		}
		list = append(list, name)
	}
	*d = list
	return nil
}

// MadeUpDomains returns d0.rcpt.bench.mailrace and so on.
func MadeUpDomains(n int) Domains {
	d := make(Domains, n)
	for i := range d {
		d[i] = "d" + strconv.Itoa(i) + ".rcpt.bench.mailrace"
	}
	return d
}

// Addresses are IP addresses. As a flag they read "127.0.0.2,127.0.0.3".
type Addresses []netip.Addr

func (a Addresses) String() string {
	parts := make([]string, len(a))
	for i, address := range a {
		parts[i] = address.String()
	}
	return strings.Join(parts, ",")
}

// Set reads a list; it replaces the addresses that were there.
func (a *Addresses) Set(text string) error {
	var list Addresses
	for part := range strings.SplitSeq(text, ",") {
		address, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		list = append(list, address)
	}
	*a = list
	return nil
}
