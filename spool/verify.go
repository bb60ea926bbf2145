package spool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mailrace/proto/message"
)

// Verified is what Verify found.
type Verified struct {
	Shards     int              `json:"shards"`
	Records    map[string]Tally `json:"records"` // by kind
	Messages   int64            `json:"messages"`
	Octets     int64            `json:"octets"`     // of content, as the envelopes say
	Recipients map[string]int64 `json:"recipients"` // by state

	Oldest time.Time   `json:"oldest,omitzero"` // arrival
	Newest time.Time   `json:"newest,omitzero"`
	Ages   Percentiles `json:"ages_s"` // seconds
	Sizes  Percentiles `json:"sizes"`  // octets of content

	// Not faults: what the next start of a node collects.
	Settled       int64 `json:"settled"`        // messages with nothing left to do
	Orphans       Tally `json:"orphans"`        // records that belong to no message
	ExpiredClaims int64 `json:"expired_claims"` // idempotency keys

	Parked int64 `json:"parked"` // messages that wait in the due index

	InFlight int64 `json:"in_flight"` // deliveries, when batches were written; the next start of a node finds out what became of them
	InDoubt  int64 `json:"in_doubt"`  // recipients that a delivery may have reached

	Faults   map[string]int64 `json:"faults"`   // by reason
	Examples []Fault          `json:"examples"` // of each reason some

	Took time.Duration `json:"took_ns"`
}

// OK says that nothing is wrong.
func (v *Verified) OK() bool { return len(v.Faults) == 0 }

// Fault is something that is wrong in a spool.
type Fault struct {
	Reason string `json:"reason"`
	Shard  int    `json:"shard"`
	ID     string `json:"id,omitempty"` // of the message, if it is one's
	Detail string `json:"detail"`
}

// faultExamples is how many faults of a reason are told one by one.
const faultExamples = 20

// The reasons of faults. Those of records that cannot be read begin with the kind, those that were moved aside earlier with "kept aside".
const (
	faultOpen    = "store does not open"
	faultDamaged = "files are damaged"
	faultKind    = "kind of record is not known"
	faultShard   = "message is in another's shard"
	faultMissing = "content is missing"
	faultSize    = "content has another size"
	faultContent = "content cannot be read"
	faultDue     = "parked message is not in the due index; the next start takes it up"
)

// Verify reads every record of the spool at o.Path and says what is there and what is wrong. It changes nothing, and takes the lock of the spool,
// so no other process may have it open. Its error says that it could not do its work; faults are in the report. tell is as in Reshard.
func Verify(ctx context.Context, o Options, tell func(Progress)) (v *Verified, err error) {
	o = o.withDefaults()
	o.ReadOnly, o.Shards = true, 0
	began := time.Now()
	lock, err := lockDirectory(o)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	l, err := readLayout(o)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	v = &Verified{Shards: l.shards, Recipients: map[string]int64{}, Faults: map[string]int64{}, Examples: []Fault{}}
	s, failed, err := openWhatOpens(o, l)
	if err != nil {
		return nil, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for i, cause := range failed {
		v.fault(faultOpen, i, 0, cause.Error())
	}
	a := &audit{Verified: v, shards: l.shards, now: o.Now(), parked: map[int]int64{}}
	if err := a.run(ctx, s, tell); err != nil {
		return v, fmt.Errorf("verifying %s: %w", o.Path, err)
	}
	v.Took = time.Since(began)
	return v, nil
}

// openWhatOpens opens the shards of a layout for reading, without those that fail, by number.
func openWhatOpens(o Options, l layout) (s *Spool, failed map[int]error, err error) {
	if s, err = newSpool(o, l); err != nil {
		return nil, nil, err
	}
	failed = map[int]error{}
	for i := range l.shards {
		sh, err := openShard(s, i)
		if err != nil {
			failed[i] = err
			continue
		}
		s.shards = append(s.shards, sh)
	}
	return s, failed, nil
}

func (v *Verified) fault(reason string, shard int, id message.ID, detail string) {
	v.Faults[reason]++
	if v.Faults[reason] > faultExamples {
		return
	}
	f := Fault{Reason: reason, Shard: shard, Detail: detail}
	if id != 0 {
		f.ID = id.String()
	}
	v.Examples = append(v.Examples, f)
}

// unreadable is the reason for a record that cannot be decoded.
func unreadable(kind string, err error) string {
	switch {
	case errors.Is(err, errVersion):
		return kind + ": unknown version"
	case errors.Is(err, errChecksum):
		return kind + ": checksum"
	}
	return kind + ": form"
}

// audit is the work of Verify.
type audit struct {
	*Verified
	shards int
	now    time.Time
	parked map[int]int64 // messages that say to be, by shard
	ages   spread
	sizes  spread
}

func (a *audit) run(ctx context.Context, s *Spool, tell func(Progress)) error {
	counted, err := survey(ctx, s, tell, func(sh *Shard, key []byte) error {
		a.fault(faultKind, sh.index, 0, fmt.Sprintf("key %x", key))
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	total := counted.total().Records
	if err != nil {
		total = 0 // it stopped at a damage, which is found again
	}
	a.Records = counted.byName()
	m := NewMeter(ctx, tell, "verifying", "records", total)
	defer m.End()
	for _, sh := range s.shards {
		for _, check := range []func(*Shard, *Meter) error{a.checkMessages, a.checkDue, a.checkFlights, a.checkClaims, a.checkMark, a.checkAside} {
			err := check(sh, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				a.fault(faultDamaged, sh.index, 0, fmt.Sprintf("%v; what is behind it was not verified", err))
			}
		}
	}
	if a.sizes.n > 0 {
		a.Ages, a.Sizes = a.ages.percentiles(), a.sizes.percentiles()
	}
	return nil
}
