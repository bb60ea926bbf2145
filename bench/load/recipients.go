package load

import (
	"math"
	"slices"

	"mailrace/bench/ledger"
)

// maxPaths bounds the forward-paths that are made up in advance, so that sending needs no allocation.
const maxPaths = 1 << 20

// zipfMost is the highest power of popularity: with it the first of the domains has nearly all.
const zipfMost = 10

// recipients are the forward-paths of all messages, made in advance. The domains take turns: recipient j of message n is r<j> at domain
// n*perMessage+j, modulo the number of domains. Where that needs more than maxPaths, the turn begins anew early. By popularity, a turn is as many
// messages as maxPaths allow, up to popularTurn recipients for each domain; each has the domain that its number draws, the same in every run.
type recipients struct {
	paths      []string
	perMessage int
	turns      uint64
}

func newRecipients(domains []string, perMessage int, zipf float64) recipients {
	turns := len(domains) / gcd(len(domains), perMessage) // messages until the domains repeat
	draw := func(i int) int { return i % len(domains) }
	if zipf > 0 {
		turns, draw = (popularTurn*len(domains)+perMessage-1)/perMessage, popularity(len(domains), zipf)
	}
	turns = min(turns, max(1, maxPaths/perMessage))
	r := recipients{perMessage: perMessage, turns: uint64(turns), paths: make([]string, 0, turns*perMessage)}
	var made []string // by domain and recipient: the popular ones come often
	if zipf > 0 && len(domains) <= maxPaths/perMessage {
		made = make([]string, len(domains)*perMessage)
	}
	for i := range turns * perMessage {
		j, domain := i%perMessage, draw(i)
		if made != nil && made[domain*perMessage+j] != "" {
			r.paths = append(r.paths, made[domain*perMessage+j])
			continue
		}
		path := string(ledger.AppendLocalPart(nil, j)) + "@" + domains[domain]
		if made != nil {
			made[domain*perMessage+j] = path
		}
		r.paths = append(r.paths, path)
	}
	return r
}

// popularTurn is how many recipients there are for each domain, in the mean, before the draws repeat.
const popularTurn = 64

// popularity draws domain numbers, 0 most often: number i is drawn with a probability that goes with 1/(i+1) to the power s.
func popularity(domains int, s float64) func(i int) int {
	sums := make([]float64, domains)
	sum := 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	return func(i int) int {
		u := float64(mixed(uint64(i))>>11) / (1 << 53) * sum
		at, _ := slices.BinarySearch(sums, u)
		return min(at, domains-1)
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// of returns the forward-paths of message n.
func (r *recipients) of(n uint64) []string {
	at := int(n%r.turns) * r.perMessage
	return r.paths[at : at+r.perMessage]
}
