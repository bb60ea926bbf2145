package sink

import (
	"flag"
	"io"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestSharesAndDelays(t *testing.T) {
	var s Shares
	if err := s.Set("rcpt=0.1,dot=0.5"); err != nil || s != (Shares{Rcpt: 0.1, Dot: 0.5}) || s.String() != "rcpt=0.1,dot=0.5" {
		t.Errorf("%v, %v", s, err)
	}
	if err := s.Set("0.25"); err != nil || s != (Shares{Dot: 0.25}) {
		t.Errorf("%v, %v", s, err)
	}
	for _, text := range []string{"rcpt", "rcpt=2", "rcpt=-1", "rcpt=NaN", "quit=0.1", "rcpt=0.1,"} {
		if err := s.Set(text); err == nil {
			t.Errorf("%q was read as %v", text, s)
		}
	}
	var d Delays
	if err := d.Set("connect=1s,5ms"); err != nil || d != (Delays{Connect: time.Second, Dot: 5 * time.Millisecond}) {
		t.Errorf("%v, %v", d, err)
	}
	if err := d.Set("-1s"); err == nil {
		t.Error("a negative delay was taken")
	}
}

func TestFateFollowsFromTheSeed(t *testing.T) {
	o := Options{Seed: 42, Tempfail: Shares{Rcpt: 0.1}, Permfail: Shares{Rcpt: 0.05}, Drop: Shares{Rcpt: 0.01}}
	judgeOf := func() *judge { return newJudge(o.Seed, o.Tempfail, o.Permfail, o.Drop) }
	a, b := judgeOf(), judgeOf()
	o.Seed = 43
	other := judgeOf()
	const total = 200_000
	var counts [4]int
	differ := 0
	for range total {
		v := a.verdict(Rcpt)
		counts[v]++
		if b.verdict(Rcpt) != v {
			t.Fatal("the same seed gives another fate")
		}
		if other.verdict(Rcpt) != v {
			differ++
		}
	}
	if differ == 0 {
		t.Error("another seed gives the same fates")
	}
	for v, want := range map[verdict]float64{tempfail: 0.1, permfail: 0.05, drop: 0.01} {
		if got := float64(counts[v]) / total; math.Abs(got-want) > want*0.05 {
			t.Errorf("verdict %d: share %.4f, want %.2f", v, got, want)
		}
	}
	if a.verdict(Mail) != accept || a.seen[Mail].Load() != 0 {
		t.Error("a verb to which nothing happens was judged")
	}
}

func TestArgsReadBack(t *testing.T) {
	want := Options{Address: "127.0.0.1:0", Hostname: "me", Loops: 2, Delay: Delays{Dot: time.Second}, Tempfail: Shares{Mail: 0.5},
		Permfail: Shares{Rcpt: 0.25}, Drop: Shares{Data: 0.125}, Seed: 9, NoVerify: true, NoCount: true, Store: "dir", Script: "script", DNS: "127.0.0.1:53", Sites: "127.9.0.0/24",
		Record: "file", Gauge: "gauge", MaxSize: 1000, Timeout: time.Minute, Interval: time.Hour,
		TLS: startTLS, Chain: "chain", Key: "key"}
	var got Options
	fs := flag.NewFlagSet("sink", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	BindFlags(fs, &got)
	if err := fs.Parse(want.Args()); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, o := range []Options{{Address: "nowhere"}, {Address: ":0", Loops: -1},
		{Address: ":0", Tempfail: Shares{Dot: 0.6}, Drop: Shares{Dot: 0.6}}} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
