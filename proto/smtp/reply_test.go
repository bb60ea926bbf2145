package smtp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestAppendReply(t *testing.T) {
	for _, tc := range []struct {
		r    Reply
		want string
	}{
		{Reply{250, "2.1.0", "Ok"}, "250 2.1.0 Ok\r\n"},
		{Reply{250, "", "mx.example.com"}, "250 mx.example.com\r\n"},
		{Reply{550, "5.7.1", ""}, "550 5.7.1\r\n"},
		{Reply{550, "", ""}, "550\r\n"},
		{Reply{550, "5.7.1", "one\ntwo\r\nthree"}, "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n"},
		{Reply{550, "", "\n"}, "550-\r\n550\r\n"},
		{Reply{550, "5.7.1\r\n250", "a\rb\x00\x1b\x7fü"}, "550 5.7.1??250 a?b?????\r\n"},
		{Reply{99, "2.0.0", "x"}, "451 4.3.0 x\r\n"},
		{Reply{1250, "", "x"}, "451 4.3.0 x\r\n"},
		{Reply{450, "4.2.1", strings.Repeat("x", 600)}, "450 4.2.1 " + strings.Repeat("x", 500) + "\r\n"},
	} {
		if got := string(AppendReply(nil, tc.r)); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.r, got, tc.want)
		}
	}
}

// parsed is what came of one Parse.
type parsed struct {
	code           int
	enhanced, text string
	err            error
}

// parseAll reads all replies of input, cut into pieces, up to an error or the end.
func parseAll(t testing.TB, r *ReplyParser, input string, cut func(left int) int) (all []parsed, held int) {
	var p []byte
	for len(input) > 0 {
		next := cut(len(input))
		p = append(p, input[:next]...)
		input = input[next:]
		for {
			presented := bytes.Clone(p)
			n, done, err := r.Parse(presented)
			p = p[n:]
			if err != nil {
				return append(all, parsed{err: err}), 0
			}
			if !done {
				break
			}
			v := r.Reply()
			all = append(all, parsed{v.Code, string(v.Enhanced), string(v.Text), nil})
			line := v.String()
			if len(line) > 600 || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Fatalf("shown as %q", line)
			}
			for i := range presented {
				presented[i] = '#'
			}
		}
		if len(p) >= MaxReplyLine {
			t.Fatalf("%d octets held", len(p))
		}
	}
	return all, len(p)
}

// checkParse parses input in all ways to cut it.
func checkParse(t testing.TB, input string) []parsed {
	t.Helper()
	var r ReplyParser
	want, _ := parseAll(t, &r, input, whole)
	for _, cut := range []func(int) int{bytewise, randomly, randomly} {
		r.Reset()
		if got, _ := parseAll(t, &r, input, cut); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%.300q:\n got %.500s\nwhole %.500s", input, fmt.Sprint(got), fmt.Sprint(want))
		}
	}
	return want
}

