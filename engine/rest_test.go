package engine

import "testing"

// TestRest: memory is given back once after work that left enough behind, and not while there is work.
func TestRest(t *testing.T) {
	collected := 0
	r := rest{collect: func() { collected++ }}
	at := uint64(0)
	for _, step := range []struct {
		name      string
		allocated uint64 // since the step before
		want      int
	}{
		{"begin", 100 << 20, 0}, {"work", 50 << 20, 0}, {"little work", restRate + 1, 0}, {"rest", restRate, 1}, {"more rest", 0, 1},
		{"too little to collect", restGarbage - 1<<20, 1}, {"rest from that", 1000, 1}, {"a little more", restRate - 1000, 2}, {"rest again", 0, 2},
		{"work again", 40 << 20, 2}, {"and rest", 0, 3},
	} {
		at += step.allocated
		if r.look(at); collected != step.want {
			t.Errorf("%s: %d collections, want %d", step.name, collected, step.want)
		}
	}
}
