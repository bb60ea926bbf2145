package scenario

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"mailrace/bench/certificate"
	"mailrace/bench/load"
	"mailrace/bench/sink"
	"mailrace/bench/zone"
)

// farSide is what the MTA delivers to in Relay: a sink; where TLS is measured, another one that offers it; and where the way is to be found by MX, the
// name server that shows it.
type farSide struct {
	clear, secure           *sinkChild // secure is nil without TLS
	clearGauge, secureGauge string     // files in which they count, or ""
	names                   *zone.Server
	authority               string // file of who issued the certificate of the secure one
	key                     []byte // TLSA record of that certificate
}

// Where the secure sink listens, in the same /8 as the other one; and for which domain mail goes there, or below which with MX.
const (
	secureHost   = "127.0.0.2"
	secureDomain = "secure.bench.mailrace"
	clearDomains = "rcpt.bench.mailrace" // load.MadeUpDomains are below it
)

// sinkTries is how often a port is looked for that is free at both addresses.
const sinkTries = 5

// startFar starts what the options ask for. What was started is there with an error, too.
func startFar(ctx context.Context, o *Options, dir string) (*farSide, error) {
	f := &farSide{}
	if o.Backlog >= 0 {
		f.clearGauge, f.secureGauge = filepath.Join(dir, "arrived"), filepath.Join(dir, "arrived-secure")
	}
	var files sink.Options
	if o.TLS {
		var err error
		if files, err = f.certify(dir); err != nil {
			return f, err
		}
	}
	for try := 1; ; try++ {
		err := f.startSinks(ctx, o, files)
		if err == nil {
			break
		}
		if try == sinkTries || o.SinkAddress != defaultSinkAddress {
			return f, err
		}
		f.stop()
	}
	if o.MX {
		at, err := netip.ParseAddrPort(f.clear.address)
		if err != nil || !at.Addr().Is4() || !at.Addr().IsLoopback() {
			return f, fmt.Errorf("with MX the sink must be at an address in 127.0.0.0/8, not %s", f.clear.address)
		}
		if f.names, err = zone.Serve(func(name string) (zone.Records, bool) { return f.records(at, name) }); err != nil {
			return f, err
		}
	}
	return f, nil
}

// certify makes the certificate of the secure sink.
func (f *farSide) certify(dir string) (o sink.Options, err error) {
	pair, err := certificate.New(secureHost, mxHost(1, secureDomain), mxHost(2, secureDomain))
	if err != nil {
		return o, err
	}
	if o.Chain, o.Key, err = pair.Write(dir); err != nil {
		return o, err
	}
	made, err := pair.TLS()
	if err != nil {
		return o, err
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		return o, err
	}
	f.authority, f.key, o.TLS = o.Chain, zone.KeyRecord(leaf.RawSubjectPublicKeyInfo), "starttls"
	return o, nil
}

// startSinks starts both sinks, at the same port: that is the same for all MX hosts.
func (f *farSide) startSinks(ctx context.Context, o *Options, secure sink.Options) (err error) {
	clear := sink.Options{Address: o.SinkAddress, NoVerify: o.NoVerify, Gauge: f.clearGauge}
	if f.clear, err = startSink(ctx, o.Program, clear); err != nil || !o.TLS {
		return err
	}
	secure.Address, secure.NoVerify, secure.Gauge = secureHost+f.clear.address[strings.LastIndexByte(f.clear.address, ':'):], o.NoVerify, f.secureGauge
	f.secure, err = startSink(ctx, o.Program, secure)
	return err
}

// mxHost is the n-th mail exchanger of the domains below another one.
func mxHost(n int, below string) string { return "mx" + strconv.Itoa(n) + ".hosts." + below }

// records is the zone: all domains below one have the same two hosts, both at the address of its sink. Those of the secure one have TLSA records.
func (f *farSide) records(at netip.AddrPort, name string) (zone.Records, bool) {
	address, below := at.Addr(), clearDomains
	if strings.HasSuffix(name, "."+secureDomain) {
		address, below = netip.MustParseAddr(secureHost), secureDomain
	}
	service := "_" + strconv.Itoa(int(at.Port())) + "._tcp."
	host, isService := strings.CutPrefix(name, service)
	switch {
	case host == mxHost(1, below) || host == mxHost(2, below):
		if isService && below == secureDomain {
			return zone.Records{TLSA: [][]byte{f.key}}, true
		}
		return zone.Records{Addrs: []netip.Addr{address}}, !isService
	case strings.HasPrefix(name, "d") && strings.HasSuffix(name, "."+below):
		return zone.Records{MX: []zone.MX{{Host: mxHost(1, below), Preference: 10}, {Host: mxHost(2, below), Preference: 20}}}, true
	}
	return zone.Records{}, false
}

func (f *farSide) stop() {
	for _, s := range []*sinkChild{f.clear, f.secure} {
		if s != nil {
			s.stop()
		}
	}
	f.clear, f.secure = nil, nil
	if f.names != nil {
		f.names.Close()
		f.names = nil
	}
}

// configure says in the configuration of the MTA how to get there.
func (f *farSide) configure(c *configuration, o *Options) {
	switch {
	case o.MX:
		c.route, c.names, c.port = "mx", f.names.Addr(), f.clear.address[strings.LastIndexByte(f.clear.address, ':')+1:]
		c.policies = []string{"*." + clearDomains, "*." + secureDomain}
	case o.TLS:
		c.other, c.authority = []routeOf{{domain: secureDomain, to: "smtp://" + f.secure.address, tls: "verified"}}, f.authority
	}
}

// domains are those of the recipients of mail that is to go to the sink in clear, or to the secure one. nil = any do.
func (f *farSide) domains(o *Options, secure bool) (all load.Domains) {
	switch {
	case !o.MX && secure:
		return load.Domains{secureDomain}
	case !o.MX:
		return nil
	case !secure:
		return load.MadeUpDomains(o.Domains)
	}
	for n := range o.Domains {
		all = append(all, "d"+strconv.Itoa(n)+"."+secureDomain)
	}
	return all
}

// ErrClearText is returned when mail that was to go under TLS went in clear.
var ErrClearText = errors.New("not all mail that was to go under TLS did")

// checkSecure says whether all mail for the secure sink came under TLS.
func (f *farSide) checkSecure() error {
	if f == nil || f.secure == nil {
		return nil
	}
	if r, _ := f.secure.report(); r.Messages == 0 || r.InClear > 0 {
		return fmt.Errorf("%w: %d of %d messages went in clear", ErrClearText, r.InClear, r.Messages)
	}
	return nil
}
