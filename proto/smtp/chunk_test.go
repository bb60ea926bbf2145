package smtp

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// begun is a transaction that waits for its content.
const begun = hello + "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"

// begunBinary is one of binary content.
const begunBinary = hello + "MAIL FROM:<a@a.example> BODY=BINARYMIME\r\nRCPT TO:<b@b.example>\r\n"

// inChunks is content as a client with CHUNKING sends it, in chunks of random sizes.
func inChunks(content string, random *rand.Rand) string {
	var b strings.Builder
	for random.IntN(4) > 0 {
		n := random.IntN(len(content) + 1)
		fmt.Fprintf(&b, "BDAT %d\r\n%s", n, content[:n])
		content = content[n:]
	}
	fmt.Fprintf(&b, "BDAT %d LAST\r\n%s", len(content), content)
	return b.String()
}

// byData is content as a client without CHUNKING sends it.
func byData(content string) string {
	stuffed, bol := AppendStuffed([]byte("DATA\r\n"), []byte(content), true)
	if !bol {
		stuffed = append(stuffed, "\r\n"...)
	}
	return string(stuffed) + ".\r\n"
}

// FuzzChunks: content that comes in chunks and content that comes by DATA are the same message, or are both refused.
func FuzzChunks(f *testing.F) {
	for seed, content := range []string{"", ".", "x", ".\r\n", "a\r\n.\r\n..b\r\n", "no end", "a\rb", "a\nb", "a\x00b", "\n", "\r", "\r\n\r", "a\r\r\nb"} {
		f.Add(content, uint64(seed))
	}
	f.Fuzz(func(t *testing.T, content string, seed uint64) {
		cfg := &ServerConfig{Hostname: "mx.example.com", MaxSize: 500, MaxErrors: 1000}
		chunked := begun + inChunks(content, rand.New(rand.NewPCG(seed, 0)))
		got, want := converseAnyhow(t, cfg, chunked), converseAnyhow(t, cfg, begun+byData(content))
		if got.over || got.s.InTransaction() {
			t.Fatalf("%q: over %v", chunked, got.over)
		}
		if a, b := fmt.Sprint(got.events), fmt.Sprint(want.events); want.has("EndOfData") != got.has("EndOfData") || want.has("EndOfData") && a != b {
			t.Fatalf("in chunks %s\nby DATA  %s", a, b)
		}
		if !got.has("EndOfData") && !strings.Contains(string(got.replies), "\r\n55") {
			t.Fatalf("%q: %s", chunked, got.replies)
		}
	})
}

// TestTake: however content is cut, Take comes to the verdict of the decoder that is written to be read.
func TestTake(t *testing.T) {
	const alphabet = "a.\r\n\x00"
	for n := range 6 {
		count := 1
		for range n {
			count *= len(alphabet)
		}
		for i := range count {
			content := make([]byte, n)
			for j := range content {
				content[j] = alphabet[i%len(alphabet)]
				i /= len(alphabet)
			}
			want := decodeSlowly(byData(string(content))[len("DATA\r\n"):])
			for cut := range n + 1 {
				var d Decoder
				d.Reset()
				ok := d.Take(content[:cut]) && d.Take(content[cut:]) && !d.cr
				if ok != (want.found == DecodedEnd) || ok && (d.LeadingDots() != want.dots || d.Size() != int64(n) || d.bol != (n == 0 || content[n-1] == '\n')) {
					t.Fatalf("%q cut at %d: %v, %+v, want %v", content, cut, ok, d, want)
				}
			}
		}
	}
}

// TestSmugglingInChunks: what ends the content of DATA, or seems to, is content in a chunk, and refused where it is no line.
func TestSmugglingInChunks(t *testing.T) {
	for id, sequence := range map[string]string{
		"S1": "\n.\n", "S2": "\n.\r", "S3": "\r.\n", "S4": "\r.\r", "S5": "\n.\r\n", "S6": "\r.\r\n", "S7": "\r\n.\n", "S8": "\r\n.\r",
		"S9": "\r\n\x00.\r\n", "S10": "\r\n.\x00\r\n", "S11": "\r\n.\r\r\n", "S12": "\r\r\n.\r\n", "S13": "\r\r\n.\r\r\n", "legal": "\r\n.\r\n",
	} {
		t.Run(id, func(t *testing.T) {
			content := "text" + sequence + smuggled
			c := converseAnyhow(t, hostileConfig, fmt.Sprintf("%sBDAT %d LAST\r\n%sNOOP\r\n", begun, len(content), content))
			if c.has(`Mail "evil`) || c.over || c.last() != "250 2.0.0 Ok" {
				t.Errorf("events %q, replies %s", c.events, c.replies)
			}
			if taken := c.has("EndOfData"); taken != (id == "legal") || taken == strings.Contains(string(c.replies), "550 5.6.0") {
				t.Errorf("events %q, replies %s", c.events, c.replies)
			}
			c = converseAnyhow(t, hostileConfig, fmt.Sprintf("%sBDAT %d LAST\r\n%sNOOP\r\n", begunBinary, len(content), content))
			if c.has(`Mail "evil`) || c.over || c.last() != "250 2.0.0 Ok" || !c.has(fmt.Sprintf("EndOfData size=%d dots=false %q", len(content), content)) {
				t.Errorf("BINARYMIME: events %q, replies %s", c.events, c.replies)
			}
		})
	}
}

