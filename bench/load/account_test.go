package load_test

import (
	"bytes"
	"net"
	netsmtp "net/smtp"
	"sync"
	"testing"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
	"mailrace/proto/smtp"
)

// badMTA takes mail, acknowledges all of it, and relays it as its fault says.
type badMTA struct {
	sink  string
	fault func(n int, content []byte) [][]byte // copies of the n-th message to pass on, none to lose it

	mu   sync.Mutex
	seen int
	wg   sync.WaitGroup // sessions under way
}

// serve is one session.
func (m *badMTA) serve(c net.Conn) {
	defer m.wg.Done()
	defer c.Close()
	var s smtp.Server
	s.Init(&smtp.ServerConfig{Hostname: "bad.example"})
	s.Greet()
	var rcpts []string
	var content, in []byte
	buf := make([]byte, 32<<10)
	for {
		c.Write(s.Pending())
		s.Flushed()
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		in = append(in, buf[:n]...)
		for more := true; more; {
			used, ev := s.Feed(in)
			in = in[used:]
			switch ev {
			case smtp.NeedInput:
				more = false
			case smtp.Mail:
				rcpts = nil
			case smtp.Rcpt:
				rcpts = append(rcpts, string(s.Rcpt().Path))
			case smtp.Data:
				content = []byte("Received: by bad.example\r\n")
			case smtp.Content:
				content = append(content, s.Content()...)
			case smtp.EndOfData:
				m.relay(rcpts, content)
			case smtp.Quit, smtp.Close:
				c.Write(s.Pending())
				return
			}
			s.Accept()
		}
	}
}

func (m *badMTA) relay(rcpts []string, content []byte) {
	m.mu.Lock()
	n := m.seen
	m.seen++
	m.mu.Unlock()
	for _, copied := range m.fault(n, content) {
		if err := netsmtp.SendMail(m.sink, nil, "a@bad.example", rcpts, copied); err != nil {
			panic(err)
		}
	}
}

// TestABadMTAIsFoundOut: an MTA that loses, doubles and alters known numbers of messages, and the account names exactly these.
func TestABadMTAIsFoundOut(t *testing.T) {
	const total = 300
	whole := func(_ int, c []byte) [][]byte { return [][]byte{c} }
	every := func(n, k int) bool { return n%k == 3 }
	for name, test := range map[string]struct {
		fault func(n int, content []byte) [][]byte
		want  ledger.Account // of messages with one recipient
	}{
		"good": {whole, ledger.Account{Arrived: total}},
		"loses": {func(n int, c []byte) [][]byte {
			if every(n, 10) {
				return nil
			}
			return [][]byte{c}
		}, ledger.Account{Arrived: total - 30, Lost: 30}},
		"doubles": {func(n int, c []byte) [][]byte {
			if every(n, 20) {
				return [][]byte{c, c, c}
			}
			return [][]byte{c}
		}, ledger.Account{Arrived: total, Doubled: 30}},
		"alters an octet": {func(n int, c []byte) [][]byte {
			if every(n, 50) {
				c[len(c)-10] ^= 1
			}
			return [][]byte{c}
		}, ledger.Account{Arrived: total, Altered: 6}},
		"cuts": {func(n int, c []byte) [][]byte {
			if every(n, 100) {
				c = c[:bytes.LastIndexByte(c[:len(c)-2], '\n')+1]
			}
			return [][]byte{c}
		}, ledger.Account{Arrived: total, Altered: 3}},
		"everything": {func(n int, c []byte) [][]byte {
			switch {
			case every(n, 10):
				return nil
			case every(n-1, 10):
				altered := bytes.Clone(c)
				altered[len(c)-10] ^= 1
				return [][]byte{c, altered}
			}
			return [][]byte{c}
		}, ledger.Account{Arrived: total - 30, Lost: 30, Doubled: 30, Altered: 30}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSink(t, sink.Options{})
			m := &badMTA{sink: s.Addr(), fault: test.fault}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					m.wg.Add(1)
					go m.serve(c)
				}
			}()
			const recipients = 2
			o := load.Options{Address: l.Addr().String(), Messages: total, Connections: 4, Recipients: recipients, Run: 1}
			o.Acknowledged = ledger.NewTally(o.Run, recipients)
			if r := run(t, o); r.Accepted != total {
				t.Fatalf("%+v", r)
			}
			m.wg.Wait()
			want := test.want
			want.Acknowledged = total * recipients
			want.Arrived, want.Lost, want.Doubled = want.Arrived*recipients, want.Lost*recipients, want.Doubled*recipients
			if got := ledger.Compare(o.Acknowledged, s.Book().Run(o.Run)); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}
