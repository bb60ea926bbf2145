package smtp

// scanLiteral returns where the address literal that begins at i ends: "[" IPv4 "]" or "[IPv6:" IPv6 "]", RFC 5321 §4.1.3. It is written by
// hand because net/netip takes strings and keeps them in its errors, which would allocate.
func scanLiteral(b []byte, i int) (int, error) {
	const longest = len("[IPv6:ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]")
	end := i
	for end < len(b) && end-i < longest && b[end] != ']' {
		end++
	}
	if end >= len(b) || b[end] != ']' {
		return 0, ErrLiteral
	}
	const tag = "IPV6:"
	text := b[i+1 : end]
	switch {
	case len(text) > len(tag) && equalFold(text[:len(tag)], tag):
		if !validIPv6(text[len(tag):]) {
			return 0, ErrLiteral
		}
	case !validIPv4(text):
		return 0, ErrLiteral
	}
	return end + 1, nil
}

// validIPv4 reports whether b is a dotted quad without leading zeros.
func validIPv4(b []byte) bool {
	parts, digits, value := 0, 0, 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i == len(b) || b[i] == '.':
			if digits == 0 || value > 255 {
				return false
			}
			parts, digits, value = parts+1, 0, 0
		case b[i] < '0' || b[i] > '9' || digits == 3 || digits > 0 && value == 0:
			return false
		default:
			value = value*10 + int(b[i]-'0')
			digits++
		}
	}
	return parts == 4
}

// validIPv6 reports whether b is an IPv6 address without a zone: eight groups of one to four hexadecimal digits, of which a run may be "::"
// and the last two an IPv4 address.
func validIPv6(b []byte) bool {
	groups, compressed := 0, false
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		compressed = true
		b = b[2:]
	}
	for len(b) > 0 {
		digits := 0
		for digits < len(b) && isHex(b[digits]) {
			digits++
		}
		if digits < len(b) && b[digits] == '.' {
			groups += 2
			return validIPv4(b) && (groups == 8 && !compressed || groups < 8 && compressed)
		}
		if digits == 0 || digits > 4 {
			return false
		}
		groups++
		if b = b[digits:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return false
		}
		if b = b[1:]; b[0] == ':' {
			if compressed {
				return false
			}
			compressed = true
			b = b[1:]
		}
	}
	return groups == 8 && !compressed || groups < 8 && compressed
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
