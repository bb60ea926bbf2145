package scenario

import (
	"context"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

// Measure is one target in one round.
type Measure struct {
	Messages        uint64        `json:"messages"`   // that the MTA accepted; all figures per message divide by it
	Elapsed         time.Duration `json:"elapsed_ns"` // accept: to the last reply; relay: to the last arrival at the sink
	Rate            float64       `json:"messages_per_second"`
	Octets          float64       `json:"octets_per_message"` // of content, the mean of those accepted
	CPU             float64       `json:"mta_cpu_us"`         // microseconds of the MTA per message
	GeneratorCPU    float64       `json:"generator_cpu_us"`
	SinkCPU         float64       `json:"sink_cpu_us"`
	SyncsPerMessage float64       `json:"syncs_per_message"`
	MessagesPerSync float64       `json:"messages_per_sync"` // 0 = no sync at all
	P50             time.Duration `json:"p50_ns"`            // of the replies to the generator
	P99             time.Duration `json:"p99_ns"`
	Max             time.Duration `json:"max_ns"`
	RSSPeak         int64         `json:"rss_peak_bytes"`
	RSS             int64         `json:"rss_bytes"`      // at the end
	Written         float64       `json:"mta_disk_bytes"` // that the MTA wrote to disks, per message
	GeneratorBusy   float64       `json:"generator_busy"` // share of one core of the time that it ran
	SinkBusy        float64       `json:"sink_busy"`
	Refused         uint64        `json:"refused"`           // messages that got 4xx or 5xx, or no reply
	Failure         string        `json:"failure,omitempty"` // the last reason for that
	Due             uint64        `json:"due"`               // messages that were to be sent, at a fixed rate; 0 = there was none
	ledger.Account

	Samples []Sample        `json:"samples,omitempty"`
	Curve   []time.Duration `json:"curve_ns,omitempty"` // of the replies to the generator, at latency.Shares
}

// bench is a scenario that runs.
type bench struct {
	opts  Options
	kind  Kind
	sink  *sinkChild // nil in Accept
	gauge string     // file in which the sink counts, for the generator to follow; "" = it does not
	rate  float64    // messages per second, due at fixed times; 0 = as fast as replies come
	began time.Time  // what the times of samples count from
}

// measure warms the target up and measures it. Profiles are taken under a further load, which is not measured.
func (b *bench) measure(ctx context.Context, t *target) (Measure, error) {
	var m Measure
	syncs := uint64(0)
	if t.peer != nil {
		syncs, _ = t.peer.Syncs()
	}
	warm, err := b.send(ctx, t, b.opts.Warmup, nil)
	if err != nil {
		return m, err
	}
	if err := b.cleanUp(ctx, t); err != nil {
		return m, err
	}
	t.warmed(syncs, warm.Accepted)
	before, err := t.sample(ctx)
	if err != nil {
		return m, err
	}
	var sinkBefore sink.Report
	if b.sink != nil {
		sinkBefore, _ = b.sink.report()
	}
	rec := record(ctx, t, b.sink, b.began, b.opts.Duration)
	r, err := b.send(ctx, t, b.opts.Duration, rec)
	m.Samples = rec.end()
	if err != nil {
		return m, err
	}
	if err := b.cleanUp(ctx, t); err != nil {
		return m, err
	}
	after, err := t.sample(ctx)
	if err != nil {
		return m, err
	}
	m.Account, m.Due = r.account, uint64(b.rate*b.opts.Duration.Seconds())
	m.charge(&r.Report, &before, &after)
	if t.syncsEach > 0 {
		m.SyncsPerMessage, m.MessagesPerSync = t.syncsEach, 1/t.syncsEach
	}
	if b.sink != nil {
		sinkAfter, _ := b.sink.report()
		m.chargeSink(&r.Report, &sinkBefore, &sinkAfter)
	}
	if m.Elapsed > 0 {
		m.Rate = float64(m.Messages) / m.Elapsed.Seconds()
		if m.Acknowledged > 0 {
			m.Rate *= 1 - float64(m.Lost)/float64(m.Acknowledged) // what never arrived was not relayed
		}
	}
	return m, t.profiles.under(ctx, string(b.kind)+"-"+t.name, b.opts.Duration, func() error {
		_, err := b.send(ctx, t, b.opts.Duration, nil)
		return err
	})
}

// charge fills in what the generator says, and what the MTA used meanwhile.
func (m *Measure) charge(r *load.Report, before, after *sample) {
	m.Messages, m.Elapsed, m.Curve = r.Accepted, r.Sending, r.Curve
	m.Refused, m.Failure = r.Tempfail+r.Permfail+r.Lost, r.Failure
	m.CPU, m.GeneratorCPU = m.micros(after.usage.CPU-before.usage.CPU), m.micros(r.CPU)
	m.P50, m.P99, m.Max, m.RSSPeak, m.RSS = r.Latency.P50, r.Latency.P99, r.Latency.Max, after.usage.RSSPeak, after.usage.RSS
	if r.Accepted > 0 {
		m.Octets = float64(r.Octets) / float64(r.Accepted)
		m.Written = float64(after.usage.Written-before.usage.Written) / float64(r.Accepted)
	}
	if r.Elapsed > 0 { // not Sending: who takes a few messages and then none keeps it waiting
		m.GeneratorBusy = float64(r.CPU) / float64(r.Elapsed)
	}
	if syncs := after.syncs - before.syncs; syncs > 0 && r.Accepted > 0 {
		m.SyncsPerMessage, m.MessagesPerSync = syncs/float64(r.Accepted), float64(r.Accepted)/syncs
	}
}

// chargeSink fills in what the sink used, and until when: to the last arrival.
func (m *Measure) chargeSink(r *load.Report, before, after *sink.Report) {
	cost := after.Process.CPU - before.Process.CPU
	if after.Messages > before.Messages {
		m.Elapsed = after.Newest.Sub(r.Began)
	}
	m.SinkCPU = m.micros(cost)
	if m.Elapsed > 0 {
		m.SinkBusy = float64(cost) / float64(m.Elapsed)
	}
}

// micros is a part of a time for each message, in microseconds.
func (m *Measure) micros(total time.Duration) float64 {
	if m.Messages == 0 {
		return 0
	}
	return float64(total) / float64(time.Microsecond) / float64(m.Messages)
}

// What cleanUp waits for: how often it looks, what CPU time between two looks is none, and how many looks it takes at most.
const (
	cleanUpStep  = 100 * time.Millisecond
	cleanUpQuiet = 5 * time.Millisecond
	cleanUpLooks = 30
)

// cleanUp waits until an MTA of several processes that relays has cleaned up behind what it delivered: that is part of its cost, and not of the next one's.
func (b *bench) cleanUp(ctx context.Context, t *target) error {
	if t.peer == nil || b.kind != Relay {
		return nil
	}
	ticker := time.NewTicker(cleanUpStep)
	defer ticker.Stop()
	before, err := t.cpu()
	for range cleanUpLooks {
		if err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		var now time.Duration
		if now, err = t.cpu(); now-before < cleanUpQuiet {
			break
		}
		before = now
	}
	return err
}

// sent is a generator's report with what became of its mail.
type sent struct {
	load.Report
	account ledger.Account
}

// send runs a generator against the target and waits until the sink, if there is one, has everything. rec samples meanwhile, unless it is nil.
func (b *bench) send(ctx context.Context, t *target, d time.Duration, rec *recorder) (sent, error) {
	o := load.Options{Address: t.address, Connections: b.opts.Connections, Duration: d,
		LockStep: b.opts.LockStep || t.lockStep, Sizes: b.opts.Sizes, Recipients: b.opts.Recipients, Sender: "sender@bench.mailrace",
		Gauge: b.gauge, Window: b.window(), Secure: t.secure, Domains: t.domains}
	if o.Rate = b.rate; b.rate > 0 {
		o.Gauge, o.Window = "", 0
	}
	r, err := runRecorded(ctx, b.opts.Program, o, rec)
	s := sent{Report: r, account: ledger.Account{Acknowledged: r.Recipients}}
	if err != nil || b.sink == nil {
		return s, err
	}
	s.account, err = drainRuns(ctx, b.sink, []load.Report{r}, b.opts.Drain)
	return s, err
}

// window is the backlog in messages of the mean size, and always enough for every connection to have one under way and one arriving.
func (b *bench) window() uint64 {
	if b.gauge == "" {
		return 0
	}
	octets, weight := 0, 0
	for _, z := range b.opts.Sizes {
		octets, weight = octets+z.Octets*z.Weight, weight+z.Weight
	}
	return uint64(max(b.opts.Backlog*weight/octets, 2*b.opts.Connections))
}

func totalsOf(s sink.Report, r load.Report) ledger.Totals {
	for _, run := range s.Runs {
		if run.Run == r.Run {
			return run.Totals
		}
	}
	return ledger.Totals{}
}
