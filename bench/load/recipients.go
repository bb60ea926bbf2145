package load

import "mailrace/bench/ledger"

// maxPaths bounds the forward-paths that are made up in advance, so that sending needs no allocation.
const maxPaths = 1 << 20

// recipients are the forward-paths of all messages, made in advance. The domains take turns: recipient j of message n is r<j> at domain
// n*perMessage+j, modulo the number of domains. Where that needs more than maxPaths, the turn begins anew early.
type recipients struct {
	paths      []string
	perMessage int
	turns      uint64
}

func newRecipients(domains []string, perMessage int) recipients {
	turns := len(domains) / gcd(len(domains), perMessage) // messages until the domains repeat
	turns = min(turns, max(1, maxPaths/perMessage))
	r := recipients{perMessage: perMessage, turns: uint64(turns)}
	for i := range turns * perMessage {
		local := ledger.AppendLocalPart(nil, i%perMessage)
		r.paths = append(r.paths, string(local)+"@"+domains[i%len(domains)])
	}
	return r
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
