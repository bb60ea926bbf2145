package mx

import (
	"bytes"
	"slices"
)

// DemandKind is what a connection to a host must show before mail of some domains goes there.
type DemandKind uint8

const (
	// DemandNone: nothing beside what the route wants.
	DemandNone DemandKind = iota
	// DemandTesting: what DemandSTS wants, but mail goes also where it is not met. RFC 8461 §5
	DemandTesting
	// DemandSTS: TLS, with a certificate for the name of the host by an authority that counts. RFC 8461 §4.1
	DemandSTS
	// DemandEncrypted: TLS, and nothing is proved: there are TLSA records, and none is usable. RFC 7672 §2.2
	DemandEncrypted
	// DemandDANE: TLS, with a certificate that a TLSA record allows. RFC 7672
	DemandDANE
)

// String names the kind as it stands in keys of sites and in records.
func (k DemandKind) String() string { return [...]string{"", "testing", "sts", "encrypted", "dane"}[k] }

// Demand is what is demanded of one host. It is immutable.
type Demand struct {
	Kind DemandKind
	Base string // DemandDANE, DemandEncrypted: the host under which the records stand, which is asked for by SNI
	TLSA []TLSA // DemandDANE: those that are usable
	// Names are further ones that a certificate by DANE-TA may be for: the domain of the mail, and where its CNAMEs lead. RFC 7672 §3.2.2
	Names []string
	// Signed: DNSSEC vouches for the MX records that name the host, of DemandNone and DemandTesting. It demands nothing, but a certificate for the
	// name proves as much to mail that wants to know. RFC 8689 §4.2.1
	Signed bool
}

// Enforced says whether mail must not go where the demand is not met. nil = nothing is demanded.
func (d *Demand) Enforced() bool { return d != nil && d.Kind >= DemandSTS }

// Proves says whether a connection that meets the demand goes to whom the domain means, for mail that asks for REQUIRETLS. RFC 8689 §4.2.1
func (d *Demand) Proves() bool {
	return d != nil && (d.Kind == DemandSTS || d.Kind == DemandDANE || d.Signed)
}

// DemandOf returns what is demanded of a host, or nil.
func (a *Answer) DemandOf(host string) *Demand {
	if a.Records == nil {
		return nil
	}
	for i := range a.Records.Demands {
		if a.Hosts[i].Name == host && (a.Records.Demands[i].Kind != DemandNone || a.Records.Demands[i].Signed) {
			return &a.Records.Demands[i]
		}
	}
	return nil
}

// Meets says whether a connection that was made to meet d meets other as well, of the same host: nothing is asked twice of a certificate that was
// judged by the same authority for the same name. nil = nothing is demanded.
func (d *Demand) Meets(other *Demand) bool {
	switch {
	case other != nil && other.Signed && (d == nil || !d.Signed && d.Kind != DemandSTS): // nobody judged the certificate by its name
		return false
	case other == nil || other.Kind == DemandNone:
		return d == nil || d.Kind == DemandNone || d.Enforced()
	case d == nil:
		return false
	case other.Kind == DemandEncrypted:
		return d.Enforced()
	case other.Kind == DemandTesting:
		return d.Kind == DemandTesting || d.Kind == DemandSTS
	case other.Kind == DemandSTS:
		return d.Kind == DemandSTS
	}
	return d.Kind == DemandDANE && d.Base == other.Base && slices.Equal(d.Names, other.Names) && slices.EqualFunc(d.TLSA, other.TLSA, func(a, b TLSA) bool {
		return a.Usage == b.Usage && a.Selector == b.Selector && a.Matching == b.Matching && bytes.Equal(a.Data, b.Data)
	})
}
