package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"mailrace/bench/dialog"
)

// TestDialogs has all dialogs of the suite with nodes, however they are cut into writes: as a client that may relay, and as a stranger.
func TestDialogs(t *testing.T) {
	own := configOf(t.TempDir(), "127.0.0.1:0", "discard", "[limits]\nmessage_size = 100000\n")
	strange := configOf(t.TempDir(), "127.0.0.1:0", "discard", "[limits]\nmessage_size = 100000\n[limits.client]\nconnections = 0\n"+
		"connection_rate = 0\nmessages = 0\nrecipients = 0\nerrors = 0\n[limits.network]\nconnections = 0\nconnection_rate = 0\nmessages = 0\nrecipients = 0\n")
	strange = strings.Replace(strange, `relay_from = ["127.0.0.0/8"]`, "relay_domains = [\"bench.mailrace\", \"mta.test.example\"]\ngreet_delay = \"50ms\"", 1)
	for client, config := range map[string]string{"own": own, "stranger": strange} {
		n := serve(t, config)
		for _, mode := range []dialog.Mode{dialog.Whole, dialog.Segments, dialog.Bytes} {
			t.Run(client+"/"+string(mode), func(t *testing.T) {
				allWell(t, dialog.Options{Address: n.smtp, Mode: mode})
			})
		}
		n.stop()
	}
}

// TestDialogsUnderTLS has them after STARTTLS, on a port that begins with TLS, and in clear where STARTTLS is offered.
func TestDialogsUnderTLS(t *testing.T) {
	dir := t.TempDir()
	chain, key := certificate(t, dir)
	n := serve(t, configOf(dir, "127.0.0.1:0", "discard", fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n[limits]\nmessage_size = 100000\n"+
		"[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"submissions\"\nrelay_from = [\"127.0.0.0/8\"]\n", chain, key)))
	addresses := map[string]string{"off": n.smtp, "starttls": n.smtp, "implicit": n.others[0]}
	for secure, address := range addresses {
		for _, mode := range []dialog.Mode{dialog.Whole, dialog.Segments, dialog.Bytes} {
			t.Run(secure+"/"+string(mode), func(t *testing.T) {
				allWell(t, dialog.Options{Address: address, Mode: mode, TLS: secure})
			})
		}
	}
	n.stop()
}

// allWell has the dialogs, of which none may fail.
func allWell(t *testing.T, o dialog.Options) {
	t.Helper()
	o.Timeout = patience
	r, err := dialog.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range r.Dialogs {
		if d.Outcome == dialog.Failed || d.Outcome == dialog.TurnedAway {
			t.Errorf("%s: %s\n    %s", d.Name, d.Reason, strings.Join(d.Transcript, "\n    "))
		}
		if d.Outcome == dialog.NotOffered && strings.Contains(d.Reason, "refused") {
			t.Errorf("%s: %s", d.Name, d.Reason)
		}
	}
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
