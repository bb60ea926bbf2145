package scenario

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"mailrace/bench/load"
)

// bindPlace declares where a scenario works.
func bindPlace(fs *flag.FlagSet, dir *string, keep *bool, profiles *string) {
	fs.StringVar(dir, "dir", cmp.Or(*dir, "."), "`directory` that spools are made in, and removed from")
	fs.StringVar(profiles, "profile", *profiles, "`directory` in which profiles of the nodes are left: CPU, allocations, blocking and mutexes")
	fs.BoolVar(keep, "keep", *keep, "leave configuration, logs and spools behind")
}

// bindNode declares what is said of the nodes of a scenario.
func bindNode(fs *flag.FlagSet, loops, shards *int, memory *string, noSync *bool) {
	fs.IntVar(loops, "loops", *loops, "event loops of a node, 0 = its default")
	fs.IntVar(shards, "shards", *shards, "its spool shards, 0 = its default")
	fs.StringVar(memory, "memory", *memory, "its memory budget such as 1GiB, empty = its default")
	fs.BoolVar(noSync, "no-sync", *noSync, "it does not wait for the disk")
}

// setPlace fills in what most scenarios have: the directory, the size of messages, and where progress goes. It checks that there is a program to run.
func setPlace(program []string, dir *string, sizes *load.Sizes, octets int, progress *io.Writer) error {
	*dir = cmp.Or(*dir, ".")
	if len(*sizes) == 0 {
		*sizes = load.Sizes{{Octets: octets, Weight: 1}}
	}
	if *progress == nil {
		*progress = io.Discard
	}
	if len(program) == 0 {
		return errors.New("the command of the mailrace binary is missing")
	}
	return nil
}

// workDir makes the directory that a scenario works in, below parent, and returns its absolute path. leave removes it; where it is to be kept, progress
// says where it is instead. With an error there is none.
func workDir(parent string, keep bool, progress io.Writer) (dir string, leave func(), err error) {
	base, err := os.MkdirTemp(parent, "mailrace-bench-")
	if err != nil {
		return "", nil, err
	}
	if dir, err = filepath.Abs(base); err != nil {
		return "", nil, err
	}
	if keep {
		fmt.Fprintln(progress, "kept in", dir)
		return dir, func() {}, nil
	}
	return dir, func() { os.RemoveAll(dir) }, nil
}

// makeDir makes a directory for a part of a scenario. remove removes it, unless all is kept.
func makeDir(dir string, keep bool) (remove func(), err error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if keep {
		return func() {}, nil
	}
	return func() { os.RemoveAll(dir) }, nil
}
