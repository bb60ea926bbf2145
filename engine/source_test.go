package engine

import (
	bigend "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pires/go-proxyproto"

	"mailrace/engine/config"
)

// visitors notes who came to a far host, and by what name.
type visitors struct {
	mu   sync.Mutex
	seen map[string]int // "address name" of each session
}

// serve takes all mail.
func (v *visitors) serve(p *peer) {
	p.receive(manners{answer: func(p *peer, line string) string {
		if name, is := strings.CutPrefix(line, "EHLO "); is {
			host, _, _ := net.SplitHostPort(p.RemoteAddr().String())
			v.mu.Lock()
			v.seen[host+" "+name]++
			v.mu.Unlock()
		}
		return ""
	}})
}

func (v *visitors) was(who string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.seen[who] > 0
}

func newVisitors() *visitors { return &visitors{seen: map[string]int{}} }

// pooling are settings with one pool of all sources, for a route.
func pooling(t *testing.T, route config.Route, sources ...config.Source) *config.Config {
	t.Helper()
	route.Pool = "all"
	c := settings(t, route)
	c.Sources = sources
	p := config.Pool{Name: "all"}
	for _, s := range sources {
		p.Sources = append(p.Sources, config.PoolSource{Name: s.Name, Weight: 1})
	}
	c.Pools = []config.Pool{p}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSourceAddresses: connections come from the addresses of the sources, with their names in EHLO, and records tell which; messages take turns.
func TestSourceAddresses(t *testing.T) {
	t.Parallel()
	who := newVisitors()
	f := listen(t, who.serve)
	c := pooling(t, f.route("far.example"),
		config.Source{Name: "one", IPv4: netip.MustParseAddr("127.0.0.21"), Hello: "one.test.example"}, config.Source{Name: "two", IPv4: netip.MustParseAddr("127.0.0.22")})
	r := start(t, c)
	from := map[string]int{}
	for i := range 6 {
		rcpt := fmt.Sprintf("u%d@far.example", i)
		r.send("s@sender.example", hello, rcpt)
		if m := f.next(); !strings.Contains(m.content, "by mta.test.example") {
			t.Errorf("%q", m.content)
		}
		e := r.record("delivery", rcpt, 1)
		if want := map[string]string{"one": "127.0.0.21", "two": "127.0.0.22"}[e.From]; e.Source != want || e.Pool != "all" {
			t.Errorf("%+v", e)
		}
		from[e.From]++
	}
	if from["one"] != 3 || from["two"] != 3 || !who.was("127.0.0.21 one.test.example") || !who.was("127.0.0.22 mta.test.example") {
		t.Errorf("from %v, seen %v", from, who.seen)
	}
}

// bothFamilies listens at one port of 127.0.0.1 and ::1.
func bothFamilies(t *testing.T) (four, six net.Listener) {
	t.Helper()
	for {
		six, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skip("no IPv6 on loopback: ", err)
		}
		_, port, _ := net.SplitHostPort(six.Addr().String())
		if four, err = net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			return four, six
		}
		six.Close() // somebody has that port: another one
	}
}

// TestSourceIPv6: a source with an address of IPv6 only sends from it, to addresses of IPv6 only.
func TestSourceIPv6(t *testing.T) {
	t.Parallel()
	four, six := bothFamilies(t)
	who := newVisitors()
	f := serveAt(t, six, who.serve)
	_, port, _ := net.SplitHostPort(six.Addr().String())
	refusing := serveAt(t, four, func(p *peer) { p.say("554 5.7.1 not by IPv4") })
	c := pooling(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}}, config.Source{Name: "six", IPv6: netip.IPv6Loopback()})
	c.Egress.Allow = append(loopback, netip.MustParsePrefix("::1/128"))
	fmt.Sscan(port, &c.Egress.Port)
	c.DNS.Servers = []netip.AddrPort{nameServer(t, "far.example. 300 IN MX 10 mx.far.example.", "mx.far.example. 300 IN A 127.0.0.1", "mx.far.example. 300 IN AAAA ::1")}
	r := start(t, c)
	r.send("s@sender.example", hello, "u@far.example")
	f.next()
	if e := r.record("delivery", "u@far.example", 1); e.From != "six" || e.Source != "::1" || !who.was("::1 mta.test.example") || refusing.connections() > 0 {
		t.Errorf("%+v, seen %v", e, who.seen)
	}
}

