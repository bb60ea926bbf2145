package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
)

// stub is a part with a report of that account.
func stub(name string, a ledger.Account) allPart {
	return allPart{name, func(context.Context) (finished, error) {
		r := &Report{Kind: Relay, Rounds: []Round{{Ceiling: measureOf(20, 1, a), MTA: measureOf(10, 2, a)}}}
		r.summarize()
		return r, nil
	}}
}

// TestAll: scenarios that fail, or show what must not be, are named and do not keep others from running; the page has them all.
func TestAll(t *testing.T) {
	broken := errors.New("no <files>")
	parts := []allPart{stub("good", ledger.Account{Acknowledged: 5, Arrived: 5}), stub("bad", ledger.Account{Acknowledged: 5, Arrived: 4, Lost: 1}),
		{"broken", func(context.Context) (finished, error) { return nil, broken }}, stub("last", ledger.Account{})}
	for _, asJSON := range []bool{false, true} {
		var stdout, stderr bytes.Buffer
		page := filepath.Join(t.TempDir(), "all.html")
		err := runAll(t.Context(), parts, console.Output{JSON: asJSON, HTML: page, Stdout: &stdout, Stderr: &stderr})
		if !errors.Is(err, ErrAccounting) || !errors.Is(err, broken) || strings.Contains(err.Error(), "good") || strings.Contains(err.Error(), "last") {
			t.Errorf("%v", err)
		}
		text, err := os.ReadFile(page)
		for _, want := range []string{`id="r0">good<`, `id="r1">bad<`, `id="r2">broken<`, `id="r3">last<`, "FAILED: no &lt;files&gt;", "ACCOUNTING: 2 lost"} {
			if err != nil || !strings.Contains(string(text), want) {
				t.Errorf("%q is not in the page (%v)", want, err)
			}
		}
		if !asJSON {
			if !strings.Contains(stdout.String(), "last: 1 rounds") {
				t.Errorf("%s", stdout.String())
			}
			continue
		}
		var r struct {
			Scenarios map[string]Report
			Failures  map[string]string
		}
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || len(r.Scenarios) != 3 || len(r.Failures) != 2 || r.Scenarios["bad"].Account.Lost != 2 {
			t.Errorf("%v, %+v", err, r)
		}
	}
}

// TestAllCancelled: what was measured until then is presented.
func TestAllCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	page := filepath.Join(t.TempDir(), "all.html")
	parts := []allPart{stub("first", ledger.Account{}), {"second", func(ctx context.Context) (finished, error) { cancel(); return nil, ctx.Err() }},
		{"third", func(context.Context) (finished, error) { t.Error("third ran"); return nil, nil }}}
	err := runAll(ctx, parts, console.Output{HTML: page, Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer)})
	text, _ := os.ReadFile(page)
	if !errors.Is(err, context.Canceled) || !bytes.Contains(text, []byte(">first<")) {
		t.Errorf("%v\n%s", err, text)
	}
}

// TestAllParts: each effort has every scenario, under a name of its own.
func TestAllParts(t *testing.T) {
	for _, o := range []AllOptions{{}, {Quick: true}, {Smoke: true}} {
		var names []string
		for _, p := range o.parts() {
			names = append(names, p.name)
		}
		if distinct := slices.Compact(slices.Sorted(slices.Values(names))); len(distinct) != len(names) || len(names) < 8 {
			t.Errorf("%+v: %v", o, names)
		}
	}
}
