package ledger

import (
	"slices"
	"strings"
	"testing"
)

// noticeOf is a notification about a numbered message with the fields of its recipients.
func noticeOf(t *testing.T, fields string) string {
	t.Helper()
	m, err := NewTemplate(Shape{Run: 0xabc, Size: 400, Recipients: 5, Date: "Mon, 2 Jan 2006 15:04:05 +0000"})
	if err != nil {
		t.Fatal(err)
	}
	header, _, _ := strings.Cut(string(m.Number(42, 0)), "\r\n\r\n")
	return "From: MAILER-DAEMON\r\nMessage-ID: <x@mta.example>\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\n\r\nSorry.\r\n--b\r\n" +
		"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mta.example\r\n\r\n" + fields +
		"\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nReceived: from x\r\n" + header + "\r\n--b--\r\n"
}

func TestNotice(t *testing.T) {
	for fields, want := range map[string][]int{
		"Final-Recipient: rfc822; r3@d7.example\r\nAction: failed\r\nStatus: 5.0.0\r\n":                                                        {3},
		"final-recipient: RFC822;<r0@d.example>\r\nAction: Failed (really)\r\n\r\nAction: failed\r\nFinal-Recipient: rfc822; r1@d.example\r\n": {0, 1},
		"Original-Recipient: rfc822;r2@d.example\r\nFinal-Recipient: rfc822; box@host\r\nAction: failed\r\n":                                   {2},
		"Final-Recipient: rfc822; r3@d7.example\r\nAction: delayed\r\n":                                                                        nil,
		"Final-Recipient: rfc822; postmaster@d7.example\r\nAction: failed\r\n":                                                                 nil,
	} {
		n, ok := ReadNotice([]byte(noticeOf(t, fields)))
		if !ok || n.Run != 0xabc || n.Number != 42 || n.Recipients != 5 || !slices.Equal(n.Failed, want) {
			t.Errorf("%q: %+v, %v", fields, n, ok)
		}
	}
	for _, text := range []string{"", "Final-Recipient: rfc822; r3@d7.example\r\nAction: failed\r\n", strings.Replace(noticeOf(t, ""), "<mr-", "<xx-", 1)} {
		if n, ok := ReadNotice([]byte(text)); ok {
			t.Errorf("%q: %+v", text, n)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add("Final-Recipient: rfc822; r3@d7.example\r\nAction: failed\r\n\r\nMessage-ID: <mr-0123456789abcdef.000000000042@bench.mailrace>\r\nX-Mailrace-Bench: 1 recipients=0001 crc32c=89abcdef\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		if n, ok := ReadNotice([]byte(text)); ok && (n.Recipients < 1 || n.Recipients > MaxRecipients || n.Number > MaxNumber) {
			t.Errorf("%+v", n)
		}
	})
}
