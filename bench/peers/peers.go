// Package peers runs other MTAs for measurements: each apart from the machine, with a configuration, a queue and a log of its own in a directory that is thrown
// away, durable, and tuned as its own documentation advises.
package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Peer is an MTA that can be run.
type Peer struct {
	Name    string // as users write it
	Durable string // the settings by which a message is on stable storage before its 250, and where its documentation says so
	Tuned   string // what is set for speed
	Held    string // how mail is accepted and not delivered, where that is measured

	LockStep string // why it must be sent one command at a time; "" = it need not

	missing string // what to do when it is not there
	find    func() (program string, err error)
	version func(ctx context.Context, program string) (string, error)
	prepare func(s *setup) (job, error)
}

// job is how a peer is started.
type job struct {
	args     []string
	users    []string          // that it needs and the machine does not have
	own      []string          // directories of the machine that it sees empty, and as its own
	unwaited bool              // some of its processes end and nobody waits for them, so that the kernel must count their CPU time
	bring    map[string]string // directories that its users could not get at, by the names under which it has them in its own
}

// Options say what a peer is for.
type Options struct {
	Dir         string // where it may write: a new directory is made in it, which every user must be able to get into
	Listen      string // host:port for SMTP
	Next        string // host:port that all mail goes to; "" = mail is accepted and stays where it is
	Connections int    // that clients may open at a time
	Largest     int    // octets of the largest message
	Cores       int    // of the machine
}

// setup is what a peer is configured by.
type setup struct {
	Options
	ctx        context.Context
	program    string
	dir        string // its own
	host, port string // of Listen
	nextHost   string // of Next
	nextPort   string
}

// unpacked is what to do about a peer that the installer knows.
const unpacked = "`mailrace bench peer --install` or `make deps` does that, for this user alone"

// ErrMissing is returned for a peer that is not installed.
var ErrMissing = errors.New("is not installed")

// Names are those of all peers, in the order in which they are measured.
func Names() (names []string) {
	for _, p := range all() {
		names = append(names, p.Name)
	}
	return names
}

// Find returns the peers with these names, or all.
func Find(names []string) ([]Peer, error) {
	if len(names) == 0 {
		return all(), nil
	}
	var found []Peer
	for _, name := range names {
		i := slices.Index(Names(), name)
		if i < 0 {
			return nil, fmt.Errorf("no peer %q: there are %s", name, strings.Join(Names(), ", "))
		}
		found = append(found, all()[i])
	}
	return found, nil
}

func all() []Peer { return []Peer{postfix, exim, opensmtpd, haraka} }

// Installed checks that a peer is there, and returns its version.
func (p *Peer) Installed(ctx context.Context) (version string, err error) {
	program, err := p.find()
	if err != nil {
		return "", fmt.Errorf("%s %w (%v): %s", p.Name, ErrMissing, err, p.missing)
	}
	if version, err = p.version(ctx, program); err != nil {
		return "", fmt.Errorf("%s: its version: %w", p.Name, err)
	}
	return version, nil
}

// Start runs a peer. It listens soon, unless it fails; see Instance.
func (p *Peer) Start(ctx context.Context, o Options) (*Instance, error) {
	i, err := p.start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	return i, nil
}

func (p *Peer) start(ctx context.Context, o Options) (*Instance, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("it has users and name spaces of its own: only root can run it")
	}
	s := &setup{Options: o, ctx: ctx}
	var err error
	if s.program, err = p.find(); err != nil {
		return nil, fmt.Errorf("%w (%v): %s", ErrMissing, err, p.missing)
	}
	s.host, s.port, _ = strings.Cut(o.Listen, ":")
	s.nextHost, s.nextPort, _ = strings.Cut(o.Next, ":")
	if s.dir, err = os.MkdirTemp(o.Dir, p.Name+"-"); err != nil {
		return nil, err
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return nil, err
	}
	i, err := s.run(p)
	if err != nil {
		os.RemoveAll(s.dir)
	}
	return i, err
}

func (s *setup) run(p *Peer) (*Instance, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	j, err := p.prepare(s)
	if err != nil {
		return nil, err
	}
	return s.runApart(p.Name, j)
}

// open makes its directory one that every user can get into, as the users of a peer must.
func (s *setup) open() error {
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	for dir := s.dir; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("its users cannot get into %s: give another directory with --dir", dir)
		}
	}
	return nil
}

// fill replaces names in braces.
func (s *setup) fill(text string, more ...string) string {
	return strings.NewReplacer(append([]string{
		"{dir}", s.dir, "{program}", s.program, "{host}", s.host, "{port}", s.port, "{nextHost}", s.nextHost, "{nextPort}", s.nextPort,
		"{connections}", fmt.Sprint(s.Connections), "{processes}", fmt.Sprint(s.Connections + 20), "{largest}", fmt.Sprint(2*s.Largest + 1<<20),
		"{cores}", fmt.Sprint(s.Cores),
	}, more...)...).Replace(text)
}

// write writes a file of the peer's directory, with its names in braces replaced, and returns its path.
func (s *setup) write(name, text string) (string, error) {
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(s.fill(text)), 0o644)
}
