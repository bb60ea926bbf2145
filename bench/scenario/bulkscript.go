package scenario

import (
	"fmt"
	"net/netip"
	"strings"
)

// bulkKind is a kind of destination that bulk mail meets.
type bulkKind struct {
	name        string
	share       float64 // of the sites
	connections int     // that a site takes, and that the node is told
	behaviour   string  // lines of the script
}

// bulkKinds are the destinations of a mix: what senders of bulk mail see all day, made short enough to be seen in a bench.
var bulkKinds = []bulkKind{
	{"good", 0.5, 20, ""},
	{"near", 0.1875, 5, `delay = "rcpt=1ms,dot=5ms"`},
	{"slow", 0.0625, 2, `delay = "connect=50ms,rcpt=5ms,dot=20ms"`},
	{"grey", 0.0625, 3, `greylist = "1s"`},
	{"busy", 0.0625, 3, `tempfail = "mail=0.05,rcpt=0.05,dot=0.02"`},
	{"rated", 0.03125, 2, `rate = "20/s"`},
	{"broken", 0.03125, 3, `drop = "connect=0.05,mail=0.005,dot=0.002"`},
	{"gone", 0.0625, 5, `permfail = "rcpt=0.3,dot=0.05"`},
}

const (
	bulkNet      = "127.1.0.0" // where sites are from
	bulkMessages = 100         // that a site takes over one connection, and that the node is told
	bulkHome     = "127.0.1.1" // the site of senders, where notifications go
	bulkSender   = "sender@returns.bench.mailrace"
	bulkSites    = 256
)

// bulkPlan is who is where.
type bulkPlan struct {
	script    string // for the sink
	sites     string // all of them, as the sink's --sites
	providers []providerOf
}

// planBulk gives each kind its share of the sites, of which there are a power of two. Without mixed, they all do well.
func planBulk(sites int, mixed bool) bulkPlan {
	var p bulkPlan
	var script strings.Builder
	fmt.Fprintf(&script, "# Written by mailrace bench bulk.\n\n[[destination]]\nname = \"returns\"\ndomains = [\"returns.bench.mailrace\"]\nsites = [%q]\n", bulkHome)
	at := netip.MustParseAddr(bulkNet)
	left := sites
	for i, k := range bulkKinds {
		count := int(k.share*float64(sites) + 0.5)
		if i == len(bulkKinds)-1 {
			count = left
		}
		left -= count
		var list []string
		for n := range count {
			list = append(list, fmt.Sprintf("%q", at))
			p.providers = append(p.providers, providerOf{fmt.Sprintf("%s-%d", k.name, n+1), at.String(), k.connections})
			at = at.Next()
		}
		if count == 0 {
			continue
		}
		fmt.Fprintf(&script, "\n[[destination]]\nname = %q\nsites = [%s]\nconnections = %d\nmessages = %d\n", k.name, strings.Join(list, ", "), k.connections,
			bulkMessages)
		if mixed && k.behaviour != "" {
			script.WriteString(k.behaviour + "\n")
		}
	}
	p.script, p.sites = script.String(), fmt.Sprintf("%s/%d", bulkNet, 32-log2(sites))
	return p
}

// log2 is that of a power of two.
func log2(n int) (bits int) {
	for ; n > 1; n >>= 1 {
		bits++
	}
	return bits
}
