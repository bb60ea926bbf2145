package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

var killRounds = flag.Int("kill.rounds", 20, "kills in TestKill")

const (
	killConnections = 50
	killEgress      = 20
	// killAtMost is how many messages a round lets through, at most, before the kill.
	killAtMost = 4000
)

// TestKill kills the node at random moments under load, time after time over one spool. Every message that got its 250 must arrive (P1, P2),
// unchanged (P5). A message may arrive twice only if its delivery was in flight when the node died (P4): on each connection to the sink
// one message waits for its final reply, and what was delivered since the last batch of the spool is not noted there yet, which is no more
// than what entered the node meanwhile: one message on each connection of the load, and as many as the sink took in that time.
func TestKill(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("MAILRACE_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("MAILRACE_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	dir := t.TempDir()
	far := receiver(t, sink.Options{})
	address := free(t)
	config := configOf(dir, address, "smtp://"+far.Addr(), fmt.Sprintf("max_size = 0\n[egress]\nconnections = %d\n[queue]\nretry_min = \"1s\"\n", killEgress))
	doubts := &doubtLedger{events: filepath.Join(dir, "events.jsonl"), times: map[string]int{}}
	domains := load.MadeUpDomains(min(*killRounds*4*killAtMost, 1<<20)) // so that a recipient tells the number of its message

	run := ledger.NewRunID()
	acked := ledger.NewTally(run, 1)
	ctx, stopLoad := context.WithCancel(t.Context())
	defer stopLoad()
	n := serve(t, config)
	loaded := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, load.Options{
			Address: address, Connections: killConnections, Sender: "s@example.com", Reconnect: true, Run: run, Acknowledged: acked,
			Domains: domains,
		})
		loaded <- err
	}()

	for round := range *killRounds {
		goal := acked.Totals().Distinct + 1 + random.Uint64N(killAtMost)
		await(t, "mail to be accepted", func() (bool, string) {
			now := acked.Totals().Distinct
			return now >= goal, fmt.Sprintf("%d of %d\n%s", now, goal, n.output())
		})
		n.kill()
		before := far.Report()
		listed := doubts.read(t)
		t.Logf("round %2d: %6d acknowledged, %6d arrived, %3d twice, %3d listed as in doubt before this kill", round+1, acked.Totals().Distinct, before.Messages,
			before.Duplicates, listed)
		n = serve(t, config)
	}
	stopLoad()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	n.awaitEmpty()
	n.stop()

	a := ledger.Compare(acked, far.Book().Run(run))
	t.Logf("%d kills: %d acknowledged, %d arrived, %d lost, %d twice, %d altered, %d arrived without their 250 told", *killRounds,
		a.Acknowledged, a.Arrived, a.Lost, a.Doubled, a.Altered, a.Unacknowledged)
	if a.Lost > 0 || a.Altered > 0 {
		t.Errorf("%d lost, %d altered", a.Lost, a.Altered)
	}
	doubts.read(t)
	inFlight := *killRounds * (2*killEgress + 2*killConnections)
	if a.Doubled > uint64(inFlight) {
		t.Errorf("%d arrived twice, more than the %d that can have been in flight", a.Doubled, inFlight)
	}
	if doubts.sum > inFlight {
		t.Errorf("%d deliveries were listed as in doubt, more than can have been in flight", doubts.sum)
	}
	unlisted := doubts.compare(far.Book().Run(run), domains, acked.Totals().Distinct*2)
	t.Logf("%d deliveries were listed as in doubt, %d copies were not", doubts.sum, unlisted)
	if unlisted > 0 {
		t.Errorf("%d copies arrived whose delivery was not listed as in doubt", unlisted)
	}
}

// doubtLedger counts the deliveries that the event log lists as in doubt, by the domain of their recipient.
type doubtLedger struct {
	events string
	times  map[string]int
	sum    int
}

// read takes what the log says, and empties it. Nobody writes to it.
func (d *doubtLedger) read(t *testing.T) (listed int) {
	t.Helper()
	text, err := os.ReadFile(d.events)
	if err == nil {
		err = os.Truncate(d.events, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if !bytes.Contains(line, []byte(`"type":"in-doubt"`)) {
			continue
		}
		var e struct{ Queue, Cause string }
		if err := json.Unmarshal(line, &e); err == nil && e.Cause != "" { // the last one may be cut short
			d.times[e.Queue]++
			listed++
		}
	}
	d.sum += listed
	return listed
}

// compare counts the copies that arrived, beside the first of each message, and were not listed. Numbers below limit were sent; where
// messages share a domain, they share what was listed.
func (d *doubtLedger) compare(arrived *ledger.Tally, domains []string, limit uint64) (unlisted int) {
	copies := map[string]int{}
	for number := range limit {
		if n := arrived.Count(number, 0); n > 1 {
			copies[domains[number%uint64(len(domains))]] += n - 1
		}
	}
	for domain, n := range copies {
		unlisted += max(n-d.times[domain], 0)
	}
	return unlisted
}
