package scenario

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailrace/bench/profile"
)

// TestProfiles: a run that is asked for them leaves profiles of each node but the ceiling, and is accounted for as ever.
func TestProfiles(t *testing.T) {
	for name, run := range map[string]func(o Options) (finished, error){
		"relay-mta": func(o Options) (finished, error) {
			r, err := Run(t.Context(), Relay, o)
			return &r, err
		},
		"accept-mta": func(o Options) (finished, error) {
			r, err := RunLatency(t.Context(), LatencyOptions{Options: o, Shares: Percents{50}})
			return &r, err
		},
		"accept-loops-1-shards-1": func(o Options) (finished, error) {
			r, err := RunShards(t.Context(), ShardsOptions{Options: o, Loops: Numbers{1}, Shards: Numbers{1}, ConnectionsOf: Numbers{2, 4}})
			return &r, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Profile = filepath.Join(t.TempDir(), "profiles")
			r, err := run(o)
			if err != nil || r.fault() != nil {
				t.Fatalf("%v, %v", err, r.fault())
			}
			for _, kind := range profile.Kinds {
				if text, err := os.ReadFile(filepath.Join(o.Profile, name+"-"+kind+".pprof")); err != nil || len(text) < 2 || text[0] != 0x1f || text[1] != 0x8b {
					t.Errorf("%s is none (%v)", kind, err)
				}
			}
			if null, _ := filepath.Glob(filepath.Join(o.Profile, "*ceiling*")); len(null) > 0 {
				t.Errorf("of the ceiling: %v", null)
			}
		})
	}
}

// TestNoProfiles: without a directory nothing is taken, and no load runs for it.
func TestNoProfiles(t *testing.T) {
	args, p, err := profileServer("", nil)
	if len(args) > 0 || p != nil || err != nil {
		t.Errorf("%v, %v, %v", args, p, err)
	}
	err = p.under(t.Context(), "x", time.Hour, func() error { t.Error("a load ran"); return nil })
	if err != nil || p.beside(t.Context(), "x", time.Hour)() != nil {
		t.Error(err)
	}
}