// TestBinaryForOneMessage: what was declared for a message holds for no other, however that one ends, and never for DATA.
func TestBinaryForOneMessage(t *testing.T) {
	for name, between := range map[string]string{
		"taken": "BDAT 3 LAST\r\na\nb", "refused at its end": "BDAT 5 LAST\r\nspam\n", "too large": "BDAT 1001 LAST\r\n" + strings.Repeat("\n", 1001),
		"RSET": "RSET\r\n", "RSET between chunks": "BDAT 1\r\n\nRSET\r\n", "EHLO": hello, "DATA": "DATA\r\nRSET\r\n", "nobody": "RSET\r\nDATA\r\n",
	} {
		small := &ServerConfig{Hostname: "mx.example.com", MaxSize: 1000}
		c := converseAnyhow(t, small, begunBinary+between+envelope+"text\r\n.\r\n"+strings.TrimPrefix(begun, hello)+"BDAT 3 LAST\r\na\nb")
		if !c.has(`EndOfData size=6 dots=false "text\r\n"`) || !strings.HasPrefix(c.last(), "550 5.6.0 ") || c.over {
			t.Errorf("%s: events %q, replies %s", name, c.events, c.replies)
		}
	}
}

// TestB1FailedBDATThenData: however a chunk fails, the next transaction starts from nothing.
func TestB1FailedBDATThenData(t *testing.T) {
	small := &ServerConfig{Hostname: "mx.example.com", MaxSize: 10}
	for name, input := range map[string]string{
		"without MAIL":     hello + "BDAT 5 LAST\r\nNOOP\n",
		"without RCPT":     hello + "MAIL FROM:<a@a.example>\r\nBDAT 5 LAST\r\nNOOP\n",
		"too large":        begun + "BDAT 11 LAST\r\nNOOP\r\nRSET\n",
		"bare LF":          begun + "BDAT 2\r\n\n\n",
		"bare CR at end":   begun + "BDAT 2 LAST\r\na\r",
		"refused at end":   begun + "BDAT 6 LAST\r\nspam\r\n",
		"second too large": begun + "BDAT 6\r\nspam\r\nBDAT 5\r\n12345",
		"accepted":         begun + "BDAT 6 LAST\r\ngood\r\n",
	} {
		c := converseAnyhow(t, small, input+"RCPT TO:<b@b.example>\r\nDATA\r\nBDAT 3 LAST\r\nx\r\n")
		if !strings.HasSuffix(string(c.replies), strings.Repeat("503 5.5.1 Bad sequence of commands\r\n", 3)) || c.open || c.s.InTransaction() {
			t.Errorf("%s: %q\n%s", name, c.events, c.replies)
		}
	}
}

// TestB4ChunkFlood: chunks that carry next to nothing come to an end.
func TestB4ChunkFlood(t *testing.T) {
	for _, chunk := range []string{"BDAT 0\r\n", "BDAT 1\r\nx"} {
		c := converse(t, hostileConfig, begun+strings.Repeat(chunk, 5000), randomly)
		if got := strings.Count(string(c.replies), "250 2.0.0 Ok"); got != smallChunks || c.last() != "421 4.7.0 Too many small chunks" || c.open {
			t.Errorf("%q: %d taken, %q", chunk, got, c.last())
		}
		c = converse(t, hostileConfig, hello+strings.Repeat(chunk, 5000), whole)
		if c.last() != "421 4.7.0 Too many errors" {
			t.Errorf("%q without a transaction: %q", chunk, c.last())
		}
	}
	c := converse(t, hostileConfig, begun+strings.Repeat("BDAT 1024\r\n"+strings.Repeat("x", 1022)+"\r\n", 3000)+"BDAT 0 LAST\r\n", whole)
	if !c.has("EndOfData size=3072000") {
		t.Errorf("%q", c.last())
	}
}

