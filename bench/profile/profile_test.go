package profile

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// values are what the samples of each kind of profile count; the names stand in its table of strings.
var values = map[string]string{"cpu": "nanoseconds", "allocs": "alloc_space", "block": "contentions", "mutex": "contentions"}

// TestTake: each profile is one, of what happened meanwhile.
func TestTake(t *testing.T) {
	address := free(t)
	if err := Serve(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	runtime.SetMutexProfileFraction(1) // of few contentions on a busy machine each counts
	stop := make(chan struct{})
	defer close(stop)
	var mu sync.Mutex
	for range 4 {
		go func() {
			for {
				mu.Lock()
				time.Sleep(time.Millisecond) // so that the others wait for the mutex
				mu.Unlock()
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
	prefix := filepath.Join(t.TempDir(), "test")
	if err := Take(t.Context(), address, prefix, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for kind, value := range values {
		text := unpacked(t, prefix+"-"+kind+".pprof")
		if !bytes.Contains(text, []byte(value)) {
			t.Errorf("%s: no %s in %d octets", kind, value, len(text))
		}
		if contended := kind == "block" || kind == "mutex"; contended && !bytes.Contains(text, []byte("TestTake")) {
			t.Errorf("%s: who waits is not in it", kind)
		}
	}
}

// unpacked is what a profile holds.
func unpacked(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return text
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestServeRefuses(t *testing.T) {
	for _, address := range []string{"", "localhost:1", "127.0.0.1", "127.0.0.1:x"} {
		if err := Serve(t.Context(), address); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
	for _, address := range []string{"0.0.0.0:1", "192.0.2.1:1", "[::]:1"} {
		if err := Serve(t.Context(), address); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

// TestTakeFails: nobody serves, or there is no place for the files, or the server is told to end.
func TestTakeFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	address := free(t)
	if err := Take(ctx, address, filepath.Join(t.TempDir(), "a"), 0); err == nil || strings.Count(err.Error(), "profile:") != len(Kinds) {
		t.Errorf("%v", err)
	}
	if err := Serve(ctx, address); err != nil {
		t.Fatal(err)
	}
	if err := Take(ctx, address, filepath.Join(t.TempDir(), "missing", "a"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	cancel()
	if err := Take(ctx, address, filepath.Join(t.TempDir(), "a"), time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
