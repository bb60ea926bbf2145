package policy

import (
	"slices"
	"strings"
	"sync"
	"time"

	"mailrace/proto/mtasts"
	"mailrace/router/mx"
)

// daneTA is the usage of TLSA records that mean an authority, which issues certificates for names.
const daneTA = 2

// associations asks for the TLSA records of each host of a domain whose MX records DNSSEC vouches for, at the port that mail goes to. RFC 7672 §2.2.1, §2.2.3
func (r *Resolver) associations(a *mx.Answer) []*mx.Answer {
	found := make([]*mx.Answer, len(a.Hosts))
	var all sync.WaitGroup
	for i := range a.Hosts {
		all.Go(func() {
			q := mx.AssociationsOf(a.Hosts[i].Name, r.opts.MXPort)
			var err error
			if found[i], err = r.opts.DNS.Find(r.ending, q); err != nil {
				found[i] = temporary(q, "4.4.3", "name service: "+err.Error(), r.opts.Now().Add(failurePause))
			}
		})
	}
	all.Wait()
	return found
}

// judge is the answer a with what is demanded of its hosts, and without those that may not get the mail: a itself, where nothing is demanded. p is
// the MTA-STS policy of the domain, or nil; found is what is known of the TLSA records of each host, or nil. RFC 7672 §2.1, RFC 8461 §5.1
func judge(a *mx.Answer, p *mtasts.Policy, found []*mx.Answer) *mx.Answer {
	var hosts []mx.Host
	var demands []mx.Demand
	fault, plain := "", true
	for i := range a.Hosts {
		d, why := demandOf(&a.Hosts[i], p, found, i)
		if why != "" {
			fault = why
			continue
		}
		if slices.ContainsFunc(d.TLSA, func(r mx.TLSA) bool { return r.Usage == daneTA }) {
			d.Names = namesOf(a)
		}
		d.Signed = a.Validated && (d.Kind == mx.DemandNone || d.Kind == mx.DemandTesting)
		plain = plain && d.Kind == mx.DemandNone && !d.Signed
		hosts, demands = append(hosts, a.Hosts[i]), append(demands, d)
	}
	switch {
	case fault == "" && plain:
		return a
	case len(hosts) == 0:
		return temporary(a.Query, "4.7.5", fault, time.Time{})
	}
	judged := *a
	judged.Hosts, judged.Records = hosts, &mx.Records{Demands: demands, Key: a.Key, Hash: a.Hash}
	judged.Key = keyOf(hosts, demands)
	judged.Hash = mx.Hash(judged.Key)
	return &judged
}

// namesOf are the names of the domain whose MX records these are. RFC 7672 §3.2.2
func namesOf(a *mx.Answer) []string {
	names := []string{a.Query.Name}
	if a.Records != nil && a.Records.Base != "" {
		names = append(names, a.Records.Base)
	}
	return names
}

// demandOf is what is demanded of host i, or why it may not get the mail.
func demandOf(h *mx.Host, p *mtasts.Policy, found []*mx.Answer, i int) (d mx.Demand, fault string) {
	if found != nil && found[i].Class != mx.OK {
		return d, "DANE: it is not known which certificate " + h.Name + " may have: " + found[i].Text
	}
	if found != nil && found[i].Records != nil {
		return dane(found[i].Records), ""
	}
	switch {
	case p == nil || p.Mode == mtasts.None:
	case p.Mode == mtasts.Testing:
		d.Kind = mx.DemandTesting
	case p.Allows(h.Name):
		d.Kind = mx.DemandSTS
	default:
		return d, "MTA-STS: the policy of the domain does not name its mail exchanger " + h.Name
	}
	return d, ""
}

// dane is what TLSA records demand.
func dane(records *mx.Records) mx.Demand {
	d := mx.Demand{Kind: mx.DemandEncrypted, Base: records.Base}
	for i := range records.TLSA {
		if records.TLSA[i].Usable() {
			d.Kind = mx.DemandDANE
			d.TLSA = append(d.TLSA, records.TLSA[i])
		}
	}
	return d
}

// keyOf names the site: the hosts as mx.Answer.Key does, each with what is demanded of it behind a slash, and whose certificate it may have: such a
// connection is for one domain alone.
func keyOf(hosts []mx.Host, demands []mx.Demand) string {
	var b strings.Builder
	for i := range hosts {
		if i > 0 && hosts[i].Preference != hosts[i-1].Preference {
			b.WriteByte(';')
		} else if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(hosts[i].Name)
		if kind := demands[i].Kind; kind != mx.DemandNone {
			b.WriteString("/" + kind.String())
		}
		if names := demands[i].Names; len(names) > 0 {
			b.WriteString("@" + names[0])
		}
		if demands[i].Signed {
			b.WriteString("/signed")
		}
	}
	return b.String()
}

func temporary(q mx.Query, enhanced, text string, expires time.Time) *mx.Answer {
	return &mx.Answer{Query: q, Class: mx.Temporary, Code: 451, Enhanced: enhanced, Text: text, Expires: expires}
}
