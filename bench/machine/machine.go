// Package machine says what machine a bench runs on, and how quiet it was meanwhile. Linux only.
package machine

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Report is the machine, and what else it did while it was watched.
type Report struct {
	CPU    string        `json:"cpu"`   // its model
	Cores  int           `json:"cores"` // that Go programs may use
	Memory int64         `json:"memory_bytes"`
	Kernel string        `json:"kernel"`
	Go     string        `json:"go"`
	Began  time.Time     `json:"began"`
	Took   time.Duration `json:"took_ns"`

	// Shares of the machine's CPU time while it was watched.
	Busy  float64 `json:"busy"`  // in use, by the bench or by others
	Steal float64 `json:"steal"` // that the hypervisor gave to other guests
	Wait  float64 `json:"wait"`  // idle, and waiting for a disk

	Load [2]float64 `json:"load"` // average of the last minute, before and after. The bench itself is in the second
}

// Limits beyond which a machine counts as noisy.
const (
	stealLimit = 0.02
	loadLimit  = 0.5 // of the load average before, for each core
)

// Watch is a machine that is being watched.
type Watch struct {
	report Report
	before ticks
}

// Begin looks at the machine. What cannot be read stays empty: a bench runs without it.
func Begin() *Watch {
	w := &Watch{report: Report{Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(), Began: time.Now()}}
	w.report.CPU = firstField(read("/proc/cpuinfo"), "model name")
	w.report.Kernel = strings.TrimSpace(string(read("/proc/sys/kernel/osrelease")))
	if kib, _, ok := strings.Cut(firstField(read("/proc/meminfo"), "MemTotal"), " "); ok {
		n, _ := strconv.ParseInt(kib, 10, 64)
		w.report.Memory = n << 10
	}
	w.before = readTicks(read("/proc/stat"))
	w.report.Load[0] = readLoad(read("/proc/loadavg"))
	return w
}

// End looks again and returns what was seen.
func (w *Watch) End() Report {
	r := w.report
	r.Took = time.Since(r.Began)
	r.Load[1] = readLoad(read("/proc/loadavg"))
	after := readTicks(read("/proc/stat"))
	if all := after.all - w.before.all; all > 0 {
		share := func(n uint64) float64 { return float64(n) / float64(all) }
		r.Busy, r.Steal, r.Wait = share(after.busy-w.before.busy), share(after.steal-w.before.steal), share(after.wait-w.before.wait)
	}
	return r
}

// Notes say what makes figures taken meanwhile less than what they seem.
func (r *Report) Notes() (notes []string) {
	if r.Steal > stealLimit {
		notes = append(notes, fmt.Sprintf("NOISE: the hypervisor took %.1f%% of the CPU time for other guests", 100*r.Steal))
	}
	if r.Load[0] > loadLimit*float64(r.Cores) {
		notes = append(notes, fmt.Sprintf("NOISE: the load average was %.1f on %d cores before the bench began: the machine was busy with other work",
			r.Load[0], r.Cores))
	}
	return notes
}

// String is the machine in a line.
func (r *Report) String() string {
	return fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s, %s", r.CPU, r.Cores, float64(r.Memory)/(1<<30), r.Kernel, r.Go)
}

// Quiet is how quiet it was, in a line.
func (r *Report) Quiet() string {
	return fmt.Sprintf("load average %.2f before and %.2f after, CPU %.0f%% busy, %.1f%% stolen, %.1f%% waiting for a disk", r.Load[0], r.Load[1], 100*r.Busy,
		100*r.Steal, 100*r.Wait)
}

// ticks are times since the machine's start, of all processors, in the kernel's unit.
type ticks struct{ all, busy, steal, wait uint64 }

// readTicks reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already (proc(5)).
func readTicks(page []byte) (t ticks) {
	line, _, _ := bytes.Cut(page, []byte{'\n'})
	fields := bytes.Fields(line)
	if len(fields) < 9 || string(fields[0]) != "cpu" {
		return ticks{}
	}
	for i, f := range fields[1:9] {
		n, err := strconv.ParseUint(string(f), 10, 64)
		if err != nil {
			return ticks{}
		}
		t.all += n
		switch i {
		case 3: // idle
		case 4:
			t.wait = n
		case 7:
			t.steal = n
		default:
			t.busy += n
		}
	}
	return t
}

// readLoad reads the average of the last minute from /proc/loadavg.
func readLoad(page []byte) float64 {
	first, _, _ := bytes.Cut(page, []byte{' '})
	v, err := strconv.ParseFloat(string(first), 64)
	if err != nil {
		return 0
	}
	return v
}

// firstField finds a line such as "model name : x" or "MemTotal: 12 kB" and returns what is behind the colon, or "".
func firstField(page []byte, name string) string {
	for line := range bytes.Lines(page) {
		if key, value, ok := bytes.Cut(line, []byte{':'}); ok && string(bytes.TrimSpace(key)) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return ""
}

func read(path string) []byte {
	page, _ := os.ReadFile(path)
	return page
}
