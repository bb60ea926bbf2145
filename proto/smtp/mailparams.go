package smtp

import (
	"bytes"
	"time"

	"mailrace/proto/message"
)

// BodyType is the BODY parameter of MAIL. RFC 6152, RFC 3030
type BodyType uint8

const (
	// Body7Bit is the default: the content is said to be ASCII.
	Body7Bit BodyType = iota
	// Body8Bit is BODY=8BITMIME.
	Body8Bit
	// BodyBinary is BODY=BINARYMIME: any octets, lines of any length or none. They come in chunks only.
	BodyBinary
)

// MailParams are the arguments of MAIL.
type MailParams struct {
	Path       []byte // reverse-path without angle brackets and source route; empty is the null reverse-path
	Domain     []byte // its domain, a slice of Path
	Size       int64  // SIZE in octets, 0 when not given. RFC 1870
	Body       BodyType
	SMTPUTF8   bool // RFC 6531
	Return     message.Return
	EnvID      []byte    // ENVID in xtext, see AppendDecodedXtext; empty when not given. RFC 3461
	RequireTLS bool      // RFC 8689
	HoldFor    int64     // seconds to hold the message for, 1 to 999,999,999; 0 when not given. RFC 4865
	HoldUntil  int64     // until when to hold it, Unix seconds; 0 when not given
	By         DeliverBy // RFC 2852
	Priority   int8      // -9 to 9, 0 when not given. RFC 6710
	Submitter  []byte    // AUTH: who handed the message in first, in xtext, or "<>"; empty when not given. RFC 4954 §5
}

// DeliverBy is the BY parameter of MAIL.
type DeliverBy struct {
	Seconds int64          // that are left to deliver the message, -999,999,999 to 999,999,999; above 0 with ByReturn
	Mode    message.ByMode // ByNone when the parameter was not given
	Trace   bool
}

// mailParam is a parameter of MAIL, or several that exclude each other.
type mailParam uint16

const (
	paramSize mailParam = 1 << iota
	paramBody
	paramUTF8
	paramReturn
	paramEnvelopeID
	paramBy
	paramPriority
	paramBinary // BODY=BINARYMIME, beside paramBody
	paramRequireTLS
	paramHold
	paramSubmitter

	// paramsServed are those that every session serves.
	paramsServed = paramBinary - 1
)

// mailParams are the parameters that MAIL may have in the session as it stands.
func (s *Server) mailParams() mailParam {
	served := paramsServed
	if !s.cfg.NoBinary {
		served |= paramBinary
	}
	if s.secured {
		served |= paramRequireTLS
	}
	if s.offer.HoldMax > 0 {
		served |= paramHold
	}
	if len(s.mechanisms()) > 0 {
		served |= paramSubmitter
	}
	return served
}

// parse reads the parameters of MAIL, each at most once, and returns the reply to what it refuses, or "".
func (m *MailParams) parse(rest []byte, served mailParam) (refusal string) {
	seen := mailParam(0)
	for rest = trimSpaces(rest); len(rest) > 0; {
		var word []byte
		word, rest = cutWord(rest)
		key, value, hasValue := bytes.Cut(word, equalsSign)
		param, ok := m.take(key, value, hasValue)
		switch {
		case param&^served == paramRequireTLS:
			return replyNeedsTLS
		case param == 0, param&^served != 0:
			return replyUnknownParm
		case !ok, seen&param != 0:
			return replyParameter
		}
		seen |= param
	}
	return ""
}

// take reads one parameter. param is 0 if there is none of that name, and ok says that its value is good.
func (m *MailParams) take(key, value []byte, hasValue bool) (param mailParam, ok bool) {
	switch {
	case equalFold(key, "SIZE"): // RFC 1870 §4
		m.Size, ok = parseSize(value)
		return paramSize, ok
	case equalFold(key, "BODY"): // RFC 6152 §2, RFC 3030 §3
		if m.Body, ok = parseBody(value); m.Body == BodyBinary {
			return paramBody | paramBinary, ok
		}
		return paramBody, ok
	case equalFold(key, "SMTPUTF8"): // RFC 6531 §3.4
		m.SMTPUTF8 = true
		return paramUTF8, !hasValue
	case equalFold(key, "RET"): // RFC 3461 §4.3
		m.Return, ok = parseReturn(value)
		return paramReturn, ok
	case equalFold(key, "ENVID"): // RFC 3461 §4.4
		m.EnvID = value
		return paramEnvelopeID, len(value) > 0 && len(value) <= maxEnvelopeID && validXtext(value)
	case equalFold(key, "REQUIRETLS"): // RFC 8689 §2
		m.RequireTLS = true
		return paramRequireTLS, !hasValue
	case equalFold(key, "HOLDFOR"): // RFC 4865 §3
		m.HoldFor, ok = parseSeconds(value)
		return paramHold, ok && value[0] != '0'
	case equalFold(key, "HOLDUNTIL"):
		m.HoldUntil, ok = parseDateTime(value)
		return paramHold, ok
	case equalFold(key, "BY"): // RFC 2852 §4
		m.By, ok = parseBy(value)
		return paramBy, ok
	case equalFold(key, "MT-PRIORITY"): // RFC 6710 §7
		m.Priority, ok = parsePriority(value)
		return paramPriority, ok
	case equalFold(key, "AUTH"): // RFC 4954 §5
		m.Submitter = value
		return paramSubmitter, validSubmitter(value)
	}
	return 0, false
}

