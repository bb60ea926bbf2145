package console

import (
	"encoding/json"
	"io"
)

// Output is where a sub-command of the bench puts what it has to say.
type Output struct {
	JSON   bool      // reports as JSON on Stdout, and no progress for people
	Stdout io.Writer // reports
	Stderr io.Writer // progress
}

// Report prints a report: as one JSON object, or as text for people.
func (o Output) Report(r interface{ WriteText(io.Writer) error }) error {
	if o.JSON {
		return json.NewEncoder(o.Stdout).Encode(r)
	}
	return r.WriteText(o.Stdout)
}
