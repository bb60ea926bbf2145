package ingress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"
)

// Bounds of a PROXY header, in octets.
const (
	proxyLine  = 107     // version 1, with its CRLF
	proxyFixed = 16      // version 2, before the addresses
	proxyBlock = 2 << 10 // version 2, addresses and what else the proxy tells
)

var (
	errNoProxy   = errors.New("no PROXY header")
	errLongProxy = errors.New("PROXY header is too long")
)

// parseProxy reads the PROXY header, of version 1 or 2, that p begins with. n is its length, 0 if p is not the whole of it yet. client is not
// valid if the proxy speaks for itself, or does not know for whom.
func parseProxy(p []byte) (n int, client netip.AddrPort, err error) {
	n, err = proxyLength(p)
	if n == 0 || err != nil {
		return 0, client, err
	}
	r := bufio.NewReaderSize(bytes.NewReader(p[:n]), n)
	h, err := proxyproto.Read(r)
	switch {
	case err != nil:
		return 0, client, fmt.Errorf("PROXY header: %w", err)
	case r.Buffered() > 0:
		return 0, client, errLongProxy
	case h.Command.IsLocal() || h.TransportProtocol.IsUnspec():
		return n, client, nil
	}
	source, _, ok := h.TCPAddrs()
	if !ok {
		return 0, client, errors.New("PROXY header: the client did not come by TCP")
	}
	a := source.AddrPort()
	return n, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// proxyLength is the length of the header that p begins with, 0 if that is not known yet. It gives up as soon as p cannot become a header.
func proxyLength(p []byte) (int, error) {
	v1, v2 := proxyproto.SIGV1, proxyproto.SIGV2
	switch {
	case bytes.HasPrefix(p, v2):
		if len(p) < proxyFixed {
			return 0, nil
		}
		length := int(binary.BigEndian.Uint16(p[proxyFixed-2:]))
		if length > proxyBlock {
			return 0, errLongProxy
		}
		if len(p) < proxyFixed+length {
			return 0, nil
		}
		return proxyFixed + length, nil
	case bytes.HasPrefix(p, v1):
		head := p[:min(len(p), proxyLine)]
		if end := bytes.IndexByte(head, '\n'); end >= 0 {
			return end + 1, nil
		}
		if len(head) == proxyLine {
			return 0, errLongProxy
		}
		return 0, nil
	case bytes.HasPrefix(v1, p), bytes.HasPrefix(v2, p):
		return 0, nil
	}
	return 0, errNoProxy
}
