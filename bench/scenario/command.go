package scenario

import (
	"context"
	"errors"

	"mailrace/bench/console"
)

// ErrAccounting is returned when mail was lost, doubled or altered on its way: the figures of such a run are worth nothing.
var ErrAccounting = errors.New("mail was lost, doubled or altered")

// Command is `mailrace bench accept` and `mailrace bench relay`: it runs the scenario and prints its report, as a table or as one JSON object.
func Command(ctx context.Context, kind Kind, o Options, out console.Output) error {
	o.Progress = out.Stderr
	r, err := Run(ctx, kind, o)
	if err != nil {
		return err
	}
	err = out.Report(&r)
	if !r.Account.Clean() {
		err = errors.Join(err, ErrAccounting)
	}
	return err
}
