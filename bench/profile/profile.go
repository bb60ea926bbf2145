// Package profile takes profiles of a node while it is under load: the node serves them on loopback, the bench fetches them into files for
// `go tool pprof`. A node that is not told to serve them pays nothing for it.
package profile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Kinds are the profiles that are taken: time on a processor, what was allocated, where goroutines waited, and which held a mutex that others waited for.
var Kinds = []string{"cpu", "allocs", "block", "mutex"}

// What a process notes from then on when it serves profiles: a blocking event for each blockStep that goroutines waited, and one of mutexShare
// contentions. It is not switched on for a profile alone: the runtime would take the delays of those who wait already from the start of time.
const (
	blockStep  = 10 * time.Microsecond
	mutexShare = 10
)

// ErrAddress is returned for an address that strangers might reach.
var ErrAddress = errors.New("profiles are served on loopback only")

// Serve serves the profiles of this process at host:port until the context ends. It returns once it listens; the host must be a loopback address.
func Serve(ctx context.Context, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	if !at.Addr().IsLoopback() {
		return fmt.Errorf("%w: %s", ErrAddress, address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("profiles: %w", err)
	}
	runtime.SetBlockProfileRate(int(blockStep))
	runtime.SetMutexProfileFraction(mutexShare)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /cpu", pprof.Profile)
	mux.Handle("GET /allocs", pprof.Handler("allocs"))
	mux.Handle("GET /block", pprof.Handler("block"))
	mux.Handle("GET /mutex", pprof.Handler("mutex"))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }() // Close is all that ends it
	return nil
}

// grace is how much longer than its time a profile may take to come.
const grace = 30 * time.Second

// Take takes all Kinds of profiles at the same time, of what the process that serves them does for d from now on, to the second and one at least. It
// leaves them in the files <prefix>-<kind>.pprof.
func Take(ctx context.Context, address, prefix string, d time.Duration) error {
	seconds := max(1, int(d/time.Second))
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+grace)
	defer cancel()
	faults := make([]error, len(Kinds))
	var wait sync.WaitGroup
	for i, kind := range Kinds {
		from := url.URL{Scheme: "http", Host: address, Path: kind, RawQuery: "seconds=" + strconv.Itoa(seconds)}
		wait.Go(func() {
			if err := fetch(ctx, from.String(), prefix+"-"+kind+".pprof"); err != nil {
				faults[i] = fmt.Errorf("%s profile: %w", kind, err)
			}
		})
	}
	wait.Wait()
	return errors.Join(faults...)
}

// fetch leaves what a URL answers in a file.
func fetch(ctx context.Context, from, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, text)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
