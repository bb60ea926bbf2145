package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// Salvaged is what Salvage rescued and what it did not.
type Salvaged struct {
	Shards   int   `json:"shards"` // found
	Messages int64 `json:"messages"`
	Octets   int64 `json:"octets"`  // of content
	Claims   int64 `json:"claims"`  // idempotency keys
	Settled  int64 `json:"settled"` // left behind: nothing was left to do for them
	Aside    int64 `json:"aside"`   // records that cannot be read, kept aside with the content they name

	// Doubtful are messages that the damage may have brought back: they may have been delivered and removed. States counts recipients whose state
	// is lost: they are pending again. Both are among Messages.
	Doubtful int64 `json:"doubtful"`
	States   int64 `json:"states_lost"`

	Lost     int64    `json:"lost"`     // messages that are known and could not be rescued
	Examples []Loss   `json:"examples"` // of them, some; all are in Report
	Damage   []string `json:"damage"`   // to files, by shard
	Report   string   `json:"report"`   // file with a line for each message

	Took time.Duration `json:"took_ns"`
}

// OK says that nothing was wrong.
func (s *Salvaged) OK() bool { return s.Lost == 0 && s.Aside == 0 && len(s.Damage) == 0 }

// Loss is a message that could not be rescued.
type Loss struct {
	ID     string `json:"id"`
	Shard  int    `json:"shard"`
	Reason string `json:"reason"`
}

const (
	lossExamples   = 100
	damageExamples = 1000

	// salvageFile marks a directory that Salvage fills, until it has a layout file; reportFile is what it leaves for people.
	salvageFile = "SALVAGING"
	reportFile  = "SALVAGE.txt"
)

// Salvage makes a new spool at to from what can be read of the damaged one at o.Path, with o.Shards shards, 0 = as many as there were. It never
// writes to the damaged one, but for the lock that keeps a node from opening it meanwhile. Its error says that it could not do its work.
//
// Each shard is opened as it is, then with what is wrong in its files put right in memory; what a damaged file hides is leapt over. If
// anything was wrong, every table and log is also read by itself, and adds what the store does not show. Whatever ends Salvage, another run
// begins anew.
func Salvage(ctx context.Context, o Options, to string, tell func(Progress)) (done Salvaged, err error) {
	o = o.withDefaults()
	began := time.Now()
	wanted := o.Shards
	if wanted < 0 || wanted > message.MaxShards {
		return done, fmt.Errorf("shards = %d: want 1 to %d, or 0 for as many as there were", wanted, message.MaxShards)
	}
	o.ReadOnly, o.Shards, o.Space = true, 0, nil // what finds no room fails
	unlock, err := lockWreck(o)
	if err != nil {
		return done, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	defer func() { err = errors.Join(err, unlock.Close()) }()
	l, dirs, err := findShards(o)
	if err != nil {
		return done, fmt.Errorf("spool %s: %w", o.Path, err)
	}
	target := o
	target.Path, target.ReadOnly = to, false
	lock, err := prepareTarget(target)
	if err != nil {
		return done, fmt.Errorf("salvaging to %s: %w", to, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if wanted == 0 {
		wanted = l.shards
	}
	v := &salvor{
		ctx: ctx, options: o, target: target, layout: l, dirs: dirs, new: layout{shards: wanted},
		done: Salvaged{Shards: len(dirs), Examples: []Loss{}, Damage: []string{}, Report: o.FS.PathJoin(to, reportFile)},
	}
	err = guarded(ctx, func(ctx context.Context, trouble func(error)) error {
		v.ctx, v.target.Fatal, v.target.trouble, v.target.bulk = ctx, trouble, trouble, true
		return v.run(tell)
	})
	if err != nil {
		return v.done, fmt.Errorf("salvaging %s: %w", o.Path, err)
	}
	v.done.Took = time.Since(began)
	return v.done, nil
}

// lockWreck keeps others away from a spool that may be on a disk which cannot be written.
func lockWreck(o Options) (io.Closer, error) {
	lock, err := lockDirectory(o)
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		o.Log.Warn("spool: the damaged spool cannot be locked: make sure that nobody has it open", "error", err)
		return io.NopCloser(nil), nil
	}
	return lock, err
}

// findShards finds the directories of a spool's shards, by number, whether or not its layout file can be read. Without that, the oldest generation
// that has shards is taken: it is removed only when another took its place.
func findShards(o Options) (l layout, dirs map[int]string, err error) {
	l, err = readLayout(o)
	if err == nil {
		dirs, err = shardsIn(o.FS, l.dir(o))
		return l, dirs, err
	}
	names, listErr := o.FS.List(o.Path)
	if listErr != nil {
		return l, nil, listErr
	}
	generations := []int{0}
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, generationPrefix)); err == nil && strings.HasPrefix(name, generationPrefix) {
			generations = append(generations, n)
		}
	}
	slices.Sort(generations)
	for _, g := range generations {
		l := layout{generation: g}
		if dirs, err := shardsIn(o.FS, l.dir(o)); err != nil || len(dirs) > 0 {
			for i := range dirs {
				l.shards = max(l.shards, i+1)
			}
			return l, dirs, err
		}
	}
	return l, nil, fmt.Errorf("there are no shards: %w", err)
}