// TestB5OctetsAreConsumedExactly: whatever a chunk holds, and whether it is kept or not, the next command stands behind its last octet.
func TestB5OctetsAreConsumedExactly(t *testing.T) {
	for _, before := range []string{begun, hello, hello + "MAIL FROM:<a@a.example>\r\n"} {
		for _, content := range []string{".\r\n", ".", "\r\n.\r\nQUIT\r\n", "a\nQUIT\r\n", strings.Repeat("QUIT\r\n", 5000)} {
			for _, last := range []string{"", " LAST"} {
				c := converseAnyhow(t, hostileConfig, fmt.Sprintf("%sBDAT %d%s\r\n%sVRFY x\r\n", before, len(content), last, content))
				if !strings.HasPrefix(c.last(), "252") || c.over {
					t.Errorf("%.20q%s: %q", content, last, c.last())
				}
			}
		}
	}
}

// TestB6ChunkSizes: sizes that no content has.
func TestB6ChunkSizes(t *testing.T) {
	for size, reply := range map[string]string{
		"18446744073709551615": "552 5.3.4", "9223372036854775807 LAST": "552 5.3.4", "99999999999999999999": "552 5.3.4",
		"100000000000000000000": "501 5.5.4", "-1": "501 5.5.4", "+1": "501 5.5.4", "1 LAST X": "501 5.5.4", "1 FIRST": "501 5.5.4", "": "501 5.5.4",
		"0x10": "501 5.5.4", "LAST": "501 5.5.4", "1\x01": "501 5.5.4", "\x00": "501 5.5.4",
	} {
		c := converseAnyhow(t, hostileConfig, begun+"BDAT "+size+"\r\n"+smuggled)
		if !strings.HasPrefix(c.last(), reply) || !c.over || c.open || c.has(`Mail "evil`) {
			t.Errorf("BDAT %s: %q, %q", size, c.events, c.last())
		}
	}
	const size = 1_000_000_000
	c := converse(t, hostileConfig, begun+"BDAT "+strconv.Itoa(size)+" LAST\r\n", whole)
	for range size / (1 << 20) {
		c.feed(string(make([]byte, 1<<10)))
	}
	if strings.Contains(string(c.replies), "552") || !c.has("Reset") || c.over {
		t.Errorf("answered before its end: %q", c.last())
	}
	for _, empty := range []string{"BDAT 0 LAST\r\n", "BDAT 0\r\nBDAT 00 LAST\r\n"} {
		if c := converseAnyhow(t, hostileConfig, begun+empty); !c.has(`EndOfData size=0 dots=false ""`) {
			t.Errorf("%q: %q", empty, c.events)
		}
	}
}

// TestB7Mixing: chunks, DATA and recipients keep their order, and a transaction ends once.
func TestB7Mixing(t *testing.T) {
	chunk := "BDAT 3\r\nx\r\n"
	refusedLines(t, begun+chunk, map[string]string{"DATA\r\n": "503 5.5.1", "RCPT TO:<c@b.example>\r\n": "503 5.5.1", "MAIL FROM:<c@a.example>\r\n": "503 5.5.1"})
	refusedLines(t, begun+"BDAT 3 LAST\r\nx\r\n", map[string]string{"BDAT 3 LAST\r\nx\r\n": "503 5.5.1", "BDAT 0\r\n": "503 5.5.1", "DATA\r\n": "503 5.5.1"})
	c := converseAnyhow(t, hostileConfig, begun+chunk+"DATA\r\nBDAT 0 LAST\r\n"+envelope+"y\r\n.\r\n")
	if !c.has(`EndOfData size=3 dots=false "x\r\n"`) || !c.has(`EndOfData size=3 dots=false "y\r\n"`) {
		t.Errorf("%q", c.events)
	}
}

// TestB8ChunkForNobody takes the octets first.
func TestB8ChunkForNobody(t *testing.T) {
	refusedLines(t, hello, map[string]string{"BDAT 6 LAST\r\nQUIT\r\n": "503 5.5.1"})
	c := converseAnyhow(t, hostileConfig, hello+"MAIL FROM:<a@a.example>\r\nRCPT TO:<refused@b.example>\r\nBDAT 6 LAST\r\nQUIT\r\n")
	if c.last() != "554 5.5.1 No valid recipients" || c.events[len(c.events)-1] != "Reset" {
		t.Errorf("%q, %q", c.events, c.last())
	}
}

// TestRefuseFirstChunk: a refusal of Data waits for the octets of the chunk, but for 421.
func TestRefuseFirstChunk(t *testing.T) {
	for code, want := range map[int]string{451: "451 4.3.1 Full\r\n250 2.0.0 Ok\r\n", 421: "421 4.3.1 Full\r\n"} {
		s := greetedServer()
		p := []byte(chunkedCommands + "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
		for {
			n, ev := s.Feed(p)
			p = p[n:]
			if ev == Data {
				s.Flushed()
				s.Refuse(Reply{code, "4.3.1", "Full"})
			} else if ev == NeedInput || ev == Close {
				break
			} else {
				s.Accept()
			}
		}
		if string(s.Pending()) != want || s.InTransaction() {
			t.Errorf("%d: %q", code, s.Pending())
		}
	}
}
