// Package web asks web servers that strangers name, for policies and with reports. Whoever has a domain says where that leads: connections go to
// addresses that mail exchangers may have, too, redirects are not followed, and answers are bounded.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"mailrace/router/mx"
)

const (
	dialMost    = 3               // addresses of a web server that are tried
	dialTimeout = 4 * time.Second // for each
	headerMax   = 16 << 10        // octets of an answer's header
	httpsPort   = 443
)

// DNS is whom to ask; *mx.Resolver is one.
type DNS interface {
	Find(ctx context.Context, q mx.Query) (*mx.Answer, error)
	Allowed(a netip.Addr) bool
}

// Options configure a client.
type Options struct {
	DNS     DNS
	Roots   *x509.CertPool // who issues certificates of the servers; nil = those whom the system trusts
	Port    uint16         // where servers listen that are to be asked at 443; 0 = there
	Timeout time.Duration  // for an answer, with its body
	Dial    Dial           // nil = from any address of this machine
}

// Dial connects to an address of a host, whose name is in normal form. Any goroutine.
type Dial func(ctx context.Context, host string, to netip.AddrPort) (net.Conn, error)

// plainly is Dial from any address.
func plainly(ctx context.Context, _ string, to netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "tcp", to.String())
}

// NewClient returns a client that keeps no connections. Any goroutine.
func NewClient(o Options) *http.Client {
	if o.Dial == nil {
		o.Dial = plainly
	}
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: o.dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerMax,
			TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		},
	}
}

// dial connects to the addresses of a host that passed the filter, one after the other.
func (o *Options) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	if port == httpsPort && o.Port != 0 {
		port = uint64(o.Port)
	}
	name, err := mx.Normal(host)
	if err != nil {
		return nil, fmt.Errorf("%.100q: %w", host, err)
	}
	a, err := o.DNS.Find(ctx, mx.Query{Kind: mx.Addresses, Name: name})
	if err != nil {
		return nil, err
	}
	if a.Class != mx.OK {
		return nil, errors.New(a.Text)
	}
	err = fmt.Errorf("%s has no public address", host)
	tried := 0
	for _, addr := range a.Hosts[0].Addrs {
		if tried == dialMost || !o.DNS.Allowed(addr) {
			continue
		}
		tried++
		var conn net.Conn
		if conn, err = o.within(ctx, name, netip.AddrPortFrom(addr, uint16(port))); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// within is Dial with a time limit.
func (o *Options) within(ctx context.Context, host string, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return o.Dial(ctx, host, to)
}
