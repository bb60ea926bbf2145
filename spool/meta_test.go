package spool

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var (
	metaSeed     = flag.Uint64("seed", 0, "seed of the metamorphic test: this one alone, once (0 = from the clock, one after the other)")
	metaTries    = flag.Int("tries", 1, "how often to run -seed: the goroutines of the stores are not in its hand")
	metaShards   = flag.Int("shards", 0, "shards in the metamorphic test at first (0 = drawn)")
	metaMemTable = flag.Int("memtable", 0, "bytes of a memtable in the metamorphic test (0 = drawn)")
	metaLives    = flag.Int("lives", 0, "lives of a spool in the metamorphic test, from one Open to the next (0 = drawn)")
	metaTally    = flag.String("tally", "", "file in which the metamorphic test goes on counting what it has done (default: none)")
	metaDuration = flag.Duration("duration", 5*time.Second, "for how long the metamorphic test begins anew")
)

// tally counts what the metamorphic test has done. Any goroutine.
type tally struct {
	worlds, messages, operations, crashes, reshards, faults, ended atomic.Int64
}

func (c *tally) String() string {
	return fmt.Sprintf("%d worlds, %d operations, %d messages, %d crashes, %d reshardings, %d lives with faults, %d ended by one",
		c.worlds.Load(), c.operations.Load(), c.messages.Load(), c.crashes.Load(), c.reshards.Load(), c.faults.Load(), c.ended.Load())
}

// counters are all counts, in the order of the file.
func (c *tally) counters() []*atomic.Int64 {
	return []*atomic.Int64{&c.worlds, &c.operations, &c.messages, &c.crashes, &c.reshards, &c.faults, &c.ended}
}

// load reads what earlier processes counted, if they did.
func (c *tally) load(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	for i, field := range strings.Fields(string(text)) {
		n, _ := strconv.ParseInt(field, 10, 64)
		c.counters()[i].Store(n)
	}
}

func (c *tally) store(file string) error {
	text := ""
	for _, n := range c.counters() {
		text += strconv.FormatInt(n.Load(), 10) + " "
	}
	return os.WriteFile(file, []byte(text), 0o600)
}

// TestMetamorphic does random things to spools, on disks that lose what was not synced, fail and are full, and holds them against a plain model of
// what was promised: see doc.go. What is there after a crash must be, in each shard, what a beginning of the Ops that were asked for makes, one
// that has all up to the last Append that was completed. A run that fails prints its seed, what was drawn, and all that it did.
func TestMetamorphic(t *testing.T) {
	var done tally
	if *metaTally != "" {
		done.load(*metaTally)
		defer func() {
			if err := done.store(*metaTally); err != nil {
				t.Error(err)
			}
		}()
	}
	stop := make(chan struct{})
	defer close(stop)
	began := time.Now()
	go progress(&done, stop)
	defer func() { t.Log(&done) }()
	if *metaSeed != 0 {
		for range *metaTries {
			runWorld(t, *metaSeed, &done)
		}
		return
	}
	seed := uint64(began.UnixNano())
	var next atomic.Uint64
	t.Run("worlds", func(t *testing.T) {
		for i := range min(runtime.GOMAXPROCS(0), 4) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for time.Since(began) < *metaDuration && !t.Failed() {
					runWorld(t, seed+next.Add(1), &done)
				}
			})
		}
	})
}

// runWorld runs the world of a seed, and ends the process if it hangs.
func runWorld(t *testing.T, seed uint64, done *tally) {
	rng := newRNG(seed)
	s := drawSetup(rng)
	for _, fix := range []struct {
		to *int
		by int
	}{{&s.shards, *metaShards}, {&s.memTable, *metaMemTable}, {&s.lives, *metaLives}} {
		if fix.by != 0 {
			*fix.to = fix.by
		}
	}
	if *metaTally != "" {
		fmt.Fprintln(os.Stderr, "seed", seed) // a panic of Pebble's would not tell it
	}
	w := newWorld(t, seed, s, rng, done)
	defer func() {
		if t.Failed() {
			t.Logf("to run it again: go test ./spool -run '^TestMetamorphic$' -seed=%d -tries=20", seed)
		}
	}()
	hang := time.AfterFunc(5*time.Minute, func() {
		all := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "seed %d hangs\n%s\n", seed, all[:runtime.Stack(all, true)])
		os.Exit(3)
	})
	defer hang.Stop()
	w.run()
	done.worlds.Add(1)
}

// progress prints a line now and then, in long runs.
func progress(done *tally, stop chan struct{}) {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintln(os.Stderr, done)
		case <-stop:
			return
		}
	}
}
