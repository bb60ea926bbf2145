package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// The directory of a spool holds a file that says what it is, and a directory per shard.
const (
	lockFile     = "LOCK" // of Pebble's making
	layoutFile   = "SPOOL"
	layoutFormat = "mailrace spool 1\nshards %d\n"
)

// cores is how many cores the process may use, read before anybody sets GOMAXPROCS to something else.
var cores = runtime.GOMAXPROCS(0)

// DefaultShards is how many shards a new spool gets: one per core. On few cores, fewer make larger batches and cost a little less CPU; one
// shard makes some 60,000 messages of 10 KiB durable in a second.
func DefaultShards() int { return min(cores, message.MaxShards) }

// lockDirectory makes the directory of the spool and takes its lock, which ends with the process.
func lockDirectory(o Options) (*pebble.Lock, error) {
	if !o.ReadOnly {
		if err := makeDir(o.FS, o.Path); err != nil {
			return nil, err
		}
	}
	if _, err := o.FS.Stat(o.Path); err != nil {
		return nil, fmt.Errorf("there is no spool: %w", err)
	}
	lock, err := pebble.LockDirectory(o.Path, o.FS)
	if err != nil {
		return nil, fmt.Errorf("%s has it open: stop that one first, or ask it (%w)", holder(o.FS.PathJoin(o.Path, lockFile), err), err)
	}
	return lock, nil
}

// shardDir is the directory of shard i.
func shardDir(o Options, i int) string { return o.FS.PathJoin(o.Path, fmt.Sprintf("shard-%03d", i)) }

// prepareLayout checks that the spool has the number of shards that o asks for, or makes a new spool, and returns the number. The layout
// file is written before the first shard, and whole or not at all: it alone says how many shards there are.
func prepareLayout(o Options) (shards int, err error) {
	if o.Shards < 0 || o.Shards > message.MaxShards {
		return 0, fmt.Errorf("shards = %d: want 1 to %d, or 0 for the default", o.Shards, message.MaxShards)
	}
	text, err := readFile(o.FS, o.FS.PathJoin(o.Path, layoutFile))
	switch {
	case errors.Is(err, os.ErrNotExist) && !o.ReadOnly:
		return createLayout(o)
	case err != nil:
		return 0, fmt.Errorf("reading what the spool is: %w", err)
	}
	if n, err := fmt.Sscanf(text, layoutFormat, &shards); n != 1 || err != nil || fmt.Sprintf(layoutFormat, shards) != text ||
		shards < 1 || shards > message.MaxShards {
		return 0, fmt.Errorf("%s is %.80q: not a spool that this program can read", layoutFile, text)
	}
	if o.Shards != 0 && o.Shards != shards {
		return 0, fmt.Errorf("the spool has %d shards, %d are configured: set shards = %[1]d (or 0, for what it has), or begin an empty spool elsewhere",
			shards, o.Shards)
	}
	return shards, nil
}

// createLayout makes a new spool, durably.
func createLayout(o Options) (shards int, err error) {
	if _, err := o.FS.Stat(shardDir(o, 0)); err == nil {
		return 0, fmt.Errorf("there are shards but no file %s: it has been damaged", layoutFile)
	}
	shards = o.Shards
	if shards == 0 {
		shards = DefaultShards()
	}
	name := o.FS.PathJoin(o.Path, layoutFile)
	if err := writeFile(o.FS, name+".new", fmt.Sprintf(layoutFormat, shards)); err != nil {
		return 0, err
	}
	if err := o.FS.Rename(name+".new", name); err != nil {
		return 0, err
	}
	return shards, syncDir(o.FS, o.Path)
}

// makeDir makes a directory and those above it that are missing, durably: a spool is lost with the name of a directory above it.
func makeDir(fs vfs.FS, name string) error {
	if _, err := fs.Stat(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := fs.PathDir(name)
	if parent != name {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(name, 0o700); err != nil {
		return err
	}
	return syncDir(fs, parent)
}

func readFile(fs vfs.FS, name string) (string, error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(b), errors.Join(err, f.Close())
}

// writeFile writes a new file and syncs it.
func writeFile(fs vfs.FS, name, text string) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(text))
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes the names in a directory durable.
func syncDir(fs vfs.FS, name string) error {
	d, err := fs.OpenDir(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
