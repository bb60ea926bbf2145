package smtp

// Defaults of ServerConfig. RFC 5321 §4.5.3.1 asks for at least 512 octets of command line and 100 recipients.
const (
	DefaultMaxSize       = 50 << 20 // octets of content
	DefaultMaxRecipients = 1000     // accepted recipients of a transaction
	DefaultMaxLine       = 2048     // octets of a command line with its CRLF
	DefaultMaxErrors     = 20       // protocol errors since the last accepted message
	DefaultMaxCommands   = 100      // commands that carry no mail (NOOP, RSET, EHLO …) since the last accepted message
)

// maxAuthLine is the most octets of a line of AUTH, the command or a response, with its CRLF. RFC 4954 §4.5
const maxAuthLine = 12288

// recipientOvershoot is how many recipients over the limit are refused before each further one counts as a protocol error.
const recipientOvershoot = 1000

// Bounds of chunks (BDAT). So many of a transaction may be of any size; beyond that the content must have come to smallChunk octets for each on
// the average. A refused chunk of more than drainedChunk octets is not waited for.
const (
	smallChunks  = 1000
	smallChunk   = 1 << 10
	drainedChunk = 1 << 30
)

// Limits of addresses, in octets. RFC 5321 §4.5.3.1.1 to §4.5.3.1.3.
const (
	maxLocal  = 64
	maxDomain = 255
	maxLabel  = 63
	maxPath   = 256 // with the angle brackets and any source route
)

// Bounds of what a remote server may answer.
const (
	MaxReplyLines = 100  // lines of a reply
	MaxReplyLine  = 2048 // octets of a line of it with its line end
	maxReplyText  = 4096 // octets of text kept of a reply with several lines; what is beyond is dropped
)

// maxSentLine is the most octets of a reply line that AppendReply writes, with its CRLF. RFC 5321 §4.5.3.1.5.
const maxSentLine = 512

// maxSentEnhanced is the most octets of what should be an enhanced status code that AppendReply writes.
const maxSentEnhanced = 32

// keptOutput is the largest output buffer, in octets, that a machine keeps between flushes.
const keptOutput = 16 << 10

func orDefault[T int | int64](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
