package load

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Size is one size of a mix.
type Size struct {
	Octets int // of content
	Weight int // share of the messages that have it, relative to the others
}

// Sizes is a mix of sizes. As a flag it reads "10KiB" or "4KiB:70,newsletter:25,1MiB:5", or "@file", with a size and its weight on each line.
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

// namedSizes are those of usual kinds of mail.
var namedSizes = map[string]int{"transactional": 4 << 10, "newsletter": 30 << 10, "marketing": 100 << 10, "attachments": 1 << 20}

const (
	mixMost   = 1000      // sizes of a mix
	mixOctets = 256 << 20 // of all of them together, which is what a generator keeps in memory for each loop
)

// Set reads a mix; it replaces the sizes that were there.
func (s *Sizes) Set(text string) error {
	if path, ok := strings.CutPrefix(text, "@"); ok {
		return s.load(path)
	}
	var mix Sizes
	for part := range strings.SplitSeq(text, ",") {
		octets, weight, weighted := strings.Cut(part, ":")
		if !weighted {
			weight = "1"
		}
		if err := mix.add(octets, weight); err != nil {
			return err
		}
	}
	*s = mix
	return nil
}

// add puts one more size into the mix.
func (s *Sizes) add(octets, weight string) (err error) {
	var z Size
	var named bool
	if z.Octets, named = namedSizes[octets]; !named {
		if z.Octets, err = ParseOctets(octets); err != nil {
			return err
		}
	}
	if z.Weight, err = strconv.Atoi(weight); err != nil || z.Weight < 1 || z.Weight > 1e9 {
		return fmt.Errorf("weight %q: want a whole number of 1 to 1000000000", weight)
	}
	*s = append(*s, z)
	total := 0
	for _, z := range *s {
		total += z.Octets
	}
	if len(*s) > mixMost || total > mixOctets && len(*s) > 1 {
		return fmt.Errorf("want a mix of %d sizes at most, and of %s together", mixMost, FormatOctets(mixOctets))
	}
	return nil
}

// load reads a mix from a file: a size and its weight (or how often it was seen) on each line, "#" before comments.
func (s *Sizes) load(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var mix Sizes
	line := 0
	for row := range strings.Lines(string(text)) {
		line++
		row, _, _ = strings.Cut(row, "#")
		fields := append(strings.Fields(row), "1")
		switch {
		case len(fields) == 1:
			continue
		case len(fields) > 3:
			return fmt.Errorf("%s:%d: want a size and its weight", path, line)
		}
		if err := mix.add(fields[0], fields[1]); err != nil {
			return fmt.Errorf("%s:%d: %w", path, line, err)
		}
	}
	if len(mix) == 0 {
		return fmt.Errorf("%s: no size in it", path)
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
	at := int(mixed(n) % uint64(total))
	for i, z := range s {
		if at -= z.Weight; at < 0 {
			return i
		}
	}
	return len(s) - 1
}

// mixed is a number that has nothing to do with those of n's neighbours: splitmix64.
func mixed(n uint64) uint64 {
	n = (n + 1) * 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
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
