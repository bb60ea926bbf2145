package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/router"
)

// Pool is where connections for the mail come from.
type Pool struct {
	Name    string       `json:"name"`
	Key     string       `json:"key"`    // of the configuration, that chose it
	Source  string       `json:"source"` // file:line of that
	Sources []PoolSource `json:"sources"`
}

// PoolSource is an egress source of the pool, and its site.
type PoolSource struct {
	Name   string `json:"name"`
	Weight int    `json:"weight"`
	IPv4   string `json:"ipv4,omitempty"`
	IPv6   string `json:"ipv6,omitempty"`
	Hello  string `json:"ehlo"`
	Via    string `json:"via,omitempty"` // "socks5 host:port" or "proxy host:port"

	Out         string    `json:"out_of_service,omitempty"` // why; "" = in service, or nobody was asked
	Until       time.Time `json:"out_until,omitzero"`       // not tried before
	Unreachable bool      `json:"unreachable,omitempty"`    // it reaches none of the addresses of the hosts
	Queued      int       `json:"queued"`                   // recipients, for the site
	InFlight    int       `json:"in_flight"`
	Connections int       `json:"connections"` // to the site
	Failures    int       `json:"failures"`    // of the site, from there
	Backoff     time.Time `json:"backoff_until,omitzero"`
	LastError   string    `json:"last_error,omitempty"`
}

// pool notes which pool mail without labels is of. sayer is the place of the policy that says it, below 0 = none does.
func (e *Explainer) pool(r *Report, w way, route *router.Route, sayer int) {
	c := e.Config
	if route == nil || route.Kind != router.MX && route.Pool == "" {
		return
	}
	name, key := c.Egress.Pool, "egress.pool"
	if w.route.Pool != "" {
		name, key = w.route.Pool, w.table+".pool"
	}
	if sayer >= 0 {
		name, key = c.Policies[sayer].Pool, fmt.Sprintf("policy[%d].pool", sayer)
	}
	if name == "" {
		return
	}
	p := &Pool{Name: name, Key: plain(key), Source: cmp.Or(c.Origin(key), Default), Sources: []PoolSource{}}
	for _, known := range c.Pools {
		if known.Name != name {
			continue
		}
		for _, m := range known.Sources {
			p.Sources = append(p.Sources, e.poolSource(m.Name, m.Weight))
		}
	}
	r.Pool = p
	r.Egress = slices.DeleteFunc(r.Egress, func(s Setting) bool { return s.Name == settingSource || s.Name == settingHello })
}

// poolSource is a source as it is configured.
func (e *Explainer) poolSource(name string, weight int) PoolSource {
	to := PoolSource{Name: name, Weight: weight}
	for i := range e.Config.Sources {
		s := &e.Config.Sources[i]
		if s.Name != name {
			continue
		}
		if to.Hello = cmp.Or(s.Hello, e.Config.Hostname); s.IPv4.IsValid() {
			to.IPv4 = s.IPv4.String()
		}
		if s.IPv6.IsValid() {
			to.IPv6 = s.IPv6.String()
		}
		switch {
		case s.SOCKS5 != "":
			to.Via = "socks5 " + s.SOCKS5
		case s.Proxy != "":
			to.Via = "proxy " + s.Proxy
		}
	}
	return to
}

// judge notes how the sources stand.
func (p *Pool) judge(known []router.SourceStatus) {
	for _, st := range known {
		i := slices.IndexFunc(p.Sources, func(s PoolSource) bool { return s.Name == st.Source })
		if i < 0 {
			continue
		}
		s := &p.Sources[i]
		s.Out, s.Until, s.Unreachable = st.Cause, utc(st.Until), !st.Reach
		s.Queued, s.InFlight, s.Connections = st.Status.Queued, st.Status.InFlight, st.Status.Connections
		s.Failures, s.Backoff, s.LastError = st.Status.Failures, utc(st.Status.Backoff), st.Status.LastError
	}
}

// verdict is what keeps mail from all sources, if something does.
func (p *Pool) verdict(now time.Time) (v Verdict, kept bool) {
	if p == nil || len(p.Sources) == 0 {
		return v, false
	}
	for i := range p.Sources {
		switch s := &p.Sources[i]; {
		case s.Unreachable:
		case s.Out == "" || !s.Until.After(now):
			return v, false
		case v.Until.IsZero() || s.Until.Before(v.Until):
			v.Until = s.Until
		}
	}
	v.Would, v.Text = Wait, fmt.Sprintf("no source of pool %q is in service", p.Name)
	if v.Until.IsZero() {
		v.Text = fmt.Sprintf("no source of pool %q has an address of the family of the hosts'", p.Name)
	}
	return v, true
}

// pool prints where connections come from, a line for each source.
func (p *page) pool(of *Pool) {
	if of == nil {
		return
	}
	p.line("pool", p.in("", of.Name)+"  "+p.in(dim, of.Key+", "+of.Source))
	var rows [][]string
	var colours []string
	for i := range of.Sources {
		s := &of.Sources[i]
		addresses := strings.Join(slices.DeleteFunc([]string{s.IPv4, s.IPv6}, func(a string) bool { return a == "" }), " ")
		row, colour := []string{s.Name, "weight " + strconv.Itoa(s.Weight), cmp.Or(addresses, "-"), s.Hello, s.Via, ""}, ""
		switch {
		case s.Out != "":
			colour, row[5] = yellow, "out of service: "+s.Out
			if !s.Until.IsZero() {
				row[5] = fmt.Sprintf("out of service for %s: %s", p.until(s.Until), s.Out)
			}
		case s.Unreachable:
			colour, row[5] = dim, "reaches no address of the hosts"
		case !s.Backoff.IsZero():
			colour, row[5] = yellow, fmt.Sprintf("failed here %d times in a row, backed off for %s: %s", s.Failures, p.until(s.Backoff), s.LastError)
		case s.Queued+s.InFlight+s.Connections > 0:
			row[5] = fmt.Sprintf("%d queued, %d in flight, %d connections", s.Queued, s.InFlight, s.Connections)
		}
		rows, colours = append(rows, row), append(colours, colour)
	}
	p.rows("", colours, rows)
}

// settingSource and settingHello are settings that a source has of its own.
const (
	settingSource = "source address"
	settingHello  = "name in EHLO"
)
