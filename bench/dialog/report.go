package dialog

import (
	"fmt"
	"io"
	"time"

	"mailrace/bench/console"
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

// WriteText prints what failed, with its transcript, what was not run, and the sums.
func (r *Report) WriteText(w io.Writer) error {
	for _, d := range r.Dialogs {
		if d.Outcome == NotOffered || d.Outcome == TurnedAway {
			fmt.Fprintf(w, "%s  %s: %s\n", d.Outcome, d.Name, d.Reason)
		}
	}
	for _, d := range r.Dialogs {
		if d.Outcome != Failed {
			continue
		}
		fmt.Fprintf(w, "failed       %s: %s\n", d.Name, d.Reason)
		for _, note := range d.Notes {
			fmt.Fprintf(w, "    note: %s\n", note)
		}
		for _, line := range d.Transcript {
			fmt.Fprintf(w, "    %s\n", line)
		}
	}
	_, err := fmt.Fprintf(w, "%s, mode %s, tls %s: %d ok, %d failed, %d not offered, %d turned away, in %s\n", r.Address, r.Mode, r.TLS, r.Ok, r.Failed,
		r.NotOffered, r.TurnedAway, console.Duration(r.Took))
	return err
}
