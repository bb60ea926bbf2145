// Package result is the form that all measurements end in: a text for people, JSON, and a page with charts.
package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"mailrace/bench/chart"
	"mailrace/bench/console"
	"mailrace/bench/machine"
)

// Result is what a measurement shows. Text and page have the same words in the same order; the charts are for the page alone.
type Result struct {
	Name    string // of the scenario
	Lead    string // what was measured, in a line
	Parts   []Part
	Facts   []string        // what is made of the figures, a line each
	Notes   []string        // what makes them less than what they seem
	Machine *machine.Report // nil = nobody looked
	Charts  []chart.Chart
}

// Part is a table, or a text that keeps its lines.
type Part struct {
	Header []string
	Rows   [][]string
	Text   string
}

// Reporter is a finished measurement. It is also what is encoded as JSON.
type Reporter interface {
	Result() Result
}

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) error {
	var errs []error
	line := func(text string) {
		_, err := fmt.Fprintln(w, text)
		errs = append(errs, err)
	}
	if r.Lead != "" {
		line(r.Name + ": " + r.Lead)
	}
	for i, p := range r.Parts {
		if i > 0 || r.Lead != "" {
			line("")
		}
		if p.Text != "" {
			line(p.Text)
		}
		if p.Text != "" && p.Header != nil {
			line("")
		}
		if p.Header != nil {
			errs = append(errs, console.Table(w, p.Header, p.Rows))
		}
	}
	if len(r.Facts) > 0 {
		line("")
	}
	for _, fact := range r.Facts {
		line(fact)
	}
	for _, note := range r.notes() {
		line("note: " + note)
	}
	return errors.Join(errs...)
}

// notes are those of the result and of the machine.
func (r *Result) notes() []string {
	if r.Machine == nil {
		return r.Notes
	}
	return append(r.Notes[:len(r.Notes):len(r.Notes)], r.Machine.Notes()...)
}

// Print prints a measurement as text or JSON, and leaves its page where the output says.
func Print(out console.Output, r Reporter) error {
	result := r.Result()
	var err error
	if out.JSON {
		err = json.NewEncoder(out.Stdout).Encode(r)
	} else {
		err = result.WriteText(out.Stdout)
	}
	if out.HTML == "" {
		return err
	}
	return errors.Join(err, Save(out.HTML, Page{Title: "mailrace bench " + result.Name, Command: out.Command, Version: out.Version, Results: []Result{result}}))
}
