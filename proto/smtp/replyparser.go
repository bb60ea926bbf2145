package smtp

import (
	"bytes"
	"errors"
)

// What ReplyParser refuses. None of them is an answer: a delivery that meets one is deferred.
var (
	// ErrReplySyntax: a line that does not begin with a code of 200 to 599 and a space, a hyphen or its end.
	ErrReplySyntax = errors.New("malformed reply")
	// ErrReplyCode: lines of one reply with different codes.
	ErrReplyCode = errors.New("reply lines differ in code")
	// ErrReplyLong: a line over MaxReplyLine octets, or more than MaxReplyLines lines.
	ErrReplyLong = errors.New("reply too long")
)

// ReplyView is a reply as the remote server gave it. Its slices hold until the next Parse or Feed; they may hold any octet but LF, so what
// leaves this process goes through AppendLine.
type ReplyView struct {
	Code     int    // 200 to 599
	Enhanced []byte // such as "5.1.1", of the first line; empty where there is none or its class is not that of the code
	Text     []byte // without codes; lines are parted by LF. Of a reply with several lines at most 4096 octets
}

// maxShownReply is the most octets of text that AppendLine writes.
const maxShownReply = 500

// AppendLine appends the reply as one printable ASCII line, such as "550 5.1.1 no such user", cut at about 500 octets, fit for logs and
// DSNs.
func (v *ReplyView) AppendLine(dst []byte) []byte {
	dst = append(dst, byte('0'+v.Code/100%10), byte('0'+v.Code/10%10), byte('0'+v.Code%10))
	if len(v.Enhanced) > 0 {
		dst = append(append(dst, ' '), v.Enhanced...)
	}
	if len(v.Text) > 0 {
		dst = append(dst, ' ')
	}
	for _, c := range v.Text[:min(len(v.Text), maxShownReply)] {
		switch {
		case c == '\n' || c == '\t':
			c = ' '
		case c < ' ' || c > '~':
			c = '?'
		}
		dst = append(dst, c)
	}
	return dst
}

func (v *ReplyView) String() string { return string(v.AppendLine(nil)) }

// ReplyParser reads replies (RFC 5321 §4.2) within bounds: MaxReplyLines lines of MaxReplyLine octets. Lines may end in LF alone. The zero
// ReplyParser is ready for use; it belongs to one goroutine at a time.
type ReplyParser struct {
	view     ReplyView
	lines    int     // lines read of an unfinished reply
	enhanced [9]byte // backs view.Enhanced in a reply of several lines
	text     []byte  // backs view.Text in a reply of several lines
}

// Reply is the reply that Parse found. Its slices hold until the next Parse.
func (r *ReplyParser) Reply() *ReplyView { return &r.view }

// Reset forgets an unfinished reply.
func (r *ReplyParser) Reset() { r.view, r.lines, r.text = ReplyView{}, 0, r.text[:0] }

// Parse reads from p up to the end of one reply. It returns how many octets are used up, and whether a reply is complete. What is left
// without one is an unfinished line, to be presented again with more behind it. After an error the connection is of no use.
func (r *ReplyParser) Parse(p []byte) (n int, done bool, err error) {
	for {
		line := p[n:]
		if len(line) > MaxReplyLine {
			line = line[:MaxReplyLine]
		}
		lf := bytes.IndexByte(line, '\n')
		if lf < 0 {
			if len(line) == MaxReplyLine {
				return n, false, ErrReplyLong
			}
			return n, false, nil
		}
		n += lf + 1
		line = line[:lf]
		if lf > 0 && line[lf-1] == '\r' {
			line = line[:lf-1]
		}
		if done, err = r.readLine(line); done || err != nil {
			return n, done, err
		}
	}
}

// readLine takes one line, without its end, and reports whether it is the last of its reply.
func (r *ReplyParser) readLine(line []byte) (last bool, err error) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9' {
		return false, ErrReplySyntax
	}
	code := int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	text := line[3:]
	last = true
	if len(text) > 0 {
		if text[0] != ' ' && text[0] != '-' {
			return false, ErrReplySyntax
		}
		last = text[0] == ' '
		text = text[1:]
	}
	enhanced, text := cutEnhanced(text, line[0])
	if r.lines == 0 && last {
		r.view = ReplyView{Code: code, Enhanced: enhanced, Text: text}
		return true, nil
	}
	if r.lines == 0 {
		r.text = r.text[:0]
		r.view = ReplyView{Code: code, Enhanced: r.enhanced[:copy(r.enhanced[:], enhanced)]}
	} else {
		r.text = append(r.text, '\n')
	}
	if r.lines++; code != r.view.Code {
		return false, ErrReplyCode
	} else if r.lines > MaxReplyLines {
		return false, ErrReplyLong
	}
	r.text = append(r.text, text[:min(len(text), max(0, maxReplyText-len(r.text)))]...)
	if last {
		r.lines = 0
		r.view.Text = r.text
	}
	return last, nil
}

// cutEnhanced parts an enhanced status code of the given class from the text behind it. RFC 2034 §4, RFC 3463 §2.
func cutEnhanced(text []byte, class byte) (enhanced, rest []byte) {
	if len(text) < 5 || text[0] != class || text[1] != '.' {
		return nil, text
	}
	i := skipDigits(text, 2)
	if i == 2 || i == len(text) || text[i] != '.' {
		return nil, text
	}
	end := skipDigits(text, i+1)
	switch {
	case end == i+1:
		return nil, text
	case end == len(text):
		return text, nil
	case text[end] != ' ':
		return nil, text
	}
	return text[:end], text[end+1:]
}

// skipDigits returns the index behind at most three digits that begin at i.
func skipDigits(b []byte, i int) int {
	for end := min(i+3, len(b)); i < end && b[i] >= '0' && b[i] <= '9'; i++ {
	}
	return i
}
