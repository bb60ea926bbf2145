package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"mailrace/proto/message"
)

// The directory of a spool holds a file that says what it is, and a directory per shard. A new spool is generation 0, with its shards beside
// the file. Each resharding makes a generation of its own, in a directory of its own, and then writes the file anew: that is the switch.
const (
	lockFile   = "LOCK" // of Pebble's making
	layoutFile = "SPOOL"

	layoutFormat1 = "mailrace spool 1\nshards %d\n"
	layoutFormat2 = "mailrace spool 2\nshards %d\ngeneration %d\n"
	layoutMaking  = "making\n" // behind either

	generationPrefix = "generation-"
	shardPrefix      = "shard-"
)

// layout is what the file says.
type layout struct {
	shards     int // 1..message.MaxShards
	generation int // 0 and up

	// making: not all stores have been made. No Open has ended well, so that none holds anything.
	making bool
}

func (l layout) String() string {
	text := fmt.Sprintf(layoutFormat2, l.shards, l.generation)
	if l.generation == 0 {
		text = fmt.Sprintf(layoutFormat1, l.shards)
	}
	if l.making {
		text += layoutMaking
	}
	return text
}

// parseLayout reads the text of the file, which must be what String writes.
func parseLayout(text string) (l layout, ok bool) {
	if _, err := fmt.Sscanf(text, layoutFormat1, &l.shards); err != nil {
		if _, err = fmt.Sscanf(text, layoutFormat2, &l.shards, &l.generation); err != nil {
			return l, false
		}
	}
	l.making = strings.HasSuffix(text, layoutMaking)
	return l, l.String() == text && l.shards >= 1 && l.shards <= message.MaxShards && l.generation >= 0
}

// dir is the directory that the shards of l are in.
func (l layout) dir(o Options) string {
	if l.generation == 0 {
		return o.Path
	}
	return o.FS.PathJoin(o.Path, fmt.Sprint(generationPrefix, l.generation))
}

// shardDir is the directory of shard i.
func (l layout) shardDir(o Options, i int) string {
	return o.FS.PathJoin(l.dir(o), fmt.Sprintf(shardPrefix+"%03d", i))
}

// errMaking is why the tools do nothing with a spool, which the next Open makes anew.
var errMaking = errors.New("the spool was never made completely, and holds no mail: `mailrace serve` makes it anew")

// ErrShards is the cause of Open's refusal of a spool that has another number of shards than it was asked for: Reshard changes that.
var ErrShards = errors.New("the number of shards differs")

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

// prepareLayout checks that the spool has the number of shards that o asks for, or makes a new spool, and returns what it is. The layout
// file is written before the first shard, and whole or not at all: it alone says how many shards there are, and where.
func prepareLayout(o Options) (layout, error) {
	if o.Shards < 0 || o.Shards > message.MaxShards {
		return layout{}, fmt.Errorf("shards = %d: want 1 to %d, or 0 for the default", o.Shards, message.MaxShards)
	}
	l, err := readLayout(o)
	switch {
	case errors.Is(err, os.ErrNotExist) && !o.ReadOnly:
		return createLayout(o)
	case errors.Is(err, errMaking) && !o.ReadOnly:
		return makeAnew(o, l)
	case err != nil:
		return layout{}, err
	case o.Shards != 0 && o.Shards != l.shards:
		return layout{}, fmt.Errorf("%w: the spool has %d, %d are configured: run `mailrace spool reshard --path %s --shards %[3]d`, "+
			"or set shards = %[2]d (or 0, for what it has), or reshard = \"auto\"", ErrShards, l.shards, o.Shards, o.Path)
	case o.ReadOnly:
		return l, nil
	}
	return l, dropOtherGenerations(o, l)
}

// readLayout reads what the spool is.
func readLayout(o Options) (layout, error) {
	text, err := readFile(o.FS, o.FS.PathJoin(o.Path, layoutFile))
	if err != nil {
		return layout{}, fmt.Errorf("reading what the spool is: %w", err)
	}
	l, ok := parseLayout(text)
	if !ok {
		return layout{}, fmt.Errorf("%s is %.80q: not a spool that this program can read", layoutFile, text)
	}
	if l.making {
		return l, errMaking
	}
	return l, nil
}

