package admin

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// proxyTimeout is how long a proxy may take for its header.
const proxyTimeout = 5 * time.Second

// guard refuses what a web page in the browser of somebody near could send: a page whose name resolves to the address of this service (DNS rebinding)
// would be of the same origin. It could read the queue, and hand in mail where networks may, but its Host header betrays it. What monitors ask for
// says little, and they call it by many names, unless it is on loopback.
func (s *Server) guard(next http.Handler) http.Handler {
	local := false
	if a, ok := s.listener.Addr().(*net.TCPAddr); ok {
		local = a.IP.IsLoopback()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.known(r.Host) && (local || !slices.Contains(monitored, r.URL.Path)) {
			http.Error(w, "this service is called by an IP address, localhost, hostname, or what [admin] names lists", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// monitored is what monitors ask for.
var monitored = []string{"/metrics", "/healthz", "/readyz"}

// known says whether a Host header names this service, which a browser cannot be made to do for a page of strangers. Browsers always send one.
func (s *Server) known(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	return slices.Contains(s.names, strings.ToLower(strings.TrimSuffix(host, ".")))
}

// forwarded says whether a proxy passed the request on, for somebody who may be anywhere.
func forwarded(r *http.Request) bool {
	return slices.ContainsFunc([]string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"}, func(name string) bool { return r.Header.Get(name) != "" })
}

// behindProxies is a listener that takes the word of some proxies about who connects, from a PROXY header. A connection of theirs without one is their
// own.
func behindProxies(l net.Listener, from []netip.Prefix) net.Listener {
	if len(from) == 0 {
		return l
	}
	return &proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: proxyTimeout,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			at, err := netip.ParseAddrPort(o.Upstream.String())
			client := at.Addr().Unmap().WithZone("")
			if err == nil && slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(client) }) {
				return proxyproto.USE, nil
			}
			return proxyproto.SKIP, nil
		},
	}
}
