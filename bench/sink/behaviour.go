package sink

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Verb is a point of the dialogue where the sink can wait, refuse or hang up.
type Verb uint8

const (
	Connect Verb = iota // before the banner
	Hello               // HELO and EHLO
	Mail
	Rcpt
	Data
	Dot // the end of data
	verbs
)

var verbNames = [verbs]string{"connect", "hello", "mail", "rcpt", "data", "dot"}

func (v Verb) String() string { return verbNames[v] }

// Delays is how long each reply is held back. As a flag it reads "dot=50ms,connect=1s"; "50ms" alone delays the reply to the dot.
type Delays [verbs]time.Duration

// Shares is what share, in 0..1, of each verb something happens to. As a flag it reads "rcpt=0.1,dot=0.02"; "0.1" alone is for the dot.
type Shares [verbs]float64

func (d Delays) String() string { return format(d[:], time.Duration.String) }

// Set reads delays; it replaces those that were there.
func (d *Delays) Set(text string) error {
	*d = Delays{}
	return parse(text, d[:], func(s string) (time.Duration, error) {
		v, err := time.ParseDuration(s)
		if err != nil || v < 0 {
			return 0, fmt.Errorf("%q: want a time such as 50ms", s)
		}
		return v, nil
	})
}

func (s Shares) String() string {
	return format(s[:], func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) })
}

// Set reads shares; it replaces those that were there.
func (s *Shares) Set(text string) error {
	*s = Shares{}
	return parse(text, s[:], func(s string) (float64, error) {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v >= 0 && v <= 1) {
			return 0, fmt.Errorf("%q: want a share of 0 to 1", s)
		}
		return v, nil
	})
}

func format[T comparable](values []T, text func(T) string) string {
	var zero T
	var parts []string
	for v, value := range values {
		if value != zero {
			parts = append(parts, Verb(v).String()+"="+text(value))
		}
	}
	return strings.Join(parts, ",")
}

func parse[T any](text string, values []T, read func(string) (T, error)) error {
	if text == "" {
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, value, named := strings.Cut(part, "=")
		if !named {
			name, value = Dot.String(), part
		}
		v := Verb(0)
		for v < verbs && verbNames[v] != name {
			v++
		}
		if v == verbs {
			return fmt.Errorf("%q: want one of %s", name, strings.Join(verbNames[:], ", "))
		}
		var err error
		if values[v], err = read(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// verdict is what happens at a verb.
type verdict uint8

const (
	accept verdict = iota
	tempfail
	permfail
	drop
)

// judge decides. What happens to the n-th command of a verb follows from the seed alone, whichever connection it comes over.
type judge struct {
	seed             uint64
	temp, perm, drop Shares
	seen             [verbs]atomic.Uint64
	idle             [verbs]bool // nothing ever happens there
}

func newJudge(seed uint64, temp, perm, drop Shares) *judge {
	j := &judge{seed: seed, temp: temp, perm: perm, drop: drop}
	for v := range verbs {
		j.idle[v] = j.temp[v] == 0 && j.perm[v] == 0 && j.drop[v] == 0
	}
	return j
}

func (j *judge) verdict(v Verb) verdict {
	if j.idle[v] {
		return accept
	}
	return j.nth(v, j.seen[v].Add(1))
}

func (j *judge) nth(v Verb, n uint64) verdict {
	x := (j.seed ^ uint64(v+1)<<56) + n*0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	u := float64((x^x>>31)>>11) / (1 << 53)
	switch {
	case u < j.drop[v]:
		return drop
	case u < j.drop[v]+j.temp[v]:
		return tempfail
	case u < j.drop[v]+j.temp[v]+j.perm[v]:
		return permfail
	}
	return accept
}
