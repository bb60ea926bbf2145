package load_test

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

func startSink(t *testing.T, o sink.Options) *sink.Sink {
	t.Helper()
	o.Address = "127.0.0.1:0"
	s, err := sink.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run sends and fails the test if that cannot be done.
func run(t *testing.T, o load.Options) load.Report {
	t.Helper()
	r, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatalf("%v (%+v)", err, r)
	}
	return r
}

func TestEveryMessageArrivesOnceAndWhole(t *testing.T) {
	sizes := func(text string) (s load.Sizes) {
		if err := s.Set(text); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, o := range map[string]load.Options{
		"pipelined":         {Messages: 3000, Connections: 20},
		"lock step":         {Messages: 500, Connections: 10, LockStep: true},
		"one a connection":  {Messages: 300, Connections: 10, PerConnection: 1},
		"some a connection": {Messages: 500, Connections: 10, PerConnection: 7},
		"one lock step":     {Messages: 100, Connections: 5, PerConnection: 1, LockStep: true},
		"dots":              {Messages: 500, Connections: 10, Dots: true},
		"recipients":        {Messages: 300, Connections: 10, Recipients: 30, Domains: load.MadeUpDomains(7)},
		"two loops":         {Messages: 3000, Connections: 20, Loops: 2, Sizes: sizes("1KiB:3,20KiB:1")},
		"large":             {Messages: 60, Connections: 10, Sizes: sizes("300KiB:3,4MiB:1"), Dots: true},
		"rate":              {Messages: 300, Connections: 10, Rate: 3000},
		"null sender":       {Messages: 10, Connections: 1},
		"chunks":            {Messages: 3000, Connections: 20, Chunking: true, Sizes: sizes("1KiB:3,20KiB:1"), Recipients: 2},
		"large chunks":      {Messages: 60, Connections: 10, Chunking: true, Sizes: sizes("300KiB:3,4MiB:1")},
		"chunks at a rate":  {Messages: 300, Connections: 10, Chunking: true, Rate: 3000},
		"one chunk each":    {Messages: 300, Connections: 10, Chunking: true, PerConnection: 1},
		"popular domains":   {Messages: 300, Connections: 10, Recipients: 3, Domains: load.MadeUpDomains(100), Zipf: 1},
		"goes on":           {Messages: 100, Connections: 3, First: 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSink(t, sink.Options{Loops: 2})
			o.Address, o.Run = s.Addr(), ledger.NewRunID()
			if name != "null sender" {
				o.Sender = "a@sender.example"
			}
			o.Acknowledged = ledger.NewTally(o.Run, max(o.Recipients, 1))
			r := run(t, o)
			if r.Busy <= 0 {
				t.Errorf("%v of a core", r.Busy)
			}
			if r.Accepted != o.Messages || r.Started != o.Messages || r.Lost+r.Tempfail+r.Permfail+r.Broken != 0 || r.Next != o.First+o.Messages {
				t.Errorf("load: %+v", r)
			}
			if r.Latency.Count != o.Messages || r.Latency.P50 <= 0 || r.Latency.Max < r.Latency.P99 {
				t.Errorf("latency: %+v", r.Latency)
			}
			got := s.Report()
			recipients := o.Messages * uint64(max(o.Recipients, 1))
			if got.Messages != o.Messages || got.Recipients != recipients || got.Duplicates+got.Altered+got.Foreign+got.Anonymous != 0 ||
				got.Octets != r.Octets || got.Connections != r.Connections {
				t.Errorf("sink: %+v\nload: %+v", got, r)
			}
			want := ledger.Account{Acknowledged: recipients, Arrived: recipients}
			if a := ledger.Compare(o.Acknowledged, s.Book().Run(o.Run)); a != want {
				t.Errorf("account %+v, want %+v", a, want)
			}
			if o.PerConnection > 0 && r.Connections < o.Messages/uint64(o.PerConnection) {
				t.Errorf("%d connections", r.Connections)
			}
		})
	}
}

// TestFailuresAreCounted: what the sink says it refused is what the generator says was refused.
func TestFailuresAreCounted(t *testing.T) {
	for _, v := range []sink.Verb{sink.Mail, sink.Rcpt, sink.Data, sink.Dot} {
		for _, lockStep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v lock step %v", v, lockStep), func(t *testing.T) {
				var temp, perm sink.Shares
				temp[v], perm[v] = 0.2, 0.1
				s := startSink(t, sink.Options{Tempfail: temp, Permfail: perm, Seed: 5})
				r := run(t, load.Options{Address: s.Addr(), Messages: 1000, Connections: 10, LockStep: lockStep})
				got := s.Report()
				failed := got.Failures[v.String()]
				if failed.Tempfail == 0 || failed.Permfail == 0 || failed.Drop != 0 || len(got.Failures) != 1 {
					t.Errorf("sink: %+v", got)
				}
				if r.Tempfail != failed.Tempfail || r.Permfail != failed.Permfail || r.Lost != 0 || r.Accepted != got.Messages ||
					r.Accepted+r.Tempfail+r.Permfail != 1000 {
					t.Errorf("load: %+v\nsink: %+v", r, got)
				}
			})
		}
	}
}

