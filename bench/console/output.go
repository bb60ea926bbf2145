package console

import "io"

// Output is where a sub-command of the bench puts what it has to say.
type Output struct {
	JSON    bool      // reports as JSON on Stdout, and no progress for people
	HTML    string    // file for the report as a page, where the sub-command has one; "" = none
	Command string    // the command line, for the page
	Version string    // of this program, for the page
	Stdout  io.Writer // reports
	Stderr  io.Writer // progress
}
