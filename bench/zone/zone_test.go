package zone

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
)

// TestZone asks by the resolver of the standard library, over UDP.
func TestZone(t *testing.T) {
	s, err := Serve(func(name string) (Records, bool) {
		switch name {
		case "a.example":
			return Records{MX: []MX{{"mx2.a.example", 20}, {"mx1.a.example", 10}}}, true
		case "mx1.a.example":
			return Records{Addrs: []netip.Addr{netip.MustParseAddr("127.1.2.3"), netip.MustParseAddr("127.1.2.4")}}, true
		}
		return Records{}, false
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", s.Addr().String())
	}}
	mx, err := r.LookupMX(t.Context(), "A.example.")
	if err != nil || len(mx) != 2 || *mx[0] != (net.MX{Host: "mx1.a.example.", Pref: 10}) || *mx[1] != (net.MX{Host: "mx2.a.example.", Pref: 20}) {
		t.Errorf("%v, %v", mx, err)
	}
	addrs, err := r.LookupNetIP(t.Context(), "ip", "mx1.a.example.")
	if err != nil || len(addrs) != 2 {
		t.Errorf("%v, %v", addrs, err)
	}
	for _, name := range []string{"mx1.a.example.", "b.example."} { // nothing of the kind, and no such name
		var failed *net.DNSError
		if txt, err := r.LookupTXT(t.Context(), name); !errors.As(err, &failed) || !failed.IsNotFound {
			t.Errorf("%s: %v, %v", name, txt, err)
		}
	}
	if s.Queries() < 4 {
		t.Errorf("%d queries", s.Queries())
	}
}

// TestNoise: what is no question gets no answer, and does no harm.
func TestNoise(t *testing.T) {
	s := &Server{find: func(string) (Records, bool) { return Records{}, true }}
	for _, p := range []string{"", "short", "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00", "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fabc"} {
		if reply, err := s.answer([]byte(p), nil); err == nil {
			t.Errorf("%q was answered with %q", p, reply)
		}
	}
}
