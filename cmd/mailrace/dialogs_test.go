package main

import (
	"encoding/json"
	"strings"
	"testing"

	"mailrace/bench/dialog"
)

// TestDialogs has all dialogs of the suite with a node, however they are cut into writes. A node that relays for the client fails none.
func TestDialogs(t *testing.T) {
	n := serve(t, configOf(t.TempDir(), "127.0.0.1:0", "discard", "[limits]\nmessage_size = 100000\n"))
	for _, mode := range []dialog.Mode{dialog.Whole, dialog.Segments, dialog.Bytes} {
		t.Run(string(mode), func(t *testing.T) {
			r, err := dialog.Run(t.Context(), dialog.Options{Address: n.smtp, Mode: mode, Timeout: patience})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range r.Dialogs {
				if d.Outcome == dialog.Failed {
					t.Errorf("%s: %s\n    %s", d.Name, d.Reason, strings.Join(d.Transcript, "\n    "))
				}
				if d.Outcome == dialog.NotOffered && strings.Contains(d.Reason, "refused") {
					t.Errorf("%s: %s", d.Name, d.Reason)
				}
			}
		})
	}
	n.stop()
}

// TestDialogsCommand runs them as a program.
func TestDialogsCommand(t *testing.T) {
	n := serve(t, configOf(t.TempDir(), "127.0.0.1:0", "discard", ""))
	out, errs, status := mailrace(t, "bench", "dialogs", "--address", n.smtp, "--only", "^smuggling/", "--mode", "segments", "--json")
	var r dialog.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != 0 || r.Ok < 80 || r.Failed != 0 || r.Mode != dialog.Segments {
		t.Errorf("status %d, %v: %s%s", status, err, out, errs)
	}
	if _, errs, status := mailrace(t, "bench", "dialogs", "--address", n.smtp, "--mode", "x"); status != 1 || !strings.Contains(errs, "whole, bytes, segments") {
		t.Errorf("status %d: %s", status, errs)
	}
	n.stop()
}
