package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"mailrace/bench/ledger"
	"mailrace/bench/load"
	"mailrace/bench/sink"
)

const (
	killRounds      = 20
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
	config := configOf(dir, address, "smtp://"+far.Addr(), fmt.Sprintf("[egress]\nconnections = %d\n[queue]\nretry_min = \"1s\"\n", killEgress))

	run := ledger.NewRunID()
	acked := ledger.NewTally(run, 1)
	ctx, stopLoad := context.WithCancel(t.Context())
	defer stopLoad()
	n := serve(t, config)
	loaded := make(chan error, 1)
	go func() {
		_, err := load.Run(ctx, load.Options{
			Address: address, Connections: killConnections, Sender: "s@example.com", Reconnect: true, Run: run, Acknowledged: acked,
			Domains: load.MadeUpDomains(20),
		})
		loaded <- err
	}()

	for round := range killRounds {
		goal := acked.Totals().Distinct + 1 + random.Uint64N(killAtMost)
		await(t, "mail to be accepted", func() (bool, string) {
			now := acked.Totals().Distinct
			return now >= goal, fmt.Sprintf("%d of %d\n%s", now, goal, n.output())
		})
		n.kill()
		before := far.Report()
		t.Logf("round %2d: %6d acknowledged, %6d arrived, %3d twice", round+1, acked.Totals().Distinct, before.Messages, before.Duplicates)
		n = serve(t, config)
	}
	stopLoad()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	n.awaitEmpty()
	n.stop()

	a := ledger.Compare(acked, far.Book().Run(run))
	t.Logf("%d kills: %d acknowledged, %d arrived, %d lost, %d twice, %d altered, %d arrived without their 250 told", killRounds,
		a.Acknowledged, a.Arrived, a.Lost, a.Doubled, a.Altered, a.Unacknowledged)
	if a.Lost > 0 || a.Altered > 0 {
		t.Errorf("%d lost, %d altered", a.Lost, a.Altered)
	}
	if inFlight := uint64(killRounds * (2*killEgress + 2*killConnections)); a.Doubled > inFlight {
		t.Errorf("%d arrived twice, more than the %d that can have been in flight", a.Doubled, inFlight)
	}
}
