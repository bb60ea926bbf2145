package smtp

import "bytes"

// Extensions are the service extensions that a remote server offered, of those that Client makes use of.
type Extensions uint8

const (
	ExtPipelining    Extensions = 1 << iota // RFC 2920
	ExtSize                                 // RFC 1870
	Ext8BitMIME                             // RFC 6152
	ExtSMTPUTF8                             // RFC 6531
	ExtEnhancedCodes                        // RFC 2034
	ExtDSN                                  // RFC 3461
)

// Has reports whether all of want were offered.
func (e Extensions) Has(want Extensions) bool { return e&want == want }

// parseExtensions reads the text of the answer to EHLO: a greeting, then one keyword a line with its parameters. RFC 5321 §4.1.1.1.
// maxSize is 0 where the server names none.
func parseExtensions(text []byte) (ext Extensions, maxSize int64) {
	_, text, _ = bytes.Cut(text, lfByte)
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, lfByte)
		keyword, param, _ := bytes.Cut(trimSpaces(line), spaceByte)
		switch {
		case equalFold(keyword, "PIPELINING"):
			ext |= ExtPipelining
		case equalFold(keyword, "SIZE"):
			ext |= ExtSize
			maxSize, _ = parseSize(trimSpaces(param))
		case equalFold(keyword, "8BITMIME"):
			ext |= Ext8BitMIME
		case equalFold(keyword, "SMTPUTF8"):
			ext |= ExtSMTPUTF8
		case equalFold(keyword, "ENHANCEDSTATUSCODES"):
			ext |= ExtEnhancedCodes
		case equalFold(keyword, "DSN"):
			ext |= ExtDSN
		}
	}
	return ext, maxSize
}

var (
	lfByte    = []byte{'\n'}
	spaceByte = []byte{' '}
)
