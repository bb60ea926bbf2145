package load_test

import (
	"net"
	netsmtp "net/smtp"
	"testing"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/mtatest"
	"mailrace/bench/sink"
)

// TestABadMTAIsFoundOut: an MTA that loses, doubles, alters and reorders messages, and the account of generator and sink names exactly what it did.
func TestABadMTAIsFoundOut(t *testing.T) {
	const total, recipients = 100, 2
	const each = total / 10 // of the numbers that meet a fault
	for name, test := range map[string]struct {
		faults mtatest.Faults
		want   ledger.Account // but for what was reordered: that depends on how messages fall to connections
	}{
		"good":               {0, ledger.Account{}},
		"loses":              {mtatest.Loses, ledger.Account{Lost: each * recipients}},
		"doubles":            {mtatest.Doubles, ledger.Account{Doubled: 2 * each * recipients}},
		"alters":             {mtatest.Alters, ledger.Account{Altered: each}},
		"cuts":               {mtatest.Cuts, ledger.Account{Altered: each}},
		"reorders":           {mtatest.Reorders, ledger.Account{}},
		"altered copy":       {mtatest.AlteredCopy, ledger.Account{Doubled: each * recipients, Altered: each}},
		"loses and reorders": {mtatest.Loses | mtatest.Reorders, ledger.Account{Lost: each * recipients}},
		"everything": {mtatest.Loses | mtatest.Doubles | mtatest.Alters | mtatest.Cuts | mtatest.Reorders | mtatest.AlteredCopy,
			ledger.Account{Lost: each * recipients, Doubled: 3 * each * recipients, Altered: 3 * each}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSink(t, sink.Options{})
			bad := &mtatest.Bad{Faults: test.faults, Deliver: func(rcpts []string, content []byte) error {
				return netsmtp.SendMail(s.Addr(), nil, "a@bad.example", rcpts, content)
			}}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go (&mtatest.MTA{Session: bad.Session}).Serve(l)
			o := load.Options{Address: l.Addr().String(), Messages: total, Connections: 4, Recipients: recipients, Run: 1}
			o.Acknowledged = ledger.NewTally(o.Run, recipients)
			if r := run(t, o); r.Accepted != total {
				t.Fatalf("%+v", r)
			}
			runs, err := bad.Done()
			if err != nil {
				t.Fatal(err)
			}
			did, got := runs[o.Run], ledger.Compare(o.Acknowledged, s.Book().Run(o.Run))
			if got != did {
				t.Errorf("got %+v\ndid %+v", got, did)
			}
			if reorders := test.faults&mtatest.Reorders != 0; (did.Reordered > 0) != reorders {
				t.Errorf("reordered: %+v", did)
			}
			test.want.Acknowledged = total * recipients
			test.want.Arrived, test.want.Reordered = test.want.Acknowledged-test.want.Lost, did.Reordered
			if got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}
