package scenario

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
)

// TestWAN: everything is measured, and accounted for.
func TestWAN(t *testing.T) {
	o := WANOptions{Program: options(t).Program, RTTs: RoundTrips{0, time.Millisecond}, Connections: 3, Rounds: 2, Duration: 50 * time.Millisecond,
		Warmup: 10 * time.Millisecond, Dir: t.TempDir()}
	var stdout, stderr bytes.Buffer
	if err := WANCommand(t.Context(), o, console.Output{JSON: true, Stdout: &stdout, Stderr: &stderr}); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var r WANReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rounds) != 2 || len(r.Trips) != 2 || r.Account.Arrived == 0 || !r.Account.Clean() {
		t.Errorf("%+v", r)
	}
	for _, trip := range r.Trips {
		if trip.Chunking.Median <= 0 || trip.Pipelining.Median <= 0 || trip.Many.Median <= 0 {
			t.Errorf("%+v", trip)
		}
	}
	for _, name := range r.names() {
		if r.Median[name].Messages == 0 {
			t.Errorf("%s: %+v", name, r.Median[name])
		}
	}
	if left, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestWANReport(t *testing.T) {
	const near, far = time.Duration(0), 50 * time.Millisecond
	r := WANReport{RTTs: RoundTrips{near, far}, Connections: 100, Sizes: "10KiB", Duration: 5 * time.Second}
	for i := range 3 {
		rate := float64(i + 1)
		r.Rounds = append(r.Rounds, Round{
			WANTarget(LockStep, near): {Rate: 1000}, WANTarget(Pipelined, near): {Rate: 2000}, WANTarget(Chunked, near): {Rate: 4000},
			WANTarget(Many, near):    {Rate: 10_000, CPU: 40, SinkCPU: 7, RSSPeak: 300 << 20},
			WANTarget(LockStep, far): {Rate: 5 * rate}, WANTarget(Pipelined, far): {Rate: 20, CPU: 900}, WANTarget(Chunked, far): {Rate: 1500, CPU: 80, SinkCPU: 10},
			WANTarget(Many, far): {Rate: 9000 * rate / 2, Account: ledger.Account{Acknowledged: 10, Arrived: 9, Lost: 1}},
		})
	}
	r.summarize()
	golden(t, "wan.txt", textOf(t, &r))
	for _, o := range []WANOptions{{}, {Program: []string{"x"}, RTTs: RoundTrips{1}}, {Program: []string{"x"}, Rounds: -1}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v", o)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	for text, want := range map[string]string{"50ms": "0s,50ms", "100ms, 20ms,0,20ms": "0s,20ms,100ms", "0s": "0s", "10s": "0s,10s", "": "", "-1ms": "", "11s": "", "5": ""} {
		var got RoundTrips
		if err := got.Set(text); (err == nil) != (want != "") || got.String() != want {
			t.Errorf("%q: %s, %v", text, got.String(), err)
		}
	}
}

// TestDelayLine: octets arrive as they were sent, both ways, and so does the end.
func TestDelayLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // an echo, after which it says bye
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
		_, _ = io.WriteString(c, "bye")
	}()
	d, err := delayed(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d.slow(2 * time.Millisecond)
	defer d.close()
	c, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	content := []byte(strings.Repeat("0123456789abcde\n", 100_000))
	go func() {
		for rest := content; len(rest) > 0; {
			n := min(len(rest), 1+len(rest)/7)
			_, _ = c.Write(rest[:n])
			rest = rest[n:]
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, append(content, "bye"...)) {
		t.Errorf("%d octets, %v", len(got), err)
	}
}

// TestDelayLineToNobody: a connection that leads nowhere is closed, and the line ends with connections open.
func TestDelayLineToNobody(t *testing.T) {
	nobody, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	d, err := delayed(nobody)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("it is open")
	}
	d.close()
}
