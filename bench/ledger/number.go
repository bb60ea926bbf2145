// Package ledger numbers the messages of a bench run and accounts for every one of them: the generator notes what was acknowledged, the
// sink what arrived, and the comparison of both tells exactly how many were lost, doubled or altered on the way through any MTA.
//
// A numbered message says who it is in two header lines of its own:
//
//	Message-ID: <mr-0123456789abcdef.000000000042@bench.mailrace>
//	X-Mailrace-Bench: 2 recipients=0001 stream=000017 crc32c=89abcdef
//
// The first names the run and the number in it. The second says how many recipients the message was sent to, and over which connection of the
// generator, its stream: on one of them numbers rise. The checksum covers every octet behind that line, to the end of the content, and then the
// run, the number, the recipients and the stream; so an MTA may add trace headers in front, and any other change shows.
package ledger

import (
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strconv"

	"mailrace/proto/smtp"
)

// RunID tells the messages of one run from those of another. It prints as 16 hexadecimal digits.
type RunID uint64

// NewRunID returns a random one.
func NewRunID() RunID { return RunID(rand.Uint64()) }

func (r RunID) String() string { return fmt.Sprintf("%016x", uint64(r)) }

// MarshalText prints the run for JSON, as a value or as a key.
func (r RunID) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads 16 hexadecimal digits.
func (r *RunID) UnmarshalText(b []byte) error {
	v, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || len(b) != runDigits {
		return fmt.Errorf("%q is no run id: want %d hexadecimal digits", b, runDigits)
	}
	*r = RunID(v)
	return nil
}

const (
	runDigits    = 16
	numberDigits = 12
	markDigits   = runDigits + 1 + numberDigits // "run.number"

	rcptDigits   = 4
	streamDigits = 6

	idPrefix    = "Message-ID: <mr-"
	idSuffix    = "@bench.mailrace>\r\n"
	proofPrefix = "X-Mailrace-Bench: 2 recipients="
	proofStream = " stream="
	proofMiddle = " crc32c="

	// MaxRecipients is how many recipients a numbered message can have.
	MaxRecipients = 9999
	// Streams is how many streams of a run are told apart.
	Streams = 1_000_000
	// MaxNumber is the highest number of a message.
	MaxNumber = 999_999_999_999
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// putNumber writes n to b in decimal, filling all of b.
func putNumber(b []byte, n uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

// parseNumber reads decimal digits, all of b.
func parseNumber(b []byte) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// putHex writes the 8 digits of v to b.
func putHex(b []byte, v uint32) {
	var raw [4]byte
	raw[0], raw[1], raw[2], raw[3] = byte(v>>24), byte(v>>16), byte(v>>8), byte(v)
	hex.Encode(b[:8], raw[:])
}

// AppendLocalPart appends the local-part of the recipient with the given index in its message, r<index>: the sink learns from it which
// of a message's recipients arrived.
func AppendLocalPart(dst []byte, index int) []byte {
	return strconv.AppendInt(append(dst, 'r'), int64(index), 10)
}

// RecipientIndex reads what AppendLocalPart wrote, or returns -1.
func RecipientIndex(local []byte) int {
	if len(local) < 2 || len(local) > 5 || local[0] != 'r' {
		return -1
	}
	n, ok := parseNumber(local[1:])
	if !ok {
		return -1
	}
	return int(n)
}

// Shape is what the numbered messages of one template have in common.
type Shape struct {
	Run        RunID
	Size       int    // octets of content before dot-stuffing, at least MinSize of the same Shape
	Recipients int    // of each message, 1..MaxRecipients
	Sender     string // for the From header, "" for the null reverse-path
	Date       string // RFC 5322 date
	Dots       bool   // every fourth line of the body begins with a dot
}

// Template is a message on the wire, dot-stuffed and without the final dot, that is turned into the next one by patching digits in place.
type Template struct {
	wire    []byte
	size    int
	mark    int    // offset of "run.number" in wire
	stream  int    // offset of the stream's digits
	proof   int    // offset of the checksum's digits
	prefix  uint32 // checksum of what stands behind the proof line
	rcpts   []byte // digits of recipients
	patched int    // octets from the start of wire that Number may change
}

// ErrSize is returned for a Size that does not hold the headers.
var ErrSize = errors.New("message size too small")

// NewTemplate makes the template of a shape.
func NewTemplate(s Shape) (*Template, error) {
	if s.Recipients < 1 || s.Recipients > MaxRecipients {
		return nil, fmt.Errorf("%d recipients per message: want 1..%d", s.Recipients, MaxRecipients)
	}
	t := &Template{mark: len(idPrefix)}
	w := append([]byte(nil), idPrefix...)
	t.rcpts = fmt.Appendf(nil, "%0*d", rcptDigits, s.Recipients)
	w = fmt.Appendf(w, "%v.%0*d%s%s%s%s", s.Run, numberDigits, 0, idSuffix, proofPrefix, t.rcpts, proofStream)
	t.stream = len(w)
	w = fmt.Appendf(w, "%0*d%s", streamDigits, 0, proofMiddle)
	t.proof = len(w)
	w = append(w, "00000000\r\n"...)
	t.patched = len(w)
	from := s.Sender
	if from == "" {
		from = "MAILER-DAEMON"
	}
	w = fmt.Appendf(w, "Date: %s\r\nFrom: <%s>\r\nTo: undisclosed-recipients:;\r\nSubject: Mailrace bench\r\n\r\n", s.Date, from)
	if s.Size < len(w)+2 {
		return nil, fmt.Errorf("%d octets: %w, its headers take %d", s.Size, ErrSize, len(w)+2)
	}
	w = appendBody(w, s.Size-len(w), s.Dots)
	t.size = len(w)
	t.prefix = crc32.Update(0, castagnoli, w[t.patched:])
	t.wire = w[:t.patched:t.patched]
	t.wire, _ = smtp.AppendStuffed(w[:t.patched:t.patched], w[t.patched:], true)
	t.Number(0, 0)
	return t, nil
}

// appendBody appends n octets of lines, at most 76 characters and CRLF each, of letters that do not compress well.
func appendBody(dst []byte, n int, dots bool) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	rng := rand.New(rand.NewPCG(1, 2))
	for line := 0; n > 0; line++ {
		width := min(n, 78) - 2
		if rest := n - width - 2; rest == 1 { // no line is shorter than its CRLF
			width--
		}
		n -= width + 2
		for i := range width {
			c := letters[rng.IntN(len(letters))]
			if i == 0 && dots && line%4 == 0 {
				c = '.'
			}
			dst = append(dst, c)
		}
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// Number turns the template into message n of a stream, 0..Streams-1, and returns its wire octets, valid until the next call.
func (t *Template) Number(n uint64, stream int) []byte {
	mark, of := t.wire[t.mark:t.mark+markDigits], t.wire[t.stream:t.stream+streamDigits]
	putNumber(mark[runDigits+1:], n)
	putNumber(of, uint64(stream))
	sum := crc32.Update(crc32.Update(crc32.Update(t.prefix, castagnoli, mark), castagnoli, t.rcpts), castagnoli, of)
	putHex(t.wire[t.proof:], sum)
	return t.wire
}

// Size is the octets of content before dot-stuffing.
func (t *Template) Size() int { return t.size }

// Constant returns the wire octets from offset on, which must be behind what Number changes.
func (t *Template) Constant(offset int) []byte {
	if offset < t.patched {
		panic("ledger: this part of a message changes with its number")
	}
	return t.wire[offset:]
}
