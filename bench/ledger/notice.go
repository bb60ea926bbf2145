package ledger

import "bytes"

// Notice is a notification of non-delivery (RFC 3464) about a numbered message.
type Notice struct {
	Run        RunID
	Number     uint64
	Recipients int   // that the message was sent to
	Failed     []int // indexes of those of them that it did not reach for good
}

// ReadNotice reads a notification, which must return the header section of the message, and reports whether it is one about a message of ours. It
// looks for fields on lines of their own, wherever they stand: what MTA made it is open.
func ReadNotice(content []byte) (n Notice, ok bool) {
	var s Scanner
	var final, original, action []byte
	end := func() { // of the fields of a recipient
		index := max(addressIndex(original), addressIndex(final))
		if index >= 0 && bytes.EqualFold(action, []byte("failed")) {
			n.Failed = append(n.Failed, index)
		}
		final, original, action = nil, nil, nil
	}
	ours := false
	for len(content) > 0 {
		line := content
		if i := bytes.IndexByte(content, '\n'); i >= 0 {
			line = content[:i+1]
		}
		content = content[len(line):]
		if len(bytes.TrimSpace(line)) == 0 {
			end()
			continue
		}
		if !ours && s.readMark(line) {
			ours = true
		} else if ours && n.Recipients == 0 && s.readProof(line) {
			n.Run, n.Number, n.Recipients = s.Run, s.Number, s.Recipients
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Final-Recipient")):
			final = value
		case bytes.EqualFold(name, []byte("Original-Recipient")):
			original = value
		case bytes.EqualFold(name, []byte("Action")):
			action, _, _ = bytes.Cut(value, []byte(" "))
		}
	}
	end()
	return n, n.Recipients > 0
}

// addressIndex is the index of the recipient in "rfc822; r3@d7.example", or -1.
func addressIndex(value []byte) int {
	_, address, _ := bytes.Cut(value, []byte(";"))
	local, _, _ := bytes.Cut(bytes.TrimSpace(address), []byte("@"))
	return RecipientIndex(bytes.TrimPrefix(local, []byte("<")))
}