// TestFamilyFallback: where the family that goes first does not answer, the other one does.
func TestFamilyFallback(t *testing.T) {
	t.Parallel()
	four, six := bothFamilies(t)
	six.Close() // nobody listens
	f := serveAt(t, four, polite)
	_, port, _ := net.SplitHostPort(f.l.Addr().String())
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	c.Egress.Allow, c.Egress.Prefer = append(loopback, netip.MustParsePrefix("::1/128")), config.PreferIPv6
	fmt.Sscan(port, &c.Egress.Port)
	c.DNS.Servers = []netip.AddrPort{nameServer(t, "far.example. 300 IN MX 10 mx.far.example.", "mx.far.example. 300 IN A 127.0.0.1", "mx.far.example. 300 IN AAAA ::1")}
	r := start(t, c)
	r.send("s@sender.example", hello, "u@far.example")
	f.next()
	if e := r.record("delivery", "u@far.example", 1); e.Attempt != 1 || e.Peer != "127.0.0.1" || e.Source != "127.0.0.1" {
		t.Errorf("%+v", e)
	}
}

// TestSourceUnusable: a source whose address is not of this machine is taken out, with a record, and its mail goes from the other, with its first
// attempt; the check of the configuration warns of it.
func TestSourceUnusable(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	strange := netip.MustParseAddr("192.0.2.99")
	c := pooling(t, f.route("far.example"), config.Source{Name: "gone", IPv4: strange}, config.Source{Name: "here", IPv4: netip.MustParseAddr("127.0.0.23")})
	if notes := strings.Join(c.Notes(), "\n"); !strings.Contains(notes, "source gone: 192.0.2.99 is no address of this machine") || strings.Contains(notes, "127.0.0.23") {
		t.Errorf("notes %q", notes)
	}
	r := start(t, c)
	for i := range 6 {
		r.send("s@sender.example", hello, fmt.Sprintf("u%d@far.example", i))
	}
	for i := range 6 {
		f.next()
		if e := r.record("delivery", fmt.Sprintf("u%d@far.example", i), 1); e.From != "here" || e.Attempt != 1 {
			t.Errorf("%+v", e)
		}
	}
	out := r.records("source-out")
	if len(out) != 1 || out[0].From != "gone" || !strings.Contains(out[0].Text, "cannot assign requested address") || out[0].Until == "" || out[0].ID != "" {
		t.Errorf("%+v", out)
	}
}

// socks is a SOCKS5 server for CONNECT with user and password, which are "u" and "p". RFC 1928, RFC 1929
func socks(t *testing.T) (address string) {
	t.Helper()
	f := listen(t, func(p *peer) {
		err := func() error {
			b := make([]byte, 2)
			take := func(n int) []byte {
				got := make([]byte, n)
				if _, err := io.ReadFull(p.r, got); err != nil {
					return make([]byte, n)
				}
				return got
			}
			copy(b, take(2))
			take(int(b[1])) // methods
			p.octets(5, 2)
			take(1)
			user := take(int(take(1)[0]))
			password := take(int(take(1)[0]))
			if string(user) != "u" || string(password) != "p" {
				p.octets(1, 1)
				return errors.New("not the password")
			}
			p.octets(1, 0)
			head := take(4)
			if head[1] != 1 || head[3] != 1 {
				return fmt.Errorf("request % x", head)
			}
			at, _ := netip.AddrFromSlice(take(4))
			far, err := net.Dial("tcp", netip.AddrPortFrom(at, bigend.BigEndian.Uint16(take(2))).String())
			if err != nil {
				p.octets(5, 5, 0, 1, 0, 0, 0, 0, 0, 0)
				return err
			}
			defer far.Close()
			p.octets(5, 0, 0, 1, 127, 0, 0, 1, 0, 1)
			go func() {
				_, _ = io.Copy(p.raw, far)
				p.raw.Close()
			}()
			_, err = io.Copy(far, p.r)
			return err
		}()
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log("socks:", err)
		}
	})
	return f.l.Addr().String()
}

// octets writes some.
func (p *peer) octets(b ...byte) { _, _ = p.raw.Write(b) }

