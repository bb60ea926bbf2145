package dialog

import (
	"fmt"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/result"
)

// Report is how all dialogs went.
type Report struct {
	Address    string        `json:"address"`
	Greeting   string        `json:"greeting,omitempty"`
	Mode       Mode          `json:"mode"`
	TLS        string        `json:"tls"`
	Ok         int           `json:"ok"`
	Failed     int           `json:"failed"`
	NotOffered int           `json:"not_offered"`
	TurnedAway int           `json:"turned_away"`
	Took       time.Duration `json:"took_ns"`
	Dialogs    []Result      `json:"dialogs"`
}

func newReport(o *Options, s *server, results []Result, took time.Duration) *Report {
	r := &Report{Address: o.Address, Greeting: s.greeting, Mode: o.Mode, TLS: o.TLS, Took: took, Dialogs: results}
	for _, result := range results {
		switch result.Outcome {
		case Ok:
			r.Ok++
		case Failed:
			r.Failed++
		case NotOffered:
			r.NotOffered++
		case TurnedAway:
			r.TurnedAway++
		}
	}
	return r
}

// Result is the report for people: what was not run, what failed with its transcript, and the sums.
func (r *Report) Result() result.Result {
	var text strings.Builder
	for _, d := range r.Dialogs {
		if d.Outcome == NotOffered || d.Outcome == TurnedAway {
			fmt.Fprintf(&text, "%s  %s: %s\n", d.Outcome, d.Name, d.Reason)
		}
	}
	for _, d := range r.Dialogs {
		if d.Outcome != Failed {
			continue
		}
		fmt.Fprintf(&text, "failed       %s: %s\n", d.Name, d.Reason)
		for _, note := range d.Notes {
			fmt.Fprintf(&text, "    note: %s\n", note)
		}
		for _, line := range d.Transcript {
			fmt.Fprintf(&text, "    %s\n", line)
		}
	}
	fmt.Fprintf(&text, "%s, mode %s, tls %s: %d ok, %d failed, %d not offered, %d turned away, in %s", r.Address, r.Mode, r.TLS, r.Ok, r.Failed,
		r.NotOffered, r.TurnedAway, console.Duration(r.Took))
	return result.Result{Name: "dialogs", Parts: []result.Part{{Text: text.String()}}}
}