func TestReplyParser(t *testing.T) {
	x := strings.Repeat
	for _, tc := range []struct {
		name, input string
		want        []parsed
	}{
		{"plain", "250 Ok\r\n", []parsed{{250, "", "Ok", nil}}},
		{"enhanced", "250 2.1.5 Ok\r\n", []parsed{{250, "2.1.5", "Ok", nil}}},
		{"lf alone", "250 2.1.5 Ok\n354 go\n", []parsed{{250, "2.1.5", "Ok", nil}, {354, "", "go", nil}}},
		{"several lines", "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n", []parsed{{550, "5.7.1", "one\ntwo\nthree", nil}}},
		{"several lines, codes in one", "550-5.7.1 one\r\n550 two\r\n", []parsed{{550, "5.7.1", "one\ntwo", nil}}},
		{"several replies", "250 a\r\n550 b\r\n", []parsed{{250, "", "a", nil}, {550, "", "b", nil}}},
		{"I8 code alone", "250\r\n", []parsed{{250, "", "", nil}}},
		{"I8 code and space", "250 \r\n", []parsed{{250, "", "", nil}}},
		{"I8 enhanced alone", "550 5.7.2\r\n", []parsed{{550, "5.7.2", "", nil}}},
		{"I8 enhanced and space", "550 5.7.2 \r\n", []parsed{{550, "5.7.2", "", nil}}},
		{"I8 stale enhanced", "550 5.7.2 a\r\n550 b\r\n", []parsed{{550, "5.7.2", "a", nil}, {550, "", "b", nil}}},
		{"I8 stale enhanced, lines", "550-5.7.2 a\r\n550 b\r\n550-c\r\n550 d\r\n", []parsed{{550, "5.7.2", "a\nb", nil}, {550, "", "c\nd", nil}}},
		{"I8 hyphens without text", "250-\r\n250-\r\n250 \r\n", []parsed{{250, "", "\n\n", nil}}},
		{"I8 hyphens only", "250-\r\n250-\r\n", nil},
		{"I8 codes differ", "250-a\r\n550 b\r\n", []parsed{{err: ErrReplyCode}}},
		{"I8 class differs", "550 2.0.0 a\r\n", []parsed{{550, "", "2.0.0 a", nil}}},
		{"enhanced, odd", "550 5.7\r\n550 5.7.1x\r\n550 5..1\r\n550 5.7.\r\n550 5.1234.1 x\r\n550 5.123.456 x\r\n", []parsed{{550, "", "5.7", nil},
			{550, "", "5.7.1x", nil}, {550, "", "5..1", nil}, {550, "", "5.7.", nil}, {550, "", "5.1234.1 x", nil}, {550, "5.123.456", "x", nil}}},
		{"empty line", "\r\n", []parsed{{err: ErrReplySyntax}}},
		{"two digits", "25\r\n", []parsed{{err: ErrReplySyntax}}},
		{"no code", "hello there\r\n", []parsed{{err: ErrReplySyntax}}},
		{"code of 1", "150 x\r\n", []parsed{{err: ErrReplySyntax}}},
		{"code of 6", "650 x\r\n", []parsed{{err: ErrReplySyntax}}},
		{"no separator", "250x\r\n", []parsed{{err: ErrReplySyntax}}},
		{"tab", "250\tx\r\n", []parsed{{err: ErrReplySyntax}}},
		{"after a good one", "250 a\r\n\r\n", []parsed{{250, "", "a", nil}, {err: ErrReplySyntax}}},
		{"I7 line of the limit", "250 " + x("x", MaxReplyLine-6) + "\r\n", []parsed{{250, "", x("x", MaxReplyLine-6), nil}}},
		{"I7 line over the limit", "250 " + x("x", MaxReplyLine-5) + "\r\n", []parsed{{err: ErrReplyLong}}},
		{"I7 endless line", x("2", 100_000), []parsed{{err: ErrReplyLong}}},
		{"I7 100 lines", x("250-\r\n", 99) + "250 \r\n", []parsed{{250, "", x("\n", 99), nil}}},
		{"I7 101 lines", x("250-\r\n", 100) + "250 \r\n", []parsed{{err: ErrReplyLong}}},
		{"I7 endless lines", x("250-a\r\n", 10_000), []parsed{{err: ErrReplyLong}}},
		{"I7 much text", x("250-"+x("x", 2000)+"\r\n", 99) + "250 y\r\n", []parsed{{250, "", (x(x("x", 2000)+"\n", 2) + x("x", 94))[:maxReplyText] + x("\n", 97), nil}}},
		{"I7 line ends inside", "550 a\rb\x00c\r\n", []parsed{{550, "", "a\rb\x00c", nil}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := checkParse(t, tc.input); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got  %.300s\nwant %.300s", fmt.Sprint(got), fmt.Sprint(tc.want))
			}
		})
	}
}

func TestReplyIsShownInOnePrintableLine(t *testing.T) {
	var r ReplyParser
	if _, done, err := r.Parse([]byte("550-5.1.1 no\tsuch\r\n550-user\x00\x1b[m\r\n550 \xff\r\n")); !done || err != nil {
		t.Fatal(done, err)
	}
	if got := r.Reply().String(); got != "550 5.1.1 no such user??[m ?" {
		t.Errorf("%q", got)
	}
	if got := (&ReplyView{}).String(); got != "000" {
		t.Errorf("%q", got)
	}
}

func BenchmarkReplyParser(b *testing.B) {
	for _, bc := range []struct{ name, input string }{
		{"one-line", "250 2.1.5 Ok, queued as 0000000000001\r\n"},
		{"three-lines", "550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\r\n"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var r ReplyParser
			p := []byte(bc.input)
			b.ReportAllocs()
			for b.Loop() {
				if _, done, _ := r.Parse(p); !done {
					b.Fatal("not done")
				}
			}
		})
	}
}

func FuzzReplyParser(f *testing.F) {
	for _, seed := range []string{"250 2.1.5 Ok\r\n", "550-5.7.1 a\r\n550 5.7.1 b\r\n", "250-\r\n550 \r\n", "250\n", "4.4.4\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		for _, p := range checkParse(t, input) {
			if p.err == nil && (p.code < 200 || p.code > 599 || len(p.enhanced) > 9 || len(p.text) > maxReplyText+MaxReplyLines) {
				t.Fatalf("%+v", p)
			}
		}
	})
}

// FuzzAppendReply: whatever a reply is made of, what is sent parses as that one reply.
func FuzzAppendReply(f *testing.F) {
	f.Add(550, "5.7.1", "one\ntwo")
	f.Add(0, "\r\n", "\r\n250 x")
	f.Add(541, strings.Repeat("5", 2100), "one") // longer than any reader takes
	f.Fuzz(func(t *testing.T, code int, enhanced, text string) {
		if strings.Count(text, "\n") >= MaxReplyLines {
			return
		}
		wire := AppendReply(nil, Reply{code, enhanced, text})
		var r ReplyParser
		n, done, err := r.Parse(wire)
		if !done || n != len(wire) || err != nil && !errors.Is(err, ErrReplyLong) {
			t.Fatalf("%q: %d octets of %d, %v", wire, n, len(wire), err)
		}
	})
}
