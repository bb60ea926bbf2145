package egress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"mailrace/router"
	"mailrace/router/mx"
)

// TestPurses: a session is resumed only under the demand that it was made under, and judged again.
func TestPurses(t *testing.T) {
	ca := (*authority)(nil).issue(t, time.Now().Add(time.Hour))
	leaf := ca.issue(t, time.Now().Add(time.Hour), "mx.example")
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.certificate.Raw}, PrivateKey: leaf.key}}}
	roots := x509.NewCertPool()
	roots.AddCert(ca.certificate)
	outbound := NewTLS(roots)
	target := func(tls router.TLS, d *mx.Demand) *router.Target {
		return &router.Target{Host: "mx.example", Addr: netip.MustParseAddrPort("192.0.2.1:25"), Kind: router.MX, TLS: tls, Demand: d}
	}
	dane := func(c *x509.Certificate) *mx.Demand {
		return &mx.Demand{Kind: mx.DemandDANE, Base: "mx.example", TLSA: []mx.TLSA{record(3, 1, 1, c)}}
	}
	refused := errors.New("refused")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if c := tls.Server(conn, server); c.Handshake() == nil {
				_, _ = c.Write([]byte("220"))
			}
			conn.Close()
		}
	}()
	shake := func(target *router.Target, afresh bool) (resumed bool, err error) {
		near, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		c := tls.Client(near, outbound.config(target, afresh, func(state tls.ConnectionState) error {
			if j := outbound.judge(target, &state); j != nil && mustVerify(target) && j.fault != nil {
				return refused
			}
			return nil
		}))
		if err = c.Handshake(); err == nil {
			_, err = c.Read(make([]byte, 3)) // with the ticket
		}
		return c.ConnectionState().DidResume, err
	}
	opportunistic, sts, wrong := target(0, nil), target(0, &mx.Demand{Kind: mx.DemandSTS}), target(0, dane(ca.certificate))
	elsewhere := target(0, nil)
	elsewhere.Addr = netip.MustParseAddrPort("192.0.2.1:26")
	for i, c := range []struct {
		target  *router.Target
		afresh  bool
		resumed bool
		err     error
	}{
		{opportunistic, false, false, nil},
		{opportunistic, false, true, nil},
		{opportunistic, true, false, nil},
		{elsewhere, false, false, nil},
		{sts, false, false, nil},
		{sts, false, true, nil},
		{target(router.TLSVerified, nil), false, false, nil},
		{target(0, &mx.Demand{Signed: true}), false, false, nil},
		{target(0, dane(leaf.certificate)), false, false, nil},
		{target(0, dane(leaf.certificate)), false, true, nil},
		{wrong, false, false, refused},
		{wrong, false, false, refused},
		{opportunistic, false, true, nil},
	} {
		if resumed, err := shake(c.target, c.afresh); resumed != c.resumed || !errors.Is(err, c.err) {
			t.Errorf("connection %d: resumed %v, want %v; %v", i, resumed, c.resumed, err)
		}
	}
}
