package engine

import "testing"

// TestGarbageIsBounded: little is live, much garbage may lie; much is live, and it is bounded in bytes, down to the least percentage.
func TestGarbageIsBounded(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 20 << 20: 400, 48 << 20: 400, 96 << 20: 200, 192 << 20: 100, 384 << 20: 50, 768 << 20: 25, 100 << 30: 25,
	} {
		if got := garbagePercent(live, garbageMax); got != want {
			t.Errorf("%d MiB live: %d%%, want %d%%", live>>20, got, want)
		}
	}
	if got := garbagePercent(64<<20, garbageMin); got != 50 {
		t.Errorf("%d%%", got)
	}
}