// createLayout begins a new spool, durably. layout.finish is to follow when its stores have been made.
func createLayout(o Options) (layout, error) {
	names, err := o.FS.List(o.Path)
	if err != nil {
		return layout{}, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, shardPrefix) || strings.HasPrefix(name, generationPrefix) {
			return layout{}, fmt.Errorf("there is %s but no file %s: it has been damaged (`mailrace spool salvage` rescues what is left)", name, layoutFile)
		}
	}
	return beginLayout(o)
}

// makeAnew begins a spool again whose making did not come to its end: a crash can leave a store that names files which are not there.
func makeAnew(o Options, unfinished layout) (layout, error) {
	o.Log.Info("spool: it was never made completely, and is made anew", "path", o.Path)
	for i := range unfinished.shards {
		dir := unfinished.shardDir(o, i)
		if _, err := o.FS.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := removeDir(o, o.FS.PathBase(dir)); err != nil {
			return layout{}, err
		}
	}
	return beginLayout(o)
}

func beginLayout(o Options) (layout, error) {
	l := layout{shards: o.Shards, making: true}
	if l.shards == 0 {
		l.shards = DefaultShards()
	}
	return l, l.write(o)
}

// finish notes that the stores of l have been made.
func (l layout) finish(o Options) error {
	if !l.making {
		return nil
	}
	l.making = false
	if err := l.write(o); err != nil {
		return fmt.Errorf("noting that the spool has been made: %w", err)
	}
	return nil
}

// write makes l what the spool is, durably, and at once.
func (l layout) write(o Options) error {
	return replaceFile(o.FS, o.FS.PathJoin(o.Path, layoutFile), l.String())
}

// replaceFile gives a file a new text, durably; a crash leaves the old text or the new one.
func replaceFile(fs vfs.FS, name, text string) error {
	if err := writeFile(fs, name+".new", text); err != nil {
		return err
	}
	if err := fs.Rename(name+".new", name); err != nil {
		return err
	}
	return syncDir(fs, fs.PathDir(name))
}

// dropOtherGenerations removes what is not of the generation in use: what a resharding left behind, or has not finished. A spool that is
// opened to be written takes the unfinished away because its own mail changes from here on. A newer generation that was finished is
// refused: somebody put an old layout file back.
func dropOtherGenerations(o Options, keep layout) error {
	names, err := o.FS.List(o.Path)
	if err != nil {
		return err
	}
	for _, name := range names {
		whole := o.FS.PathJoin(o.Path, name)
		number, isGeneration := generationNumber(name)
		switch {
		case strings.HasPrefix(name, removingPrefix):
		case strings.HasPrefix(name, shardPrefix) && keep.generation > 0:
		case isGeneration && number > keep.generation:
			if err := checkUnfinished(o, whole); err != nil {
				return err
			}
		case isGeneration && number < keep.generation:
		default:
			continue
		}
		o.Log.Info("spool: removing what a resharding left", "path", whole)
		if err := removeDir(o, name); err != nil {
			return fmt.Errorf("removing what a resharding left: %w", err)
		}
	}
	return nil
}

// generationNumber reads the name of a generation's directory.
func generationNumber(name string) (n int, ok bool) {
	text, ok := strings.CutPrefix(name, generationPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n > 0
}

// checkUnfinished refuses a generation that has shards and no plan any more.
func checkUnfinished(o Options, dir string) error {
	names, err := o.FS.List(dir)
	if err != nil {
		return err
	}
	shards := slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, shardPrefix) })
	if shards && !slices.Contains(names, planFile) {
		return fmt.Errorf("%s is newer than what the file %s says: is that an old one? Whichever of the two generations is not wanted must be moved away",
			dir, layoutFile)
	}
	return nil
}

// removingPrefix begins the name of what is being removed: a generation that is half gone must not be taken for one.
const removingPrefix = "removing-"

// removeDir removes a directory in the spool, durably.
func removeDir(o Options, name string) error {
	whole := o.FS.PathJoin(o.Path, name)
	gone := whole
	if !strings.HasPrefix(name, removingPrefix) {
		gone = o.FS.PathJoin(o.Path, removingPrefix+name)
		if err := errors.Join(o.FS.RemoveAll(gone), o.FS.Rename(whole, gone)); err != nil {
			return err
		}
	}
	return errors.Join(o.FS.RemoveAll(gone), syncDir(o.FS, o.Path))
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
