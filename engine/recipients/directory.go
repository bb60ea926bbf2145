// Package recipients knows who is there in the domains that a node relays for, so that mail for others is refused at RCPT rather than returned
// to senders who may not have sent it (RFC 5321 §3.6.2 leaves that to us, and backscatter is what comes of not doing it). Who is there stands in a
// file, or is asked of the next host.
package recipients

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/loop"
	"mailrace/proto/smtp"
	"mailrace/router"
	"mailrace/router/mx"
)

// Table is what is known of some domains. Either File or Probe is set.
type Table struct {
	Domains   []string      // lower-case names, or "*.suffix" (every name below it); the most specific table wins
	File      string        // a list, read again when it changes
	Delimiter string        // octets that part a subaddress from a local-part: with "+", user+x is there if user is. For lists
	Probe     bool          // the next host is asked
	Defer     bool          // recipients are deferred while it cannot be asked, rather than accepted
	Known     time.Duration // how long it is believed that a recipient is there, when the next host said so
	Unknown   time.Duration // and that it is not
}

// Options are what a Directory is made of.
type Options struct {
	Tables   []Table
	Routes   *router.Table
	Resolver Resolver
	// Policed is asked in its place for the hosts of MX routes that use TLS, as router.Options.Policed is; nil = domains demand nothing.
	Policed Resolver
	// Source says where connections to an address come from that ask about a domain, as router.Router.SourceOf does; nil = any address of this machine.
	Source func(route *router.Route, domain string, a *mx.Answer, to netip.Addr) (name string, ok bool)
	// Ask asks the host of a target for a recipient, and ends with done, on l: with the reply to RCPT; with one of code 0 if the host said nothing
	// of the recipient; with nil if it could not be asked within the limit.
	Ask func(l *loop.Loop, target router.Target, rcpt string, limit time.Duration, done func(*smtp.Reply))
	Log *slog.Logger // nil = slog.Default()
}

// Resolver is the part of mx.Resolver that is needed.
type Resolver interface {
	Lookup(q mx.Query, done func(*mx.Answer)) bool
}

// refreshEvery is how often files are looked at for changes.
const refreshEvery = 5 * time.Second

// Directory answers for recipients. Check may be called by any loop, all other methods by any goroutine.
type Directory struct {
	exact    map[string]*table
	suffixes map[string]*table // without the "*."
	lists    []*list
	prober   *prober
	log      *slog.Logger
	set      *metrics.Set
	checks   [3]*metrics.Counter // by verdict

	end  chan struct{}
	work sync.WaitGroup
}

// table is a Table with what it needs.
type table struct {
	Table
	list *list // nil where the next host is asked
}

// verdict is what is known of a recipient.
type verdict uint8

const (
	there verdict = iota
	absent
	unsure
)

func (v verdict) String() string { return [...]string{"known", "unknown", "unsure"}[v] }

var (
	replyAbsent = &smtp.Reply{Code: 550, Enhanced: "5.1.1", Text: "No such recipient here"}
	replyUnsure = &smtp.Reply{Code: 450, Enhanced: "4.1.1", Text: "The recipient cannot be verified now, try again later"}
)

// Open reads the lists, and watches them until Close.
func Open(o Options) (*Directory, error) {
	d := &Directory{exact: map[string]*table{}, suffixes: map[string]*table{}, log: o.Log, set: metrics.NewSet(), end: make(chan struct{})}
	if d.log == nil {
		d.log = slog.Default()
	}
	for v := range d.checks {
		d.checks[v] = d.set.NewCounter(fmt.Sprintf("mailrace_ingress_recipient_checks_total{result=%q}", verdict(v)))
	}
	d.prober = newProber(&o, d.set)
	for i := range o.Tables {
		t := &table{Table: o.Tables[i]}
		if t.File != "" {
			l, err := openList(t.File)
			if err != nil {
				return nil, err
			}
			t.list = l
			d.lists = append(d.lists, l)
		}
		for _, name := range t.Domains {
			if suffix, below := strings.CutPrefix(name, "*."); below {
				d.suffixes[suffix] = t
			} else {
				d.exact[name] = t
			}
		}
	}
	d.set.NewGauge("mailrace_recipients_listed", func() (n float64) {
		for _, l := range d.lists {
			n += float64(l.len())
		}
		return n
	})
	if len(d.lists) > 0 {
		d.work.Go(d.watch)
	}
	return d, nil
}

// Metrics is the set of metrics, to be registered by whoever serves them.
func (d *Directory) Metrics() *metrics.Set { return d.set }

// Close ends the watch over files.
func (d *Directory) Close() {
	close(d.end)
	d.work.Wait()
}

func (d *Directory) watch() {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.Refresh()
		case <-d.end:
			return
		}
	}
}

// Refresh reads the lists again that have changed. One that cannot be read stays as it was.
func (d *Directory) Refresh() {
	for _, l := range d.lists {
		switch changed, err := l.refresh(); {
		case err != nil:
			d.log.Error("a list of recipients cannot be read; the one in use stays", "error", err)
		case changed:
			d.log.Info("read a list of recipients", "file", l.path, "entries", l.len())
		}
	}
}

// find returns the table of a domain in normal form, or nil.
func (d *Directory) find(domain string) *table {
	if t := d.exact[domain]; t != nil || len(d.suffixes) == 0 {
		return t
	}
	for {
		_, above, found := strings.Cut(domain, ".")
		if !found {
			return nil
		}
		if t := d.suffixes[above]; t != nil {
			return t
		}
		domain = above
	}
}

// Check says how a recipient is to be refused, or nil if it is not. Where that is not known yet, known is false, and tell is called on l, which is the
// caller's loop, after Check has returned. rcpt holds until Check returns.
func (d *Directory) Check(l *loop.Loop, rcpt *smtp.Path, tell func(*smtp.Reply)) (refusal *smtp.Reply, known bool) {
	domain, err := mx.Normal(string(rcpt.Domain))
	if err != nil {
		return nil, true
	}
	t := d.find(domain)
	if t == nil {
		return nil, true
	}
	var room [maxKey]byte
	local := appendLocal(room[:0], rcpt.Local)
	if t.list != nil {
		v := there
		if !isPostmaster(local) && !t.list.has(local, domain, t.Delimiter) {
			v = absent
		}
		return d.refusal(t, v), true
	}
	v, known := d.prober.check(l, t, local, domain, rcpt, func(v verdict) { tell(d.refusal(t, v)) })
	if !known {
		return nil, false
	}
	return d.refusal(t, v), true
}

// refusal is the reply that a verdict comes to.
func (d *Directory) refusal(t *table, v verdict) *smtp.Reply {
	d.checks[v].Inc()
	switch {
	case v == absent:
		return replyAbsent
	case v == unsure && t.Defer:
		return replyUnsure
	}
	return nil
}

// maxKey is the most octets of a local-part and a domain, with the @ between.
const maxKey = 64 + 1 + 255

// appendLocal appends a local-part in the form in which they are compared: without quotes, and in lower case, as all mail systems do that people
// type addresses for.
func appendLocal(dst, local []byte) []byte {
	quoted := len(local) > 1 && local[0] == '"'
	if quoted {
		local = local[1 : len(local)-1]
	}
	for i := 0; i < len(local); i++ {
		c := local[i]
		if c == '\\' && quoted && i+1 < len(local) {
			i++
			c = local[i]
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// isPostmaster says whether a local-part is the one that every domain must have. RFC 5321 §4.5.1
func isPostmaster(local []byte) bool { return bytes.Equal(local, []byte("postmaster")) }
