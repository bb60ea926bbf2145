package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Senders are the reverse-paths that a user may use. It is immutable. A nil Senders allows every one.
type Senders struct {
	addresses map[string]struct{} // whole, local-parts as written, domains in lower case; "" is the null reverse-path
	domains   map[string]struct{} // of "*@domain"
	suffixes  map[string]struct{} // of "*@*.suffix"
}

// NewSenders reads patterns: an address, "*@domain", "*@*.suffix" for all domains below the suffix, and "<>" for the null reverse-path. Of none
// it makes nil.
func NewSenders(patterns []string) (*Senders, error) {
	if len(patterns) == 0 {
		return nil, nil
	}
	s := &Senders{addresses: map[string]struct{}{}, domains: map[string]struct{}{}, suffixes: map[string]struct{}{}}
	for _, p := range patterns {
		if err := CheckSender(p); err != nil {
			return nil, err
		}
		local, domain := cutAddress(p)
		suffix, below := strings.CutPrefix(domain, "*.")
		switch {
		case p == "<>":
			s.addresses[""] = struct{}{}
		case local == "*" && below:
			s.suffixes[suffix] = struct{}{}
		case local == "*":
			s.domains[domain] = struct{}{}
		default:
			s.addresses[local+"@"+domain] = struct{}{}
		}
	}
	return s, nil
}

// CheckSender says what is wrong with a pattern.
func CheckSender(pattern string) error {
	if pattern == "<>" {
		return nil
	}
	at := strings.LastIndexByte(pattern, '@')
	switch {
	case at < 1 || at == len(pattern)-1 || len(pattern) > nameMax || strings.ContainsAny(pattern, " <>\t\r\n\x00"):
		return fmt.Errorf(`%q is no sender: want "user@example.com", "*@example.com", "*@*.example.com" or "<>"`, shorten(pattern))
	case strings.Contains(pattern[:at], "*") && pattern[:at] != "*", strings.Contains(strings.TrimPrefix(pattern[at+1:], "*."), "*"):
		return errors.New(`* stands for a whole local-part, or for the begin of a domain: want "*@example.com" or "*@*.example.com"`)
	case pattern[:at] != "*" && strings.HasPrefix(pattern[at+1:], "*."):
		return errors.New(`one local-part in many domains is not possible: want "*@*.example.com"`)
	}
	return nil
}

// Allow says whether the user may send with a reverse-path, given without angle brackets. Local-parts are compared as they are written, domains
// are not: RFC 5321 §2.4
func (s *Senders) Allow(path string) bool {
	if s == nil {
		return true
	}
	local, domain := cutAddress(path)
	if path == "" {
		_, ok := s.addresses[""]
		return ok
	}
	if _, ok := s.addresses[local+"@"+domain]; ok {
		return true
	}
	if _, ok := s.domains[domain]; ok {
		return true
	}
	for len(s.suffixes) > 0 {
		_, parent, ok := strings.Cut(domain, ".")
		if !ok {
			return false
		}
		if _, ok := s.suffixes[parent]; ok {
			return true
		}
		domain = parent
	}
	return false
}

// cutAddress parts an address; the domain comes in lower case.
func cutAddress(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address, ""
	}
	return address[:at], strings.ToLower(address[at+1:])
}

// shorten bounds what a complaint repeats.
func shorten(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
