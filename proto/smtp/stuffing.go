package smtp

import "bytes"

// AppendStuffed appends content to dst with a dot in front of every line that begins with one (RFC 5321 §4.5.2). bol says whether content
// begins a line; the result says whether what follows it does. Content whose Decoder saw no leading dots is sent as it is, without this.
func AppendStuffed(dst, content []byte, bol bool) ([]byte, bool) {
	for len(content) > 0 {
		if bol && content[0] == '.' {
			dst = append(dst, '.')
		}
		end := bytes.IndexByte(content, '\n') + 1
		bol = end > 0
		if !bol {
			end = len(content)
		}
		dst = append(dst, content[:end]...)
		content = content[end:]
	}
	return dst, bol
}
