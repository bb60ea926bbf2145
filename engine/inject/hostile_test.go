package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestHostileRows sends what attacks other doors through this one: it is refused with 400, and nothing of it is queued.
func TestHostileRows(t *testing.T) {
	n := newNode(t, func(o *Options) { o.MaxMessage = 1 << 20; o.MaxBody = 2 << 20 })
	type fields = map[string]any
	// letter is a good letter with other fields.
	letter := func(envelope, other fields) string {
		e := fields{"from": "s@shop.example", "to": []string{"a@far.example"}}
		all := fields{"envelope": e, "subject": "x", "text": "x"}
		for name, value := range envelope {
			e[name] = value
		}
		if other["raw"] != nil {
			delete(all, "subject")
			delete(all, "text")
		}
		for name, value := range other {
			all[name] = value
		}
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	to := func(address string) string { return letter(fields{"to": []string{address}}, nil) }
	for _, c := range []struct{ row, body string }{
		{"I1", to("a\rX: y@far.example")},
		{"I1", to("a\x7f@far.example")},
		{"I1", letter(fields{"from": "s\x00@shop.example"}, nil)},
		{"I2", to("\"a\r\nRCPT TO:<b\"@far.example")},
		{"I2", letter(nil, fields{"from": fields{"email": "s@shop.example", "name": "x\r\nBcc: y@far.example"}})},
		{"I2", letter(nil, fields{"subject": "x\nBcc: y@far.example"})},
		{"I2", letter(nil, fields{"headers": fields{"X-A": "x\r\n\r\nbody"}})},
		{"I2", letter(nil, fields{"attachments": []fields{{"filename": "x\r\nX-A: y", "content_type": "text/plain", "content": ""}}})},
		{"I2", letter(nil, fields{"attachments": []fields{{"filename": "x", "content_type": "text/plain\r\nX-A: y", "content": ""}}})},
		{"I4", letter(fields{"dsn": fields{"id": "x\r\nX-A: y"}}, nil)},
		{"I5", letter(fields{"dsn": fields{"id": "x\x00"}}, nil)},
		{"I6", letter(fields{"from": ";cmd;"}, nil)},
		{"I6", to("|cmd")},
		{"I14", letter(nil, fields{"subject": "x\x00y"})},
		{"I14", letter(nil, fields{"raw": "Subject: x\n\na\x00b"})},
		{"A2", to("@relay.example:a@far.example")},
		{"A2", to("a@far.example@shop.example")},
		{"A5", letter(fields{"dsn": fields{"notify": []string{"never", "delay"}}}, nil)},
		{"A12", letter(nil, fields{"to": strings.Repeat("(", 250_000) + "a@far.example"})},
		{"A12", letter(nil, fields{"headers": fields{"To": strings.Repeat("\"a\" <a@far.example>, ", 5000) + "(" + strings.Repeat("((", 100_000)}})},
		{"B12", letter(nil, fields{"raw": "X: " + strings.Repeat("y", 999) + "\n\nx"})},
		{"B13", letter(nil, fields{"text": strings.Repeat("y", 1<<20)})},
		{"B13", letter(nil, fields{"raw": "X: y\n\n" + strings.Repeat("y\n", 1<<19)})},
	} {
		r, text := n.post("/v1/messages", "application/json", c.body)
		if r.StatusCode != 400 || len(n.mails) > 0 {
			t.Errorf("%s: %.100s: %d %.200s", c.row, c.body, r.StatusCode, text)
		}
		n.mails = nil
	}
	// What is harmless once it is written right.
	for _, c := range []struct{ row, body, has string }{
		{"I3", letter(nil, fields{"subject": "x\u760d\u760aBcc: y@far.example"}), "Subject: =?utf-8?q?x=E7=98=8D=E7=98=8ABcc:_y@far.example?=\r\n"},
		{"I15", letter(nil, fields{"text": "gr\u00fcn"}), "\r\n\r\ngr=C3=BCn\r\n"},
		{"I14", letter(nil, fields{"text": "a\x00b"}), "\r\n\r\na=00b\r\n"},
		{"A2", to("a%far.example@shop.example"), "To: <a%far.example@shop.example>\r\n"},
		{"S1", letter(nil, fields{"text": "a\n.\nb\r.\r\nMAIL FROM:<x@y.example>"}), "\r\n\r\na\r\n.\r\nb\r\n.\r\nMAIL FROM:<x@y.example>\r\n"},
		{"I11", letter(nil, fields{"from": fields{"email": "s@shop.example", "name": "a) <x@y.example>, \"b"}}), "From: \"a) <x@y.example>, \\\"b\" <s@shop.example>\r\n"},
	} {
		n.mails = nil
		if r, text := n.post("/v1/messages", "application/json", c.body); r.StatusCode != 200 || len(n.mails) != 1 || !bytes.Contains(n.mails[0].Content, []byte(c.has)) {
			t.Errorf("%s: %s: %d %s %q", c.row, c.body, r.StatusCode, text, fmt.Sprint(n.mails))
			continue
		}
		checkWire(t, n.mails[0].Content)
	}
}
