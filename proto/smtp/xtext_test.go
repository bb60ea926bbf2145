package smtp

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// TestI4InjectionThroughXtext: what would be a control character once decoded is refused, whatever it is in.
func TestI4InjectionThroughXtext(t *testing.T) {
	mail, rcpt := map[string]string{}, map[string]string{}
	for c := range 256 {
		if c < ' ' || c > '~' {
			mail[fmt.Sprintf("MAIL FROM:<a@a> ENVID=x+%02XX\r\n", c)] = "501 5.5.4"
			rcpt[fmt.Sprintf("RCPT TO:<b@b> ORCPT=rfc822;a+%02xX\r\n", c)] = "501 5.5.4"
		}
	}
	refusedLines(t, hello, mail)
	refusedLines(t, hello+"MAIL FROM:<a@a>\r\n", rcpt)
}

// TestI5Xtext: malformed xtext is refused, and what is well formed comes back as it was.
func TestI5Xtext(t *testing.T) {
	refusedLines(t, hello, map[string]string{
		"MAIL FROM:<a@a> ENVID=+00\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=+\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=+4\r\n": "501 5.5.4",
		"MAIL FROM:<a@a> ENVID=+G0\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=a=b\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=\r\n": "501 5.5.4",
		"MAIL FROM:<a@a> ENVID\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=" + strings.Repeat("x", 101) + "\r\n": "501 5.5.4",
		"MAIL FROM:<a@a> ENVID=1 ENVID=1\r\n": "501 5.5.4", "MAIL FROM:<a@a> ENVID=\xc3\xbc SMTPUTF8\r\n": "501 5.5.4",
		"MAIL FROM:<a@a> RET=ALL\r\n": "501 5.5.4", "MAIL FROM:<a@a> RET\r\n": "501 5.5.4", "MAIL FROM:<a@a> RET=FULL RET=HDRS\r\n": "501 5.5.4",
	})
	const tooLong = "RCPT TO:<b@b> ORCPT=rfc822;"
	refusedLines(t, hello+"MAIL FROM:<a@a>\r\n", map[string]string{
		"RCPT TO:<b@b> ORCPT=rfc822;+00\r\n": "501 5.5.4", "RCPT TO:<b@b> ORCPT=b@b\r\n": "501 5.5.4", "RCPT TO:<b@b> ORCPT=rfc822;\r\n": "501 5.5.4",
		"RCPT TO:<b@b> ORCPT=;b@b\r\n": "501 5.5.4", "RCPT TO:<b@b> ORCPT=rfc(822);b@b\r\n": "501 5.5.4", "RCPT TO:<b@b> ORCPT\r\n": "501 5.5.4",
		"RCPT TO:<b@b> ORCPT=rfc822;b ORCPT=rfc822;b\r\n": "501 5.5.4", "RCPT TO:<b@b> ORCPT=utf-8;\xc3\xbc@b\r\n": "501 5.5.4",
		tooLong + strings.Repeat("x", 494) + "\r\n": "501 5.5.4", "RCPT TO:<b@b> NOTIFY=NEVER X=Y\r\n": "555 5.5.4",
	})
	for _, s := range []string{"", "a b", "+", "=", "++==", "!~", "\"quoted\"@x", "+41"} {
		encoded := AppendXtext(nil, s)
		if !validXtext(encoded) || string(AppendDecodedXtext(nil, encoded)) != s {
			t.Errorf("%q encoded is %q", s, encoded)
		}
	}
}

// TestWideOriginal: Postfix calls an address beyond ASCII rfc822, with the octets of its UTF-8 in xtext. It is taken in the form of RFC 6533.
func TestWideOriginal(t *testing.T) {
	for given, want := range map[string]string{
		"rfc822;+C3+B6@far.example":                 `utf-8;\x{F6}@far.example`,
		"RFC822;a+2B+e2+82+ac+3Db\\c@x":             `utf-8;a\x{2B}\x{20AC}\x{3D}b\x{5C}c@x`,
		`rfc822;"+C3+BC+20x"@x`:                     `utf-8;"\x{FC}\x{20}x"@x`,
		"rfc822;a+2Bb@x":                            "rfc822;a+b@x",
		"rfc822;+C3@x":                              "", // no UTF-8
		"rfc822;+C3+B6+0D@x":                        "",
		"rfc822;+C3+B6+7F@x":                        "",
		"x400;+C3+B6":                               "",
		"rfc822;+C3+B6+2":                           "",
		"rfc822;+C3+B6" + strings.Repeat("+2B", 90): "", // would be too long to pass on
	} {
		if ok := validOriginal([]byte(given), false); ok != (want != "") {
			t.Errorf("%s: valid %v", given, ok)
		} else if got := string(AppendDecodedOriginal([]byte("-"), []byte(given))); ok && got != "-"+want {
			t.Errorf("%s: %s, want %s", given, got, want)
		} else if again := AppendOriginal(nil, want); ok && !validOriginal(again, false) {
			t.Errorf("%s is passed on as %s", given, again)
		}
	}
}

