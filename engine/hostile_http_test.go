package engine

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"mailrace/engine/config"
)

// TestB15InjectionCutOff cuts a request that injects a message off behind every octet, with and without a reset, with its length announced and in
// chunks: nothing is kept of it. Cut in two segments instead, it is one message.
func TestB15InjectionCutOff(t *testing.T) {
	t.Parallel()
	c := injecting(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Spool.Sync = false
	r := start(t, c)
	const letter = `{"envelope":{"from":"s@shop.example","to":["a@far.example"]},"raw":"Subject: x\r\n\r\n.\r\nMAIL FROM:<evil@shop.example>\r\n"}`
	const head = "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
	kept := 0
	for form, request := range map[string]string{
		"length": head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(letter), letter),
		"chunks": head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 20, letter[:20], len(letter)-20, letter[20:]),
	} {
		for cut := 1; cut < len(request); cut++ {
			whole := r.postCut(request, cut, len(request))
			if kept++; !strings.HasPrefix(whole, "HTTP/1.1 200 ") {
				t.Fatalf("%s, in two behind %d octets: %q", form, cut, whole)
			}
			if form == "chunks" && cut > len(request)-len("0\r\n\r\n") {
				continue // the message is whole: an answer is as good as none
			}
			if part := r.postCut(request, 0, cut); strings.HasPrefix(part, "HTTP/1.1 2") {
				t.Fatalf("%s, cut off behind %d octets: %q", form, cut, part)
			}
		}
	}
	r.awaitEmpty()
	if n := len(r.records("reception")); n != kept {
		t.Errorf("%d messages were kept, of %d that were sent to their end", n, kept)
	}
}

// postCut sends the first octets of a request in two segments, ends its side, and returns what is answered.
func (r *rig) postCut(request string, cut, end int) string {
	r.t.Helper()
	conn := connect(r.t, r.AdminAddr().String())
	defer conn.Close()
	_, _ = io.WriteString(conn, request[:cut])
	_, _ = io.WriteString(conn, request[cut:end])
	if end < len(request) && end%2 == 0 {
		_ = conn.Conn.(*net.TCPConn).SetLinger(0)
		return ""
	}
	if end < len(request) {
		_ = conn.Conn.(*net.TCPConn).CloseWrite()
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}
