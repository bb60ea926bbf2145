package console

import "io"

// Output is where a sub-command of the bench puts what it has to say.
type Output struct {
	JSON   bool      // reports as JSON on Stdout, and no progress for people
	Stdout io.Writer // reports
	Stderr io.Writer // progress
}
