package policy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"mailrace/engine/web"
	"mailrace/proto/mtasts"
)

// fetcher fetches policies. RFC 8461 §3.3
type fetcher struct {
	opts   *Options
	client *http.Client
}

const label = "mta-sts." // in front of a domain, its web server

func newFetcher(o *Options) *fetcher {
	of := web.Options{DNS: o.DNS, Roots: o.Roots, Port: o.Port, Timeout: o.Timeout}
	if o.Dial != nil {
		of.Dial = func(ctx context.Context, host string, to netip.AddrPort) (net.Conn, error) {
			return o.Dial(ctx, strings.TrimPrefix(host, label), to)
		}
	}
	return &fetcher{o, web.NewClient(of)}
}

// fetch gets the policy of a domain.
func (w *fetcher) fetch(ctx context.Context, domain string) (*mtasts.Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	url := "https://" + label + domain + "/.well-known/mta-sts.txt"
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
		return nil, fmt.Errorf("%s: %w: %w", url, errPolicy, err)
	}
	return p, nil
}