// TestA5Notify: NEVER stands alone.
func TestA5Notify(t *testing.T) {
	lines := map[string]string{}
	for _, list := range []string{"NEVER,DELAY", "NEVER,SUCCESS", "FAILURE,NEVER", "NEVER,NEVER", "", ",", "SUCCESS,", ",DELAY", "SUCCESS,SUCCESS", "ALWAYS", "SUCCESS;DELAY", "NEVER NOTIFY=NEVER"} {
		lines["RCPT TO:<b@b> NOTIFY="+list+"\r\n"] = "501 5.5.4"
	}
	lines["RCPT TO:<b@b> NOTIFY\r\n"] = "501 5.5.4"
	refusedLines(t, hello+"MAIL FROM:<a@a>\r\n", lines)
	for list, want := range map[string]message.Notify{
		"NEVER": message.NotifyNever, "never": message.NotifyNever, "delay,Success": message.NotifySuccess | message.NotifyDelay,
		"SUCCESS,FAILURE,DELAY": message.NotifySuccess | message.NotifyFailure | message.NotifyDelay, "FAILURE": message.NotifyFailure,
	} {
		if got, ok := parseNotify([]byte(list)); got != want || !ok {
			t.Errorf("%s: %04b, %v", list, got, ok)
		}
	}
	for n := range message.Notify(20) {
		if want := n <= message.NotifyNever || n < 16 && n&message.NotifyNever == 0; n.Valid() != want {
			t.Errorf("%05b: valid %v", n, n.Valid())
		} else if want && n > 0 {
			if got, ok := parseNotify([]byte(notifyLists[n])); got != n || !ok {
				t.Errorf("%05b is written %q, and read %05b", n, notifyLists[n], got)
			}
		}
	}
}

// FuzzXtext: what is valid decodes to printable ASCII and back, and whatever is encoded can stand in a command.
func FuzzXtext(f *testing.F) {
	for _, s := range []string{"", "a+2Bb", "+0A", "+", "a=b", "\xff", "x y", "+7e+20"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		encoded := AppendXtext(nil, s)
		if bytes.ContainsAny(encoded, "\r\n\x00 =") || string(AppendDecodedXtext(nil, encoded)) != s {
			t.Fatalf("%q encoded is %q", s, encoded)
		}
		if !validXtext([]byte(s)) {
			return
		}
		decoded := AppendDecodedXtext(nil, []byte(s))
		for _, c := range decoded {
			if c < ' ' || c > '~' {
				t.Fatalf("%q decodes to %q", s, decoded)
			}
		}
		if again := AppendXtext(nil, string(decoded)); !validXtext(again) || len(again) > len(s) || !bytes.Equal(AppendDecodedXtext(nil, again), decoded) {
			t.Fatalf("%q decodes to %q, which encodes to %q", s, decoded, again)
		}
	})
}

// paramsPassedOn are those that a relay says again to the next host.
const paramsPassedOn = paramSize | paramBody | paramUTF8 | paramReturn | paramEnvelopeID | paramBy | paramPriority

// FuzzParameters: parameters that the server takes can be stored decoded, and passed on by the client as they were meant.
func FuzzParameters(f *testing.F) {
	f.Add("SIZE=5 BODY=8BITMIME RET=FULL ENVID=a+2Bb", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy@d")
	f.Add("SMTPUTF8 ret=hdrs", "ORCPT=utf-8;\xc3\xbc@x notify=never")
	f.Add("BY=-5;NT MT-PRIORITY=-3 BODY=7BIT", "NOTIFY=DELAY")
	f.Add("SMTPUTF8", "ORCPT=rfc822;+C3+B6+2B@x")
	f.Add("ENVID=+00", "ORCPT=utf-8;\\x{FC}@x")
	f.Fuzz(func(t *testing.T, mail, rcpt string) {
		var m MailParams
		var r RcptParams
		if controlIn([]byte(mail+rcpt)) != noControl || m.parse([]byte(mail), paramsPassedOn) != "" || m.Body == BodyBinary || r.parse([]byte(rcpt), m.SMTPUTF8) != "" {
			return
		}
		m.EnvID = AppendXtext(nil, string(AppendDecodedXtext(nil, m.EnvID)))
		r.Original = AppendOriginal(nil, string(AppendDecodedOriginal(nil, r.Original)))
		m.Size = 0
		c := upClient(t, strings.Replace(greetings, "250 SMTPUTF8", "250-DSN\r\n250-DELIVERBY\r\n250-MT-PRIORITY\r\n250 SMTPUTF8", 1))
		if err := c.Begin("a@a", m, []string{"b@b"}, r); err != nil {
			t.Fatalf("%q, %q: %v", mail, rcpt, err)
		}
		sent := newSession(t, hostileConfig)
		sent.feed(hello + string(c.Pending()))
		want := []string{
			fmt.Sprintf(`Mail "a@a" size=0 8bit=%v utf8=%v%s%s`, m.Body == Body8Bit, m.SMTPUTF8, notedMail(&m), notedWishes(&m)),
			fmt.Sprintf(`Rcpt "b@b" local="b" domain="b"%s`, notedRcpt(&r)), "Data",
		}
		if fmt.Sprintf("%q", sent.events[1:]) != fmt.Sprintf("%q", want) {
			t.Fatalf("%q, %q: sent as %q", mail, rcpt, sent.events)
		}
	})
}
