package dsn

import (
	"bytes"

	"mailrace/proto/message"
)

// HeadersOnly makes of a notification that returns all of a message one that returns its header section, in 7 bits: for a host on the way back that
// offers no 8BITMIME. A message/rfc822 may not be packed (RFC 2046 §5.2.1), and the notification matters more than what it returns. content is what
// Build made under that id; of anything else, what returns no message included, ok is false.
func HeadersOnly(content []byte, id message.ID) (narrow []byte, flags message.Flags, ok bool) {
	end := bytes.LastIndex(content, []byte("\r\n--=_"+id.String()+"_"))
	if end < 0 {
		return nil, 0, false
	}
	delimiter, found := bytes.CutSuffix(content[end:], []byte("--\r\n"))
	if !found {
		return nil, 0, false
	}
	start := bytes.LastIndex(content[:end], append(bytes.Clone(delimiter), "\r\n"...))
	if start < 0 {
		return nil, 0, false
	}
	fields, original, found := bytes.Cut(content[start+len(delimiter)+len("\r\n"):end], []byte("\r\n\r\n"))
	if !found || !bytes.HasPrefix(fields, []byte("Content-Type: message/rfc822\r\n")) {
		return nil, 0, false
	}
	p := headers(headerSection(original, len(original)), false, true)
	p.encode(false)

	const wide = "\r\nContent-Transfer-Encoding: 8bit\r\n"
	top, rest, _ := bytes.Cut(content[:start], []byte("\r\n\r\n"))
	w := &writer{out: make([]byte, 0, start+len(p.body)+512)}
	w.out = append(w.out, bytes.Replace(append(bytes.Clone(top), "\r\n"...), []byte(wide), []byte("\r\n"), 1)...)
	w.line()
	w.out = append(w.out, bytes.Replace(rest, []byte("\r\n"+follows), []byte("\r\n"+follows+headerOf), 1)...)
	w.line()
	b := string(delimiter[len("\r\n--"):])
	w.part(b, &p)
	w.line("--", b, "--")
	if !isASCII(w.out) {
		return nil, 0, false
	}
	if leadingDots(w.out) {
		flags = message.LeadingDots
	}
	return w.out, flags, true
}
