package sink_test

import (
	"encoding/json"
	"fmt"
	netsmtp "net/smtp"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mailrace/bench/sink"
)

func start(t *testing.T, o sink.Options) *sink.Sink {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := sink.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func send(t *testing.T, s *sink.Sink, content string, rcpts ...string) error {
	t.Helper()
	return netsmtp.SendMail(s.Addr(), nil, "from@a.example", rcpts, []byte(content))
}

func TestForeignDuplicates(t *testing.T) {
	s := start(t, sink.Options{})
	const first, second = "Message-ID: <1@a>\r\n\r\nhello\r\n", "Message-ID: <2@a>\r\n\r\nhello\r\n"
	for _, m := range []struct {
		content string
		rcpts   []string
	}{
		{first, []string{"x@b.example", "y@b.example"}},
		{first, []string{"z@b.example"}}, // the same message for somebody else
		{first, []string{"y@b.example"}}, // a duplicate
		{second, []string{"y@b.example"}},
		{"Subject: no id\r\n\r\nhello\r\n", []string{"y@b.example"}},
	} {
		if err := send(t, s, m.content, m.rcpts...); err != nil {
			t.Fatal(err)
		}
	}
	r := s.Report()
	if r.Messages != 5 || r.Recipients != 6 || r.Foreign != 4 || r.Duplicates != 1 || r.Anonymous != 1 || r.Altered != 0 || len(r.Runs) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s := start(t, sink.Options{Store: dir, NoCount: true})
	const content = "Subject: dots\r\n\r\n.\r\n..two\r\nend\r\n"
	for range 3 {
		if err := send(t, s, content, "x@b.example", "y@b.example"); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 6 {
		t.Fatalf("%v, %v", files, err)
	}
	for n := 1; n <= 3; n++ {
		got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%09d.eml", n)))
		if err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%09d.json", n)))
		if err != nil {
			t.Fatal(err)
		}
		var e sink.Envelope
		if err := json.Unmarshal(text, &e); err != nil {
			t.Fatal(err)
		}
		if e.From != "from@a.example" || !reflect.DeepEqual(e.Recipients, []string{"x@b.example", "y@b.example"}) ||
			e.Hello != "localhost" || !strings.HasPrefix(e.Client, "127.0.0.1:") {
			t.Errorf("%+v", e)
		}
	}
}

// TestNothingIsStoredOfWhatWasRefused: the file appears with the 250, and with nothing else.
func TestNothingIsStoredOfWhatWasRefused(t *testing.T) {
	dir := t.TempDir()
	s := start(t, sink.Options{Store: dir, Permfail: sink.Shares{sink.Dot: 1}})
	if err := send(t, s, "Message-ID: <1@a>\r\n\r\nhello\r\n", "x@b.example"); err == nil {
		t.Fatal("accepted")
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 0 {
		t.Errorf("%v", files)
	}
	if r := s.Report(); r.Messages != 0 || r.Foreign != 0 || r.Failures["dot"].Permfail != 1 {
		t.Errorf("%+v", r)
	}
}

func TestDelayAtEveryVerb(t *testing.T) {
	const d = 1e6
	s := start(t, sink.Options{Delay: sink.Delays{sink.Connect: d, sink.Hello: d, sink.Mail: d, sink.Rcpt: d, sink.Data: d, sink.Dot: d}})
	if err := send(t, s, "Message-ID: <1@a>\r\n\r\nhello\r\n", "x@b.example", "y@b.example"); err != nil {
		t.Fatal(err)
	}
	if r := s.Report(); r.Messages != 1 || r.Recipients != 2 {
		t.Errorf("%+v", r)
	}
}

func TestRefusalsAtConnect(t *testing.T) {
	for _, o := range []sink.Options{{Tempfail: sink.Shares{sink.Connect: 1}}, {Permfail: sink.Shares{sink.Connect: 1}}} {
		s := start(t, o)
		if err := send(t, s, "x\r\n", "x@b.example"); err == nil || !strings.Contains(err.Error(), "says the bench") {
			t.Errorf("%v", err)
		}
	}
}
