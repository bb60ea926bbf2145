package policy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"mailrace/proto/mtasts"
	"mailrace/router/mx"
)

const (
	dialMost    = 3               // addresses of a web server that are tried
	dialTimeout = 4 * time.Second // for each
	headerMax   = 16 << 10        // octets of an answer's header
)

// web fetches policies. Whoever has a domain says where that leads: connections go to addresses that mail exchangers may have, too, redirects are
// not followed, and answers are bounded. RFC 8461 §3.3
type web struct {
	opts   *Options
	client *http.Client
}

func newWeb(o *Options) *web {
	w := &web{opts: o}
	w.client = &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: w.dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: headerMax,
			TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
		},
	}
	return w
}

// fetch gets the policy of a domain.
func (w *web) fetch(ctx context.Context, domain string) (*mtasts.Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	url := "https://mta-sts." + domain + "/.well-known/mta-sts.txt"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d", url, response.StatusCode)
	}
	if kind, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), "text/plain") {
		return nil, fmt.Errorf("%s: content of type %.100q, not text/plain", url, response.Header.Get("Content-Type"))
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, mtasts.PolicyMax+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	p, err := mtasts.ParsePolicy(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return p, nil
}

// dial connects to the addresses of a host that passed the filter, one after the other.
func (w *web) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	a, err := w.opts.DNS.Find(ctx, mx.Query{Kind: mx.Addresses, Name: host})
	if err != nil {
		return nil, err
	}
	if a.Class != mx.OK {
		return nil, errors.New(a.Text)
	}
	err = fmt.Errorf("%s has no public address", host)
	tried := 0
	for _, addr := range a.Hosts[0].Addrs {
		if tried == dialMost || !w.opts.DNS.Allowed(addr) {
			continue
		}
		tried++
		dialer := net.Dialer{Timeout: dialTimeout}
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, network, netip.AddrPortFrom(addr, w.opts.Port).String()); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
