package sink_test

import (
	netsmtp "net/smtp"
	"strings"
	"testing"

	"mailrace/bench/ledger"
	"mailrace/bench/sink"
)

// TestReturned: notifications about numbered messages are counted by recipient, also beside arrivals.
func TestReturned(t *testing.T) {
	s := start(t, sink.Options{})
	template, err := ledger.NewTemplate(ledger.Shape{Run: 7, Size: 500, Recipients: 3, Date: "Mon, 2 Jan 2006 15:04:05 +0000"})
	if err != nil {
		t.Fatal(err)
	}
	back := func(number uint64, rcpt string) {
		t.Helper()
		header, _, _ := strings.Cut(string(template.Number(number, 0)), "\r\n\r\n")
		notice := "Message-ID: <n@mta.example>\r\n\r\nFinal-Recipient: rfc822; " + rcpt + "@d1.example\r\nAction: failed\r\n\r\n" + header + "\r\n"
		if err := netsmtp.SendMail(s.Addr(), nil, "", []string{"sender@a.example"}, []byte(notice)); err != nil {
			t.Fatal(err)
		}
	}
	arrive := func(number uint64, rcpts ...string) {
		t.Helper()
		if err := send(t, s, string(template.Number(number, 0)), rcpts...); err != nil {
			t.Fatal(err)
		}
	}
	back(1, "r0")
	arrive(1, "r1@d1.example", "r2@d1.example")
	back(1, "r0") // once more
	back(1, "r2") // although it arrived
	back(2, "r1")
	arrive(2, "r1@d1.example") // although it had come back
	r := s.Report()
	want := sink.RunReport{Run: 7, Recipients: 3, Totals: ledger.Totals{Distinct: 3}, Returned: sink.Returned{Returned: 3, Twice: 1, Both: 2}}
	if len(r.Runs) != 1 || r.Runs[0] != want {
		t.Errorf("%+v, want %+v", r.Runs, want)
	}
}
