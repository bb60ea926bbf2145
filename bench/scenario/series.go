package scenario

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"mailrace/bench/load"
)

// Sample is one moment of a measure. Rates and shares are means since the sample before.
type Sample struct {
	At        time.Duration `json:"at_ns"`               // since the bench began
	Accepted  float64       `json:"accepted_per_second"` // by the MTA, of the generator's messages
	Arrived   float64       `json:"arrived_per_second"`  // at the sink
	MTA       float64       `json:"mta_cores"`           // CPU time, in cores
	Generator float64       `json:"generator_cores"`     //
	Sink      float64       `json:"sink_cores"`          //
	Queue     float64       `json:"queue"`               // recipients that the MTA holds
	Syncs     float64       `json:"syncs_per_second"`    // of its spool
	P99       time.Duration `json:"accepted_p99_ns"`     // of the replies to the generator: the worst of its reports since
}

const (
	sampleStep     = 250 * time.Millisecond // between two samples of a usual measure: the MTA's CPU time is counted in steps of 10 ms
	sampleStepMin  = 50 * time.Millisecond  // of a short one
	samplesMeasure = 2400                   // of a long one, about: then the step is longer
)

// stepOf is the time between two samples of a measure that lasts d.
func stepOf(d time.Duration) time.Duration {
	return max(min(max(d/20, sampleStepMin), sampleStep), d/samplesMeasure)
}

// recorder samples a measure while it runs: what the MTA's process and its metrics say, and what generator and sink report of themselves.
type recorder struct {
	target *target
	sink   *sinkChild // or nil
	began  time.Time  // of the bench
	step   time.Duration

	over   atomic.Bool // the generator has ended
	mu     sync.Mutex
	latest load.Report   // of the generator
	worst  time.Duration // P99 of its reports since the last sample

	cancel  context.CancelFunc
	wait    sync.WaitGroup
	samples []Sample
}

// look is what is known at a moment.
type look struct {
	at           time.Time
	sent         load.Report
	worst        time.Duration
	mta          time.Duration // CPU time
	sink         time.Duration
	sinkAt       time.Duration // since the sink's start
	arrived      uint64
	queue, syncs float64
}

// record begins to sample a target, until end.
func record(ctx context.Context, t *target, sink *sinkChild, began time.Time, d time.Duration) *recorder {
	r := &recorder{target: t, sink: sink, began: began, step: stepOf(d)}
	ctx, r.cancel = context.WithCancel(ctx)
	r.wait.Go(func() { r.run(ctx) })
	return r
}

// show takes a report of the generator. Its goroutine calls it.
func (r *recorder) show(p load.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latest, r.worst = p, max(r.worst, p.Recent.P99)
}

// heard is what the generator has reported last, and its worst latency until then.
func (r *recorder) heard() (load.Report, time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest, r.worst
}

// interval is how often the generator must report.
func (r *recorder) interval() time.Duration { return r.step / 2 }

// end ends the sampling and returns what was seen. It may be called again.
func (r *recorder) end() []Sample {
	r.cancel()
	r.wait.Wait()
	return r.samples
}

// run looks once in each step. What cannot be read is left out: whether the MTA is well is for others to find out.
func (r *recorder) run(ctx context.Context) {
	ticker := time.NewTicker(r.step)
	defer ticker.Stop()
	before, ok := r.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now, known := r.look(ctx)
		if !known {
			continue
		}
		if ok && !r.fresh(&before, &now) {
			continue // the next sample is of a longer time
		}
		if ok {
			r.samples = append(r.samples, now.since(&before, r.began))
			r.mu.Lock()
			r.worst = 0
			r.mu.Unlock()
		}
		before, ok = now, true
	}
}

// fresh says that generator and sink have reported since: their counts are taken against their own clocks, which a late report would belie.
func (r *recorder) fresh(before, now *look) bool {
	if now.sent.Elapsed <= before.sent.Elapsed && !r.over.Load() {
		return false
	}
	return r.sink == nil || now.sinkAt > before.sinkAt
}

func (r *recorder) look(ctx context.Context) (look, bool) {
	l := look{at: time.Now()}
	l.sent, l.worst = r.heard()
	var err error
	if l.mta, err = r.target.cpu(); err != nil {
		return l, false
	}
	if r.target.metrics != "" {
		page, err := metricsPage(ctx, r.target.metrics)
		if err != nil {
			return l, false
		}
		l.syncs, _ = sumMetric(bytes.NewReader(page), "mailrace_spool_syncs_total") // a spool that keeps nothing has none
		l.queue, _ = sumMetric(bytes.NewReader(page), "mailrace_router_recipients")
	}
	if r.sink != nil {
		s, _ := r.sink.report()
		l.sink, l.sinkAt, l.arrived = s.Process.CPU, s.Elapsed, s.Messages
	}
	return l, true
}

// since is the sample at the end of the time from a look to this one.
func (l *look) since(before *look, began time.Time) Sample {
	s := Sample{At: l.at.Sub(began), Queue: l.queue, P99: l.worst}
	if d := l.at.Sub(before.at).Seconds(); d > 0 {
		s.MTA, s.Syncs = (l.mta-before.mta).Seconds()/d, (l.syncs-before.syncs)/d
	}
	if d := (l.sent.Elapsed - before.sent.Elapsed).Seconds(); d > 0 {
		s.Accepted, s.Generator = float64(l.sent.Accepted-before.sent.Accepted)/d, (l.sent.CPU-before.sent.CPU).Seconds()/d
	}
	if d := (l.sinkAt - before.sinkAt).Seconds(); d > 0 {
		s.Arrived, s.Sink = float64(l.arrived-before.arrived)/d, (l.sink-before.sink).Seconds()/d
	}
	return s
}

// runRecorded runs a generator to its end. rec samples meanwhile, unless it is nil.
func runRecorded(ctx context.Context, program []string, o load.Options, rec *recorder) (load.Report, error) {
	if rec == nil {
		return runLoad(ctx, program, o)
	}
	o.Lines, o.Interval = true, rec.interval()
	r, err := watchLoad(ctx, program, o, rec.show)
	rec.over.Store(true)
	return r, err
}
