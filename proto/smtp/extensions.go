package smtp

import "bytes"

// Extensions are the service extensions that a remote server offered, of those that Client or its users make use of.
type Extensions uint16

const (
	ExtPipelining    Extensions = 1 << iota // RFC 2920
	ExtSize                                 // RFC 1870
	Ext8BitMIME                             // RFC 6152
	ExtSMTPUTF8                             // RFC 6531
	ExtEnhancedCodes                        // RFC 2034
	ExtDSN                                  // RFC 3461
	ExtStartTLS                             // RFC 3207
	ExtChunking                             // RFC 3030
	ExtBinaryMIME                           // RFC 3030
	ExtRequireTLS                           // RFC 8689
	ExtDeliverBy                            // RFC 2852
	ExtPriority                             // RFC 6710
	ExtAuth                                 // RFC 4954, with whatever mechanism
)

// Has reports whether all of want were offered.
func (e Extensions) Has(want Extensions) bool { return e&want == want }

// keywords are the EHLO keywords of the extensions.
var keywords = [...]struct {
	name string
	ext  Extensions
}{
	{"PIPELINING", ExtPipelining}, {"SIZE", ExtSize}, {"8BITMIME", Ext8BitMIME}, {"SMTPUTF8", ExtSMTPUTF8}, {"ENHANCEDSTATUSCODES", ExtEnhancedCodes},
	{"DSN", ExtDSN}, {"STARTTLS", ExtStartTLS}, {"CHUNKING", ExtChunking}, {"BINARYMIME", ExtBinaryMIME}, {"REQUIRETLS", ExtRequireTLS},
	{"DELIVERBY", ExtDeliverBy}, {"MT-PRIORITY", ExtPriority}, {"AUTH", ExtAuth},
}

// Limits are what a server said it takes at most. 0 = it named no limit. RFC 9422 §4
type Limits struct {
	Messages   int // MAILMAX: transactions of a session
	Recipients int // RCPTMAX: RCPT commands of a transaction
	Domains    int // RCPTDOMAINMAX: different domains of recipients in a session
}

// offer is the answer to EHLO.
type offer struct {
	ext       Extensions
	maxSize   int64 // 0 where the server names none
	limits    Limits
	deliverBy int64 // the least BY of a message that is to be returned, in seconds; 0 where the server names none
	sasl      SASL  // mechanisms of AUTH
}

// parseOffer reads the text of the answer to EHLO: a greeting, then one keyword a line with its parameters. RFC 5321 §4.1.1.1.
func parseOffer(text []byte) (o offer) {
	_, text, _ = bytes.Cut(text, lfByte)
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, lfByte)
		keyword, param, _ := bytes.Cut(trimSpaces(line), spaceByte)
		param = trimSpaces(param)
		if equalFold(keyword, "LIMITS") {
			o.limits.parse(param)
			continue
		}
		for i := range keywords {
			if !equalFold(keyword, keywords[i].name) {
				continue
			}
			switch o.ext |= keywords[i].ext; keywords[i].ext {
			case ExtSize:
				o.maxSize, _ = parseSize(param)
			case ExtAuth:
				o.sasl |= parseSASL(param)
			case ExtDeliverBy: // RFC 2852 §2: a list of options, of which the first is the minimum
				least, _, _ := bytes.Cut(param, comma)
				o.deliverBy = parseShort(least, maxByDigits)
			}
			break
		}
	}
	return o
}

// parse reads "NAME=value NAME=value". What is not known, or not valid, limits nothing. RFC 9422 §3
func (l *Limits) parse(params []byte) {
	for len(params) > 0 {
		var word []byte
		word, params = cutWord(params)
		name, value, _ := bytes.Cut(word, equalsSign)
		n := int(parseShort(value, maxLimitDigits))
		switch {
		case n == 0:
		case equalFold(name, "MAILMAX"):
			l.Messages = n
		case equalFold(name, "RCPTMAX"):
			l.Recipients = n
		case equalFold(name, "RCPTDOMAINMAX"):
			l.Domains = n
		}
	}
}

const (
	maxLimitDigits = 6 // of a value in LIMITS, RFC 9422 §3
	maxByDigits    = 9 // of a number of seconds in DELIVERBY and BY, RFC 2852 §3
)

// parseShort reads at most so many digits; anything else is 0.
func parseShort(b []byte, digits int) int64 {
	if len(b) > digits {
		return 0
	}
	n, _ := parseSize(b)
	return n
}

var (
	lfByte    = []byte{'\n'}
	spaceByte = []byte{' '}
)