// parseSize reads 1 to 20 digits. A number beyond int64 is as good as the largest one: too large for any limit.
func parseSize(b []byte) (int64, bool) {
	const largest = 1<<63 - 1
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	size := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := int64(c - '0')
		if size > (largest-digit)/10 {
			size = largest
			continue
		}
		size = size*10 + digit
	}
	return size, true
}

func parseBody(b []byte) (BodyType, bool) {
	switch {
	case equalFold(b, "7BIT"):
		return Body7Bit, true
	case equalFold(b, "8BITMIME"):
		return Body8Bit, true
	case equalFold(b, "BINARYMIME"):
		return BodyBinary, true
	}
	return Body7Bit, false
}

func parseReturn(b []byte) (message.Return, bool) {
	switch {
	case equalFold(b, "FULL"):
		return message.ReturnFull, true
	case equalFold(b, "HDRS"):
		return message.ReturnHeaders, true
	}
	return message.ReturnDefault, false
}

// parseSeconds reads 1 to 9 digits: some 31 years.
func parseSeconds(b []byte) (int64, bool) {
	if len(b) > 9 {
		return 0, false
	}
	return parseSize(b)
}

// parseDateTime reads a date-time of RFC 3339 §5.6 into Unix seconds, parts of a second rounded up.
func parseDateTime(b []byte) (seconds int64, ok bool) {
	const form = "0000-00-00T00:00:00"
	var upper [maxDateTime]byte
	if len(b) <= len(form) || len(b) > len(upper) {
		return 0, false
	}
	for i, c := range b { // "t" and "z" are as good as "T" and "Z"
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		upper[i] = c
	}
	b = upper[:len(b)]
	var t time.Time
	if !hasForm(b[:len(form)], form) || !validOffset(skipFraction(b[len(form):])) || t.UnmarshalText(b) != nil {
		return 0, false
	}
	if seconds = t.Unix(); t.Nanosecond() > 0 {
		seconds++
	}
	return seconds, true
}

// hasForm reports whether b is like form, in which 0 stands for any digit. The time package looks less closely.
func hasForm(b []byte, form string) bool {
	if len(b) != len(form) {
		return false
	}
	for i, c := range b {
		if digit := c >= '0' && c <= '9'; digit != (form[i] == '0') || !digit && c != form[i] {
			return false
		}
	}
	return true
}

// skipFraction returns what stands behind the parts of a second, if b begins with some.
func skipFraction(b []byte) []byte {
	if b[0] != '.' {
		return b
	}
	end := 1
	for end < len(b) && b[end] >= '0' && b[end] <= '9' {
		end++
	}
	return b[end:]
}

// validOffset reports whether b is "Z" or hours and minutes from UTC.
func validOffset(b []byte) bool {
	if len(b) == 1 {
		return b[0] == 'Z'
	}
	return (hasForm(b, "+00:00") || hasForm(b, "-00:00")) && (b[1] < '2' || b[1] == '2' && b[2] < '4') && b[4] < '6'
}

// parseBy reads seconds with or without a sign, ";", N or R, and perhaps T.
func parseBy(b []byte) (by DeliverBy, ok bool) {
	digits, mode, _ := bytes.Cut(b, semicolon)
	negative := len(digits) > 0 && digits[0] == '-'
	if negative || len(digits) > 0 && digits[0] == '+' {
		digits = digits[1:]
	}
	if by.Seconds, ok = parseSeconds(digits); !ok {
		return by, false
	}
	if negative {
		by.Seconds = -by.Seconds
	}
	if len(mode) == 2 && mode[1]&^0x20 == 'T' {
		by.Trace, mode = true, mode[:1]
	}
	switch {
	case equalFold(mode, "N"):
		by.Mode = message.ByNotify
		return by, true
	case equalFold(mode, "R"):
		by.Mode = message.ByReturn
		return by, by.Seconds > 0
	}
	return by, false
}

// parsePriority reads -9 to 9, without a plus sign or zeros in front.
func parsePriority(b []byte) (int8, bool) {
	switch {
	case len(b) == 1 && b[0] >= '0' && b[0] <= '9':
		return int8(b[0] - '0'), true
	case len(b) == 2 && b[0] == '-' && b[1] >= '1' && b[1] <= '9':
		return -int8(b[1] - '0'), true
	}
	return 0, false
}

// validSubmitter reports whether b is "<>", or a mailbox in xtext.
func validSubmitter(b []byte) bool {
	if string(b) == "<>" {
		return true
	}
	if len(b) == 0 || len(b) > maxSubmitter || !validXtext(b) {
		return false
	}
	var buf [maxSubmitter + 2]byte
	mailbox := append(AppendDecodedXtext(append(buf[:0], '<'), b), '>')
	path, rest, err := ParsePath(mailbox, false)
	return err == nil && len(rest) == 0 && len(path.Domain) > 0 && len(path.Path) == len(mailbox)-len("<>")
}
