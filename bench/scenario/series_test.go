package scenario

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"mailrace/bench/load"
)

// TestRecorder: a target that runs is sampled until the end, also while its generator reports late.
func TestRecorder(t *testing.T) {
	var r *recorder
	looks, enough := 0, make(chan struct{})
	ready := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-ready
		fmt.Fprintf(w, "mailrace_spool_syncs_total %d\nmailrace_router_recipients{state=\"queued\"} 5\n", 10*looks)
		if looks++; looks%2 == 0 { // every other look finds no news
			return
		}
		var p load.Report
		p.Elapsed, p.Accepted = time.Duration(looks)*time.Second, uint64(100*looks)
		p.Recent.P99 = time.Duration(looks) * time.Millisecond
		r.show(p)
		if looks == 7 {
			close(enough)
		}
	}))
	defer server.Close()
	r = record(t.Context(), &target{pid: os.Getpid(), metrics: server.URL}, nil, time.Now(), time.Millisecond)
	close(ready)
	<-enough
	samples := r.end()
	if len(samples) < 2 {
		t.Fatalf("%d samples of 7 looks", len(samples))
	}
	for i, s := range samples {
		if s.Accepted != 100 || s.Queue != 5 || s.Syncs <= 0 || s.P99 == 0 || i > 0 && s.At <= samples[i-1].At {
			t.Errorf("sample %d: %+v", i, s)
		}
	}
}

func TestSteps(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		100 * time.Millisecond: sampleStepMin, 2 * time.Second: 100 * time.Millisecond, 5 * time.Second: sampleStep, time.Hour: 1500 * time.Millisecond,
	} {
		if got := stepOf(d); got != want {
			t.Errorf("%v: %v, want %v", d, got, want)
		}
	}
}

// TestCharts: what was measured is drawn, and what was not leaves no empty chart.
func TestCharts(t *testing.T) {
	if all := charts([]Round{{MTA: Measure{}}}, []string{Ceiling, MTA}); len(all) != 0 {
		t.Errorf("%d charts of nothing", len(all))
	}
	m := Measure{Curve: []time.Duration{time.Millisecond, 2 * time.Millisecond}, Samples: []Sample{
		{At: time.Second, Accepted: 10, MTA: 0.5, Generator: 0.1, P99: time.Millisecond}, {At: 2 * time.Second, Accepted: 12, MTA: 0.6, P99: time.Millisecond}}}
	var titles []string
	for _, c := range charts([]Round{{MTA: m}, {MTA: m}}, []string{Ceiling, MTA}) {
		titles = append(titles, c.Title)
	}
	if got, want := strings.Join(titles, ", "), "Accepted, Latency of replies, Latency of replies, p99 of a moment, CPU, mta"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestNoise(t *testing.T) {
	for _, quiet := range [][]float64{nil, {100}, {100, 110, 105}, {0, 0}} {
		if notes := noise("ceiling", quiet); notes != nil {
			t.Errorf("%v: %v", quiet, notes)
		}
	}
	if notes := noise("ceiling", []float64{100, 130, 100}); len(notes) != 1 || !strings.Contains(notes[0], "30%") {
		t.Error(notes)
	}
}