// shardsIn are the shards in a directory.
func shardsIn(fs vfs.FS, dir string) (map[int]string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	dirs := map[int]string{}
	for _, name := range names {
		if i, err := strconv.Atoi(strings.TrimPrefix(name, shardPrefix)); err == nil && strings.HasPrefix(name, shardPrefix) && i < message.MaxShards {
			dirs[i] = fs.PathJoin(dir, name)
		}
	}
	return dirs, nil
}

// prepareTarget makes the directory of the new spool, or empties one that an earlier run began, and locks it.
func prepareTarget(o Options) (io.Closer, error) {
	lock, err := lockDirectory(o)
	if err != nil {
		return nil, err
	}
	err = func() error {
		names, err := o.FS.List(o.Path)
		if err != nil {
			return err
		}
		if slices.Contains(names, layoutFile) {
			return errors.New("there is a spool already: want a new directory")
		}
		begun := slices.Contains(names, salvageFile)
		for _, name := range names {
			switch {
			case name == "LOCK" || name == salvageFile:
			case !begun:
				return fmt.Errorf("it holds %s: want a new directory", name)
			default:
				if err := o.FS.RemoveAll(o.FS.PathJoin(o.Path, name)); err != nil {
					return err
				}
			}
		}
		return replaceFile(o.FS, o.FS.PathJoin(o.Path, salvageFile), "what `mailrace spool salvage` has not finished\n")
	}()
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// salvor is one run.
type salvor struct {
	ctx     context.Context
	options Options // of the damaged spool
	target  Options
	layout  layout // of the damaged spool; from what is there, where its file is lost
	new     layout
	dirs    map[int]string
	fillers fillers
	meter   *Meter
	report  *bufio.Writer
	newest  message.ID // that was seen
	done    Salvaged
}

func (v *salvor) run(tell func(Progress)) error {
	s, err := openShards(v.target, v.new)
	if err != nil {
		return fmt.Errorf("the new spool: %w", err)
	}
	f, err := v.target.FS.Create(v.done.Report, vfs.WriteCategoryUnspecified)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	v.report = bufio.NewWriter(f)
	v.meter = NewMeter(v.ctx, tell, "rescuing", "messages", 0)
	if v.fillers, _, err = newFillers(s); err == nil {
		err = v.shards()
	}
	if err == nil && v.newest > 0 {
		err = v.fillers.mark(v.ctx, v.newest)
	}
	if err == nil {
		err = v.fillers.finish(v.ctx)
	}
	v.meter.End()
	if v.ctx.Err() != nil {
		err = context.Cause(v.ctx)
	}
	if err = errors.Join(err, v.report.Flush(), f.Sync(), f.Close(), s.Close()); err != nil {
		return err
	}
	if err := v.new.write(v.target); err != nil {
		return err
	}
	return v.target.FS.Remove(v.target.FS.PathJoin(v.target.Path, salvageFile))
}

// shards rescues what is in the shards, one after the other.
func (v *salvor) shards() error {
	elsewhere, err := (&failover{o: v.options}).read()
	if err != nil {
		v.damaged(0, fmt.Sprintf("%s cannot be read: %v", failoverNote, err))
	}
	for _, dir := range elsewhere {
		if _, err := v.options.FS.Stat(dir); err != nil {
			v.damaged(0, fmt.Sprintf("WALs of all shards may be in %s, by wal_failover, which cannot be read: %v", dir, err))
		}
	}
	for i := range v.layout.shards {
		dir, ok := v.dirs[i]
		if !ok {
			v.damaged(i, "its directory is missing")
			continue
		}
		if err := v.shard(i, dir); err != nil {
			return fmt.Errorf("shard %d: %w", i, err)
		}
	}
	return nil
}

func (v *salvor) damaged(shard int, what string) {
	fmt.Fprintf(v.report, "damage shard %d: %s\n", shard, what)
	if len(v.done.Damage) < damageExamples {
		v.done.Damage = append(v.done.Damage, fmt.Sprintf("shard %d: %s", shard, what))
	}
}

// shard rescues what is in a shard.
func (v *salvor) shard(index int, dir string) (err error) {
	w := &wreck{fs: newVeneer(v.options.FS), dir: dir}
	o := v.options
	o.FS, o.wreck = w.fs, true
	s, err := newSpool(o, v.layout)
	if err != nil {
		return err
	}
	for _, former := range s.failover.former {
		w.logs = append(w.logs, o.FS.PathJoin(former, strings.TrimPrefix(dir, o.Path)))
	}
	r := &rescue{salvor: v, shard: index, wreck: w}
	defer func() {
		for _, what := range w.damage {
			v.damaged(index, what)
		}
		err = errors.Join(err, s.Close())
	}()
	if sh, err := w.open(s, index); err == nil {
		s.shards = append(s.shards, sh)
		r.see(sh.db)
		if err := r.messages(); err != nil {
			return err
		}
	}
	if len(w.damage) == 0 {
		return r.rest()
	}
	raw, err := readRaw(w, v.target.FS, v.target.FS.PathJoin(v.target.Path, "scratch"))
	if err != nil {
		return fmt.Errorf("reading its files one by one: %w", err)
	}
	defer func() { err = errors.Join(err, raw.close()) }()
	if r.store == nil && raw.outside > 0 {
		w.wrong("%d values are in blob files, and without the MANIFEST it cannot be told for certain in which", raw.outside)
	}
	r.raw = raw
	r.readers = append(r.readers, raw.db)
	return errors.Join(r.messages(), r.rest())
}
