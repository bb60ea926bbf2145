package mx

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// texts finds the TXT records of a name.
func (r *Resolver) texts(q Query) *entry {
	set, err := r.lookup(q.Name, dns.TypeTXT)
	if err != nil {
		return r.temporary(q, err)
	}
	texts := textsOf(set.rrs)
	if len(texts) == 0 {
		return r.facts(q, nil, set.validated, min(set.ttl, r.opts.NegativeMax))
	}
	return r.facts(q, &Records{Texts: texts}, set.validated, set.ttl)
}

// textsOf are the texts of TXT records: a bounded number of bounded length.
func textsOf(rrs []dns.RR) (texts []string) {
	for _, rr := range rrs[:min(len(rrs), recordsMost)] {
		if text := strings.Join(rr.(*dns.TXT).Txt, ""); len(text) <= recordBytes {
			texts = append(texts, text)
		}
	}
	return texts
}

// tlsaOf are TLSA records, a bounded number. Data of one that is too long or cannot be read is left out, which makes it unusable.
func tlsaOf(rrs []dns.RR) (records []TLSA) {
	for _, rr := range rrs[:min(len(rrs), recordsMost)] {
		t := rr.(*dns.TLSA)
		data, err := hex.DecodeString(t.Certificate)
		if err != nil || len(data) > recordBytes {
			data = nil
		}
		records = append(records, TLSA{t.Usage, t.Selector, t.MatchingType, data})
	}
	return records
}

// facts is a verdict on records.
func (r *Resolver) facts(q Query, records *Records, validated bool, ttl time.Duration) *entry {
	return r.entryOf(Answer{Query: q, Records: records, Validated: validated}, ttl, r.opts.TTLMax)
}

// associations finds the TLSA records of a port of a host. RFC 7672 §2.2.2
func (r *Resolver) associations(q Query) *entry {
	if len(r.opts.Trusted) == 0 {
		return r.facts(q, nil, false, r.opts.TTLMax)
	}
	prefix, host := q.service()
	addresses := r.addressesShared(host)
	bases, err := r.bases(host, addresses)
	if err != nil {
		return r.temporary(q, err)
	}
	holds := addresses.Expires.Sub(r.opts.Now())
	for _, base := range bases {
		set, err := r.lookup(prefix+base, dns.TypeTLSA)
		if err != nil { // also where somebody suppresses them: then there is no delivery without
			return r.temporary(q, err)
		}
		holds = min(holds, set.ttl)
		if !set.validated || len(set.rrs) == 0 {
			continue
		}
		return r.facts(q, &Records{Base: base, TLSA: tlsaOf(set.rrs)}, true, holds)
	}
	return r.facts(q, nil, len(bases) > 0, min(holds, r.opts.NegativeMax))
}

// bases are the names under which the TLSA records of a host may be, in order: none, if DNSSEC does not vouch for the host.
func (r *Resolver) bases(host string, addresses *entry) ([]string, error) {
	switch {
	case addresses.Class != OK:
		return nil, addresses.failed
	case addresses.Records == nil && !addresses.Validated:
		return nil, nil
	case addresses.Records == nil:
		return []string{host}, nil
	case addresses.Validated:
		return []string{addresses.Records.Base, host}, nil
	}
	// It leads out of what is signed. Is it itself?
	alias, err := r.lookup(host, dns.TypeCNAME)
	if err != nil || !alias.validated {
		return nil, err
	}
	return []string{host}, nil
}
