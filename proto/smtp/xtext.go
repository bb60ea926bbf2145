package smtp

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// Bounds of parameters, in octets of their encoded form.
const (
	maxEnvelopeID = 100 // RFC 3461 §4.4
	maxOriginal   = 500 // RFC 3461 §4.2
	maxSubmitter  = 500 // RFC 4954 §3
	maxDateTime   = 64
)

// validXtext reports whether b is xtext (RFC 3461 §4) of printable ASCII, spaces included. Encoded control characters are what injects lines into
// files and headers: they go no further than this.
func validXtext(b []byte) bool { return isXtext(b, false) }

// isXtext is validXtext, but wide xtext may stand for octets beyond ASCII, too.
func isXtext(b []byte, wide bool) bool {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '+':
			if i+2 >= len(b) {
				return false
			}
			high, low := hexDigit(b[i+1]), hexDigit(b[i+2])
			if high < 0 || low < 0 {
				return false
			}
			if c := high<<4 | low; c < ' ' || c == 0x7f || c > 0x7f && !wide {
				return false
			}
			i += 2
		case c <= ' ' || c > '~' || c == '=':
			return false
		}
	}
	return true
}

// hexDigit is the value of a hexadecimal digit, or -1.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c - 'A' + 10)
	case c >= 'a' && c <= 'f':
		return int(c - 'a' + 10)
	}
	return -1
}

// AppendDecodedXtext appends what valid xtext stands for, at most as many octets as it has.
func AppendDecodedXtext(dst, xtext []byte) []byte {
	for i := 0; i < len(xtext); i++ {
		c := xtext[i]
		if c == '+' && i+2 < len(xtext) {
			c = byte(hexDigit(xtext[i+1])<<4 | hexDigit(xtext[i+2]))
			i += 2
		}
		dst = append(dst, c)
	}
	return dst
}

// AppendXtext appends s as xtext: whatever s holds, no octet of it can end the parameter or the line.
func AppendXtext(dst []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			dst = append(dst, '+', hex[c>>4], hex[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// typeUTF8 is the address type of RFC 6533 §3, whose addresses have an encoding of their own: \x{FC} in place of xtext's +FC.
const typeUTF8 = "UTF-8"

var semicolon = []byte{';'}

// validOriginal reports whether b is an ORCPT that may be taken: an address type, ";" and an address in xtext, or in the forms of RFC 6533.
func validOriginal(b []byte, smtpUTF8 bool) bool {
	kind, address, ok := bytes.Cut(b, semicolon)
	if !ok || len(kind) == 0 || len(address) == 0 || len(b) > maxOriginal {
		return false
	}
	for _, c := range kind {
		if octetClass[c]&classAtext == 0 {
			return false
		}
	}
	if !equalFold(kind, typeUTF8) {
		return validXtext(address) || isWide(kind, address) && len(AppendDecodedOriginal(nil, b)) <= maxOriginal
	}
	for _, c := range address {
		if c <= ' ' || c == 0x7f || c == '+' || c == '=' || c > 0x7f && !smtpUTF8 {
			return false
		}
	}
	return utf8.Valid(address)
}

// isWide reports whether xtext stands for an address in UTF-8 that goes beyond ASCII, although its type is rfc822: Postfix says it so. RFC 6533 §3 has
// another type, and another encoding, for that.
func isWide(kind, xtext []byte) bool {
	return equalFold(kind, "RFC822") && isXtext(xtext, true) && !validXtext(xtext) && utf8.Valid(AppendDecodedXtext(nil, xtext))
}

// appendUTF8Xtext appends an address in the form of RFC 6533 §3 that is ASCII throughout.
func appendUTF8Xtext(dst, address []byte) []byte {
	for _, r := range string(address) {
		if r <= ' ' || r > '~' || r == '\\' || r == '+' || r == '=' {
			dst = fmt.Appendf(dst, `\x{%02X}`, r)
		} else {
			dst = append(dst, byte(r))
		}
	}
	return dst
}

// AppendDecodedOriginal appends what a valid ORCPT stands for: address type, ";" and address. The address of the type utf-8 stays as it is, and one in
// UTF-8 of the type rfc822 becomes one of that.
func AppendDecodedOriginal(dst, original []byte) []byte {
	kind, address, found := bytes.Cut(original, semicolon)
	if !found {
		return dst
	}
	if isWide(kind, address) {
		return appendUTF8Xtext(append(dst, "utf-8;"...), AppendDecodedXtext(nil, address))
	}
	dst = append(append(dst, kind...), ';')
	if equalFold(kind, typeUTF8) {
		return append(dst, address...)
	}
	return AppendDecodedXtext(dst, address)
}

// AppendOriginal appends the ORCPT for what AppendDecodedOriginal gave.
func AppendOriginal(dst []byte, original string) []byte {
	for i := range len(original) {
		if original[i] != ';' {
			continue
		}
		kind, address := original[:i], original[i+1:]
		dst = append(append(dst, kind...), ';')
		if equalFold([]byte(kind), typeUTF8) {
			return append(dst, address...)
		}
		return AppendXtext(dst, address)
	}
	return dst
}