// TestSourceSOCKS5: connections go through a SOCKS5 proxy, which asks for a password; one that is wrong takes the source out, and a host that is down
// does not.
func TestSourceSOCKS5(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	down := listen(t, polite)
	down.close()
	proxy := socks(t)
	secret := func(text string) config.Secret {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.Secret("file:" + file)
	}
	c := pooling(t, f.route("far.example"),
		config.Source{Name: "good", SOCKS5: proxy, User: "u", Password: secret("p"), IPv4: netip.MustParseAddr("198.51.100.1"), Hello: "proxied.test.example"},
		config.Source{Name: "bad", SOCKS5: proxy, User: "u", Password: secret("q")})
	gone := down.route("down.example")
	gone.Pool = "all"
	c.Routes = append(c.Routes, gone)
	r := start(t, c)
	for i := range 4 {
		rcpt := fmt.Sprintf("u%d@far.example", i)
		r.send("s@sender.example", hello, rcpt)
		f.next()
		if e := r.record("delivery", rcpt, 1); e.From != "good" || e.Source != "198.51.100.1" || e.Attempt != 1 {
			t.Errorf("%+v", e)
		}
	}
	r.send("s@sender.example", hello, "u@down.example")
	if e := r.record("deferral", "u@down.example", 1); e.From != "good" || !strings.Contains(e.Text, "connection refused") || e.Enhanced != "4.4.1" {
		t.Errorf("%+v", e)
	}
	if out := r.records("source-out"); len(out) != 1 || out[0].From != "bad" || !strings.Contains(out[0].Text, "authentication failed") {
		t.Errorf("%+v", out)
	}
}

// TestSourceProxy: a proxy is told by a PROXY header where to connect, and from which address.
func TestSourceProxy(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	headers := make(chan string, 10)
	hop := serveAt(t, &proxyproto.Listener{Listener: l, ReadHeaderTimeout: patience}, func(p *peer) {
		headers <- p.raw.RemoteAddr().String() + " to " + p.raw.LocalAddr().String()
		p.receive(manners{})
	})
	c := pooling(t, config.Route{Domains: []string{"far.example"}, To: config.Target{Kind: config.ToHost, Host: "198.51.100.25", Port: 2525}},
		config.Source{Name: "hop", IPv4: netip.MustParseAddr("203.0.113.7"), Proxy: l.Addr().String()})
	r := start(t, c)
	r.send("s@sender.example", hello, "u@far.example")
	hop.next()
	if got := receive(t, headers); got != "203.0.113.7:0 to 198.51.100.25:2525" {
		t.Errorf("header %q", got)
	}
	if e := r.record("delivery", "u@far.example", 1); e.From != "hop" || e.Source != "203.0.113.7" || e.Peer != "198.51.100.25" {
		t.Errorf("%+v", e)
	}
}

// TestRetriesKeepTheirSource: what is put off comes back from the same source, also after a restart: who greylists wants to see the same address again.
func TestRetriesKeepTheirSource(t *testing.T) {
	t.Parallel()
	const n = 8
	var open atomic.Bool
	f := listen(t, answering(func(_ *peer, line string) string {
		if strings.HasPrefix(line, "RCPT TO:") && !open.Load() {
			return "451 4.7.1 greylisted, come back"
		}
		return ""
	}))
	c := pooling(t, f.route("far.example"), config.Source{Name: "one", IPv4: netip.MustParseAddr("127.0.0.23")}, config.Source{Name: "two", IPv4: netip.MustParseAddr("127.0.0.24")},
		config.Source{Name: "three", IPv4: netip.MustParseAddr("127.0.0.25")})
	r := start(t, c)
	for i := range n {
		r.send("s@sender.example", hello, fmt.Sprintf("u%d@far.example", i))
	}
	for i := range n {
		r.record("deferral", fmt.Sprintf("u%d@far.example", i), 3)
	}
	r.stop()
	open.Store(true)
	r = start(t, c)
	for i := range n {
		rcpt := fmt.Sprintf("u%d@far.example", i)
		e := r.record("delivery", rcpt, 1)
		for _, before := range r.records("deferral") {
			if before.Recipient == rcpt && before.From != e.From {
				t.Errorf("%s from %q after %q", rcpt, e.From, before.From)
			}
		}
	}
}