// TestPartOfTheRecipients: what is acknowledged is exactly the recipients that the server took.
func TestPartOfTheRecipients(t *testing.T) {
	s := startSink(t, sink.Options{Permfail: sink.Shares{sink.Rcpt: 0.3}})
	o := load.Options{Address: s.Addr(), Messages: 200, Connections: 10, Recipients: 5, Run: 1}
	o.Acknowledged = ledger.NewTally(o.Run, o.Recipients)
	r := run(t, o)
	refused := s.Report().Failures["rcpt"].Permfail
	want := ledger.Account{Acknowledged: 1000 - refused, Arrived: 1000 - refused}
	if a := ledger.Compare(o.Acknowledged, s.Book().Run(o.Run)); a != want || refused == 0 {
		t.Errorf("account %+v, want %+v", a, want)
	}
	if r.Recipients != want.Acknowledged {
		t.Errorf("%d recipients, want %d", r.Recipients, want.Acknowledged)
	}
}

// TestDroppedConnections: a generator that reconnects starts all its messages, and counts what was under way as lost.
func TestDroppedConnections(t *testing.T) {
	for _, v := range []sink.Verb{sink.Connect, sink.Hello, sink.Mail, sink.Data, sink.Dot} {
		t.Run(v.String(), func(t *testing.T) {
			var drop sink.Shares
			drop[v] = 0.1
			if v <= sink.Hello {
				drop[v] = 0.5
			}
			s := startSink(t, sink.Options{Drop: drop, Seed: 3})
			o := load.Options{Address: s.Addr(), Messages: 400, Connections: 8, PerConnection: 20, Reconnect: true, Run: 7}
			o.Acknowledged = ledger.NewTally(o.Run, 1)
			r := run(t, o)
			dropped := s.Report().Failures[v.String()].Drop
			if dropped == 0 || r.Broken != dropped || r.Started != 400 || r.Accepted+r.Lost != 400 {
				t.Errorf("dropped %d, load: %+v", dropped, r)
			}
			if v <= sink.Hello && r.Lost != 0 {
				t.Errorf("%d lost before any was begun", r.Lost)
			}
			a := ledger.Compare(o.Acknowledged, s.Book().Run(o.Run))
			if a.Acknowledged != r.Accepted || !a.Clean() {
				t.Errorf("account %+v, load %+v", a, r)
			}
		})
	}
}

func TestRecordsReadBack(t *testing.T) {
	dir := t.TempDir()
	s, err := sink.Start(sink.Options{Address: "127.0.0.1:0", Record: filepath.Join(dir, "sink")})
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, load.Options{Address: s.Addr(), Messages: 100, Connections: 3, Record: filepath.Join(dir, "load")})
	if _, err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sent, err := ledger.LoadBook(filepath.Join(dir, "load"))
	if err != nil {
		t.Fatal(err)
	}
	arrived, err := ledger.LoadBook(filepath.Join(dir, "sink"))
	if err != nil {
		t.Fatal(err)
	}
	want := ledger.Account{Acknowledged: 100, Arrived: 100}
	if a := ledger.Compare(sent.Run(r.Run), arrived.Run(r.Run)); a != want {
		t.Errorf("%+v", a)
	}
}

