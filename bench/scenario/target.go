package scenario

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/bench/certificate"
	"mailrace/bench/load"
	"mailrace/bench/proc"
)

// target is an MTA under test.
type target struct {
	name    string
	address string  // where it accepts mail
	pid     int     // 0 = not known
	metrics string  // URL, or ""
	process *child  // nil when it is not ours
	peer    spender // what tells the cost of an MTA that is not ours, in place of pid and metrics; or nil
	secure  load.Secure
	// syncs that its peer needs for a message, as was counted when it was warmed up.
	syncsEach float64
	// lockStep sends it one command at a time.
	lockStep bool
	domains  load.Domains // of the recipients that it is sent to; default one

	authority  string // file of who issued its certificate, or ""
	submission string // where a user logs in, or ""
	password   string // file of the user's password

	profiles *profiler // nil = no profiles are taken
}

// spender tells what an MTA of several processes costs.
type spender interface {
	Usage() (proc.Usage, error)
	CPU() (time.Duration, error) // of Usage, at less cost
	Syncs() (n uint64, ok bool)  // ok is false where they are not counted, or not any more
	EndSyncs()                   // ends the counting, which has a cost
}

// Names of the targets, in the order of a round.
const (
	Ceiling = "ceiling" // the same MTA with a spool that keeps nothing
	MTA     = "mta"
	TLS     = "tls" // the MTA again: Accept: over connections under TLS 1.3; Relay: delivering over such
)

// underTLS is the same MTA, spoken to under TLS. Of one that is not ours any certificate is taken.
func (t *target) underTLS() *target {
	other := *t
	other.name = TLS
	other.secure = load.Secure{TLS: load.STARTTLS, TLSVersion: "1.3", CA: t.authority, Insecure: t.authority == ""}
	if t.submission != "" {
		other.address, other.secure.User, other.secure.PasswordFile = t.submission, benchUser, t.password
	}
	return &other
}

// toTLS is the same MTA with mail for domains to which it delivers under TLS.
func (t *target) toTLS(domains load.Domains) *target {
	other := *t
	other.name, other.domains = TLS, domains
	return &other
}

// benchUser is who logs in.
const benchUser = "bench"

// addUser makes a file of users with the one who logs in, and one with the password, by the MTA's own command.
func addUser(ctx context.Context, program []string, dir string) (users, password string, err error) {
	users, password = filepath.Join(dir, "users.toml"), filepath.Join(dir, "password")
	secret := rand.Text()
	if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
		return "", "", fmt.Errorf("password: %w", err)
	}
	args := append(slices.Clone(program), "user", "add", benchUser, "--file", users, "--password-stdin")
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(secret + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", "", fmt.Errorf("user add: %w\n%s", err, out)
	}
	return users, password, nil
}

// startTarget runs our MTA with the configuration that the scenario asks for, and waits until it accepts mail. far is nil but in Relay. The ceiling always
// has a fixed route, in clear.
func startTarget(ctx context.Context, o *Options, kind Kind, name, dir string, far *farSide) (*target, error) {
	t := &target{name: name}
	c := configuration{spool: nullSpool, events: "off", route: "discard"}
	if kind == Relay {
		c.route = "smtp://" + far.clear.address
	}
	if name == MTA {
		if kind == Relay {
			far.configure(&c, o)
			t.domains = far.domains(o, false)
		}
		c.spool = filepath.Join(dir, "spool")
		if o.Events {
			c.events = filepath.Join(dir, "events.jsonl")
		}
	}
	var err error
	if o.TLS && kind != Relay && name == MTA {
		pair, err := certificate.New("127.0.0.1")
		if err != nil {
			return nil, err
		}
		if c.chain, c.key, err = pair.Write(dir); err != nil {
			return nil, err
		}
		t.authority = c.chain
	}
	if o.Auth && name == MTA {
		if c.users, t.password, err = addUser(ctx, o.Program, dir); err != nil {
			return nil, err
		}
		if c.submission, err = freeAddress(); err != nil {
			return nil, err
		}
		t.submission = c.submission
	}
	return t, t.launch(ctx, o, dir, c)
}

