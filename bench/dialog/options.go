package dialog

import (
	"cmp"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say whom to ask, what, and how.
type Options struct {
	Address  string        // host:port
	Mode     Mode          // whole unless set
	TLS      string        // off unless set, starttls, implicit; certificates are not checked
	Only     string        // a regular expression that names must match
	From     string        // a reverse-path that the server accepts
	To       string        // a forward-path that it accepts; some messages are sent there
	Hello    string        // the name given with EHLO
	User     string        // whom AUTH may let in, if set
	Password string        // of User
	Timeout  time.Duration // for each reply
	Quiet    time.Duration // how long nothing arrives where nothing may
	Parallel int           // dialogs at once

	Dialogs  []Dialog     // the suite unless set
	Config   *tls.Config  // of TLS; without one, any certificate will do
	Progress func(Result) // called for each result, by one goroutine at a time, if not nil
}

const (
	defaultTimeout  = 10 * time.Second
	defaultQuiet    = 200 * time.Millisecond
	defaultParallel = 8
)

// BindFlags declares the options as flags of `mailrace bench dialogs`. The command line adds --json.
//
//	--address host:port  --mode m  --tls t  --only pattern  --from path  --to path  --hello name  --user name  --password word  --timeout d  --quiet d  --parallel n
func BindFlags(fs *flag.FlagSet, o *Options) {
	*o = o.withDefaults()
	fs.StringVar(&o.Address, "address", o.Address, "`host:port` of the SMTP server")
	fs.Func("mode", "how a text is cut into writes: whole, bytes, or segments (around CR, LF, NUL and dots) (default whole)", func(s string) error {
		o.Mode = Mode(s)
		return o.Mode.check()
	})
	fs.StringVar(&o.TLS, "tls", o.TLS, "off, starttls or implicit; certificates are not checked")
	fs.StringVar(&o.Only, "only", o.Only, "run the dialogs whose names match this regular `expression`")
	fs.StringVar(&o.From, "from", o.From, "reverse-`path` that the server accepts")
	fs.StringVar(&o.To, "to", o.To, "forward-`path` that the server accepts; some messages are sent there")
	fs.StringVar(&o.Hello, "hello", o.Hello, "`name` given with EHLO")
	fs.StringVar(&o.User, "user", o.User, "`name` of a user, for the dialogs in which AUTH lets somebody in")
	fs.StringVar(&o.Password, "password", o.Password, "the user's `password`")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "how long to wait for a reply")
	fs.DurationVar(&o.Quiet, "quiet", o.Quiet, "how long to listen where nothing may arrive")
	fs.IntVar(&o.Parallel, "parallel", o.Parallel, "dialogs at once")
}

func (m Mode) check() error {
	if slices.Contains([]Mode{Whole, Bytes, Segments}, m) {
		return nil
	}
	return fmt.Errorf("mode %q: one of whole, bytes, segments", string(m))
}

func (o Options) withDefaults() Options {
	o.Address = cmp.Or(o.Address, "127.0.0.1:2525")
	o.Mode = cmp.Or(o.Mode, Whole)
	o.TLS = cmp.Or(o.TLS, "off")
	o.From = cmp.Or(o.From, "sender@bench.mailrace")
	o.To = cmp.Or(o.To, "recipient@bench.mailrace")
	o.Hello = cmp.Or(o.Hello, "client.bench.mailrace")
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	o.Quiet = cmp.Or(o.Quiet, defaultQuiet)
	o.Parallel = cmp.Or(o.Parallel, defaultParallel)
	if o.Config == nil {
		// Whose server this is does not matter to what it says.
		o.Config = &tls.Config{InsecureSkipVerify: true}
	}
	return o
}

// check completes the options and picks the dialogs.
func (o Options) check() (Options, error) {
	o = o.withDefaults()
	if err := o.Mode.check(); err != nil {
		return o, err
	}
	if !slices.Contains([]string{"off", "starttls", "implicit"}, o.TLS) {
		return o, fmt.Errorf("tls %q: one of off, starttls, implicit", o.TLS)
	}
	if o.Timeout < 0 || o.Quiet < 0 || o.Parallel < 0 {
		return o, fmt.Errorf("timeout, quiet and parallel must be above 0")
	}
	only, err := regexp.Compile(o.Only)
	if err != nil {
		return o, fmt.Errorf("only: %w", err)
	}
	if o.Dialogs == nil {
		if o.Dialogs, err = All(); err != nil {
			return o, err
		}
	}
	var picked []Dialog
	for _, d := range o.Dialogs {
		if only.MatchString(d.Name) {
			picked = append(picked, d)
		}
	}
	if len(picked) == 0 {
		return o, fmt.Errorf("no dialog matches %q", o.Only)
	}
	o.Dialogs = picked
	return o, nil
}

// values are the variables that do not depend on the server.
func (o *Options) values() map[string]string {
	_, home, _ := strings.Cut(o.From, "@")
	_, domain, _ := strings.Cut(o.To, "@")
	values := map[string]string{"client": o.Hello, "from": o.From, "to": o.To, "home": home, "domain": domain}
	if o.User != "" { // RFC 4616 §2
		values["plain"] = base64.StdEncoding.EncodeToString([]byte("\x00" + o.User + "\x00" + o.Password))
		values["user"] = base64.StdEncoding.EncodeToString([]byte(o.User))
		values["password"] = base64.StdEncoding.EncodeToString([]byte(o.Password))
		values["wrong"] = base64.StdEncoding.EncodeToString([]byte("\x00" + o.User + "\x00" + o.Password + "?"))
	}
	return values
}