// TestCancel: transactions under way end, and nothing is lost.
func TestCancel(t *testing.T) {
	s := startSink(t, sink.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := load.Run(ctx, load.Options{Address: s.Addr(), Connections: 10, Interval: 1e6, Progress: func(p load.Progress) {
		if p.Accepted > 500 {
			cancel()
		}
	}})
	if err != nil || r.Accepted < 500 || r.Lost != 0 || r.Broken != 0 || r.Started != r.Accepted || r.Open != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if got := s.Report(); got.Messages != r.Accepted || got.Duplicates != 0 {
		t.Errorf("sink %+v, load %+v", got, r)
	}
}

// TestOpenLoopHoldsNobodyBack: with replies that take longer than the rate allows one connection, the messages are due all the same, and
// their latency counts from then.
func TestOpenLoopHoldsNobodyBack(t *testing.T) {
	s := startSink(t, sink.Options{Delay: sink.Delays{sink.Dot: 20e6}})
	r := run(t, load.Options{Address: s.Addr(), Connections: 1, Messages: 20, Rate: 1000})
	// 20 messages due within 20 ms, 20 ms each over one connection: the last one ends some 400 ms after the first was due.
	if r.Latency.Max < 300e6 {
		t.Errorf("the wait for the connection is hidden: %+v", r.Latency)
	}
}

func TestSeedDecides(t *testing.T) {
	fails := func() map[string]sink.Failures {
		s := startSink(t, sink.Options{Tempfail: sink.Shares{sink.Rcpt: 0.1, sink.Dot: 0.1}, Seed: 11})
		run(t, load.Options{Address: s.Addr(), Messages: 500, Connections: 10})
		return s.Report().Failures
	}
	if a, b := fails(), fails(); !reflect.DeepEqual(a, b) || len(a) != 2 {
		t.Errorf("%v and %v", a, b)
	}
}

// TestWindowFollowsTheGauge: never more than a window is under way, and all of it is sent in the end.
func TestWindowFollowsTheGauge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gauge")
	s := startSink(t, sink.Options{Gauge: path, Permfail: sink.Shares{sink.Dot: 0.1}})
	r := run(t, load.Options{Address: s.Addr(), Connections: 10, Messages: 500, Recipients: 3, Gauge: path, Window: 7})
	if r.Started != 500 || r.Accepted+r.Permfail != 500 || r.Permfail == 0 {
		t.Errorf("%+v", r)
	}

	// Nobody counts what arrives: a window is accepted, and no more. What is refused makes room.
	ctx, cancel := context.WithCancel(t.Context())
	o := load.Options{Address: s.Addr(), Connections: 10, Gauge: path + "2", Window: 7, Interval: 1e6}
	o.Progress = func(p load.Progress) {
		if p.Accepted == 7 {
			cancel()
		}
	}
	r, err := load.Run(ctx, o)
	if err != nil || r.Accepted != 7 || r.Started != r.Accepted+r.Permfail {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestHold: connections from several addresses come up and stay, and nothing is sent over them; those that the server ends are lost.
func TestHold(t *testing.T) {
	s := startSink(t, sink.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	o := load.Options{Address: s.Addr(), Connections: 300, Hold: true, Interval: 1e6}
	if err := o.From.Set("127.0.0.2, 127.0.0.3"); err != nil {
		t.Fatal(err)
	}
	o.Progress = func(p load.Progress) {
		if p.Idle == 300 {
			cancel()
		}
	}
	r, err := load.Run(ctx, o)
	if err != nil || r.Connections != 300 || r.Broken != 0 || r.Started != 0 || r.Open+r.Idle != 0 {
		t.Errorf("%v, %+v", err, r)
	}
	if got := s.Report(); got.Connections != 300 || got.Messages != 0 {
		t.Errorf("%+v", got)
	}

	ctx, cancel = context.WithCancel(t.Context())
	o.Address = startScript(t, func(n int, c *wire) {
		if c.say("220 x"); n%2 == 0 {
			c.dialogue("250 x")
		}
	})
	o.Progress = func(p load.Progress) {
		if p.Idle == 150 && p.Broken == 150 {
			cancel()
		}
	}
	if r, err = load.Run(ctx, o); err != nil || r.Connections != 300 || r.Broken != 150 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestHoldIsStopped while connections come up.
func TestHoldIsStopped(t *testing.T) {
	s := startSink(t, sink.Options{Delay: sink.Delays{sink.Connect: 20e6}})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := load.Run(ctx, load.Options{Address: s.Addr(), Connections: 5000, Hold: true, Interval: 1e6, Progress: func(p load.Progress) {
		if p.Idle > 0 {
			cancel()
		}
	}})
	if err != nil || r.Connections == 0 || r.Connections == 5000 || r.Broken != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestTimeCountsFromTheFirstConnection: connecting takes nothing of it, so that the shortest run sends something.
func TestTimeCountsFromTheFirstConnection(t *testing.T) {
	s := startSink(t, sink.Options{Delay: sink.Delays{sink.Connect: 20 * time.Millisecond}})
	r, err := load.Run(t.Context(), load.Options{Address: s.Addr(), Connections: 3, Duration: time.Nanosecond})
	if err != nil || r.Accepted == 0 || r.Accepted != r.Started {
		t.Errorf("%d of %d accepted, %v", r.Accepted, r.Started, err)
	}
	lost, err := load.Run(t.Context(), load.Options{Address: s.Addr(), Connections: 1, Duration: time.Nanosecond, Reconnect: true})
	if err != nil || lost.Broken > 1 {
		t.Errorf("with connections that are opened again: %+v, %v", lost, err)
	}
}

// TestNoChunking: a server without CHUNKING gets nothing, and the generator says why.
func TestNoChunking(t *testing.T) {
	s := startSink(t, sink.Options{NoChunking: true})
	r, err := load.Run(t.Context(), load.Options{Address: s.Addr(), Messages: 3, Connections: 1, Chunking: true})
	if r.Accepted != 0 || !strings.Contains(r.Failure, "CHUNKING") {
		t.Errorf("%v, %+v", err, r)
	}
}
