package ingress

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestRarely: what clients can make us log is bounded, and nothing is hidden.
func TestRarely(t *testing.T) {
	t.Parallel()
	var r rarely
	var out bytes.Buffer
	to, now := slog.New(slog.NewTextHandler(&out, nil)), time.Unix(1000, 0)
	for range 100 {
		r.log(now, to, slog.LevelInfo, "again")
	}
	if n := strings.Count(out.String(), "again"); n != rarelyLines || strings.Contains(out.String(), "more_since") {
		t.Errorf("%d lines: %s", n, &out)
	}
	out.Reset()
	r.log(now.Add(rarelyTime), to, slog.LevelWarn, "again", "client", "x")
	if got := out.String(); !strings.HasSuffix(got, "level=WARN msg=again client=x more_since_the_last=90\n") {
		t.Error(got)
	}
}
