package scenario

import (
	"context"
	"errors"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/result"
)

// ErrAccounting is returned when mail was lost, doubled or altered on its way: the figures of such a run are worth nothing.
var ErrAccounting = errors.New("mail was lost, doubled or altered")

// accountFault is ErrAccounting if anything was.
func accountFault(a ledger.Account) error {
	if a.Clean() {
		return nil
	}
	return ErrAccounting
}

// finished is a scenario that has come to its end.
type finished interface {
	result.Reporter
	fault() error // what it shows that must not be. Times and rates are not judged
}

// present prints a report, as text or as one JSON object, and leaves its page if one is asked for. It returns what the report shows that must
// not be.
func present(out console.Output, r finished) error {
	return errors.Join(result.Print(out, r), r.fault())
}

// Command is `mailrace bench accept` and `mailrace bench relay`: it runs the scenario and presents its report.
func Command(ctx context.Context, kind Kind, o Options, out console.Output) error {
	o.Progress = out.Stderr
	r, err := Run(ctx, kind, o)
	if err != nil {
		return err
	}
	return present(out, &r)
}