// launch runs our MTA with configuration c and free addresses, and waits until it accepts mail and serves metrics. With an error nothing runs.
func (t *target) launch(ctx context.Context, o *Options, dir string, c configuration) (err error) {
	if err := t.begin(o, dir, c); err != nil {
		return err
	}
	if err = awaitBanner(ctx, t.process, t.address); err == nil {
		err = awaitMetrics(ctx, t.process, t.metrics)
	}
	if err != nil {
		t.stop()
	}
	return err
}

// begin runs our MTA with configuration c and free addresses, and waits for nothing. With an error nothing runs.
func (t *target) begin(o *Options, dir string, c configuration) (err error) {
	if c.listen, err = freeAddress(); err != nil {
		return err
	}
	if c.admin, err = freeAddress(); err != nil {
		return err
	}
	path, err := writeConfig(dir, t.name, c.text(o))
	if err != nil {
		return err
	}
	args := []string{"serve", "--config", path}
	if t.name != Ceiling {
		further, p, err := profileServer(o.Profile, o.Progress)
		if err != nil {
			return err
		}
		args, t.profiles = append(args, further...), p
	}
	if t.process, err = start(t.name, o.Program, args, nil); err != nil {
		return err
	}
	if t.profiles != nil {
		t.profiles.node = t.process
	}
	t.address, t.pid, t.metrics = c.listen, t.process.pid(), "http://"+c.admin+"/metrics"
	return nil
}

func (t *target) stop() {
	if t.process != nil {
		t.process.stop()
	}
}

// sample is what a target has used until now.
type sample struct {
	usage proc.Usage
	syncs float64
}

func (t *target) sample(ctx context.Context) (sample, error) {
	var s sample
	var err error
	if t.process != nil {
		select {
		case <-t.process.exited:
			return s, t.process.failure(fmt.Errorf("ended under load: %w", orError(t.process.err)))
		default:
		}
	}
	switch {
	case t.peer != nil:
		if s.usage, err = t.peer.Usage(); err != nil {
			return s, err
		}
	case t.pid != 0:
		if s.usage, err = proc.Read(t.pid); err != nil {
			return s, err
		}
	}
	if t.metrics != "" {
		s.syncs, err = scrape(ctx, t.metrics, "mailrace_spool_syncs_total")
		if errors.Is(err, errNoMetric) {
			err = nil // a spool that keeps nothing syncs nothing
		}
	}
	return s, err
}

// warmed takes the syncs of the warm-up, and has none counted from then on. before is their number when that began.
func (t *target) warmed(before, messages uint64) {
	if t.peer == nil || messages == 0 {
		return
	}
	if n, ok := t.peer.Syncs(); ok {
		t.syncsEach = float64(n-before) / float64(messages)
		t.peer.EndSyncs()
	}
}

// cpu is the CPU time that a target has used until now; 0 where that is not known.
func (t *target) cpu() (time.Duration, error) {
	if t.peer != nil {
		return t.peer.CPU()
	}
	if t.pid == 0 {
		return 0, nil
	}
	u, err := proc.Read(t.pid)
	return u.CPU, err
}

var errNoMetric = errors.New("no such metric")

// scrape reads a Prometheus page and sums the samples of a metric over its labels.
func scrape(ctx context.Context, url, name string) (float64, error) {
	page, err := metricsPage(ctx, url)
	if err != nil {
		return 0, err
	}
	return sumMetric(bytes.NewReader(page), name)
}

// metricsPage reads a Prometheus page.
func metricsPage(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: %s: %s", url, resp.Status)
	}
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("metrics: %s: %w", url, err)
	}
	return page, nil
}

// sumMetric sums the samples of a metric over its labels, or finds the sample of one whose labels are all named.

func sumMetric(r io.Reader, name string) (float64, error) {
	sum, found := 0.0, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		if labels := strings.LastIndexByte(rest, '}'); labels >= 0 {
			rest = rest[labels+1:]
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("metrics: %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("metrics: %w", err)
	}
	if !found {
		return 0, fmt.Errorf("metrics: %s: %w", name, errNoMetric)
	}
	return sum, nil
}
