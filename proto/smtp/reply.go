package smtp

import "strings"

// Reply is an answer that the caller of Server chooses: a code of 200 to 599, an enhanced status code such as "4.3.1" or "", and text, in
// which "\n" parts lines. RFC 5321 §4.2, RFC 2034, RFC 3463.
type Reply struct {
	Code     int
	Enhanced string
	Text     string
}

// AppendReply appends r to dst in wire form. Whatever stands in r, the result is a well-formed reply of printable ASCII: control and 8-bit
// characters turn into '?', lines are cut at 512 octets, and a code outside 200 to 599 becomes 451.
func AppendReply(dst []byte, r Reply) []byte {
	if r.Code < 200 || r.Code > 599 {
		r.Code, r.Enhanced = 451, "4.3.0"
	}
	for {
		line, rest, more := strings.Cut(r.Text, "\n")
		dst = appendReplyLine(dst, r, strings.TrimSuffix(line, "\r"), more)
		if !more {
			return dst
		}
		r.Text = rest
	}
}

func appendReplyLine(dst []byte, r Reply, text string, more bool) []byte {
	start := len(dst)
	r.Enhanced = r.Enhanced[:min(len(r.Enhanced), maxSentEnhanced)]
	dst = append(dst, byte('0'+r.Code/100), byte('0'+r.Code/10%10), byte('0'+r.Code%10))
	switch {
	case more:
		dst = append(dst, '-')
	case r.Enhanced != "" || text != "":
		dst = append(dst, ' ')
	}
	if r.Enhanced != "" {
		dst = appendPrintable(dst, r.Enhanced)
		if text != "" {
			dst = append(dst, ' ')
		}
	}
	room := maxSentLine - len("\r\n") - (len(dst) - start)
	return append(appendPrintable(dst, text[:max(0, min(room, len(text)))]), "\r\n"...)
}

// appendPrintable appends s with every octet outside printable ASCII replaced by '?'.
func appendPrintable[T string | []byte](dst []byte, s T) []byte {
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' {
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}
