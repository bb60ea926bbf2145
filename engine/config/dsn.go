package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"mailrace/proto/dsn"
	"mailrace/proto/smtp"
)

// DSN is what senders are told of their mail. RFC 3461, RFC 3464
type DSN struct {
	DelayAfter []time.Duration // how old a message is when its sender is told that it is not delivered yet: ascending, 8 at most; none = never
	DelayToAll bool            // also where the sender did not say by NOTIFY what it wants to hear of

	ReturnMax      int64         // octets of a message that are returned: of it all where the sender wants that, or else of its header section
	Gather         time.Duration // how long failures of a message wait for others of it, to be told of together; 0 = not at all
	DoubleBounceTo string        // who is told of notifications that cannot be delivered; "" = nobody

	Templates []DSNTemplate // the most specific domain wins; none for a domain = our own texts
}

// DSNTemplate is how notifications to some senders read.
type DSNTemplate struct {
	Domains  []string // of senders: lower-case names, "*.suffix" (every name below suffix), or "*"
	From     string   // "Name <address>"; "" = MAILER-DAEMON of this node
	Subject  string   // template, see dsn.Fields; "" = ours
	Text     string   // file with a template; "" = our text. Read at start
	Language string   // of Text, as in "de"
}

// Read reads the template, and tries it.
func (t *DSNTemplate) Read() (*dsn.Template, error) {
	texts := dsn.Texts{From: t.From, Subject: t.Subject, TextName: t.Text, Language: t.Language}
	if t.Text != "" {
		f, err := os.Open(t.Text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", dsn.ErrText, err)
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, templateMax+1))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", dsn.ErrText, err)
		}
		if len(data) > templateMax {
			return nil, fmt.Errorf("%w: %s has more than %s", dsn.ErrText, quote(t.Text), formatSize(templateMax))
		}
		texts.Text = string(data)
	}
	return dsn.NewTemplate(texts)
}

// templateMax bounds the file of a template, in octets.
const templateMax = 64 << 10

// DefaultDSN has the defaults of [dsn].
func DefaultDSN() DSN {
	return DSN{DelayAfter: []time.Duration{4 * time.Hour}, ReturnMax: dsn.DefaultReturnMax, Gather: 30 * time.Second}
}

func dsnFields(d *DSN) []field {
	return []field{
		{"delay_after", list(&d.DelayAfter, parseDuration)},
		{"delay_to", parsed(&d.DelayToAll, parseDelayTo)},
		{"return_max", size(&d.ReturnMax)},
		{"gather", duration(&d.Gather)},
		{"double_bounce_to", text(&d.DoubleBounceTo)},
		{"template", tables(func() []field {
			d.Templates = append(d.Templates, DSNTemplate{})
			t := &d.Templates[len(d.Templates)-1]
			return []field{
				{"domains", list(&t.Domains, lower)},
				{"from", text(&t.From)},
				{"subject", text(&t.Subject)},
				{"text", text(&t.Text)},
				{"language", text(&t.Language)},
			}
		})},
	}
}

// parseDelayTo reads who is told of delays: whether all are.
func parseDelayTo(s string) (bool, error) {
	if s != "asked" && s != "all" {
		return false, fmt.Errorf(`%s is not known: want "asked" or "all"`, quote(s))
	}
	return s == "all", nil
}

// dsn judges [dsn].
func (k *checker) dsn(d *DSN) {
	const most = 8
	if n := len(d.DelayAfter); n > most {
		k.complain("dsn.delay_after", "%d notices of one message: want %d or less", n, most)
	}
	for i, after := range d.DelayAfter {
		key := fmt.Sprintf("dsn.delay_after[%d]", i)
		if k.lasts(key, after, 10*time.Millisecond, 365*24*time.Hour) && i > 0 && after <= d.DelayAfter[i-1] {
			k.complain(key, "%s is not longer than the one before it: want them in ascending order, each once", formatDuration(after))
		}
	}
	k.bytes("dsn.return_max", d.ReturnMax, 1<<10, 1<<20)
	k.lasts("dsn.gather", d.Gather, 0, time.Hour)
	if path, rest, err := smtp.ParsePath([]byte("<"+d.DoubleBounceTo+">"), false); err != nil || len(rest) > 0 || len(path.Path) != len(d.DoubleBounceTo) {
		k.complain("dsn.double_bounce_to", `%s is not an address: want one, as in "postmaster@example.com"`, quote(d.DoubleBounceTo))
	}
	seen := map[string]bool{}
	for i := range d.Templates {
		k.dsnTemplate(fmt.Sprintf("dsn.template[%d]", i), &d.Templates[i], seen)
	}
}

// dsnTemplate judges a template, and what it makes.
func (k *checker) dsnTemplate(key string, t *DSNTemplate, seen map[string]bool) {
	if len(t.Domains) == 0 {
		k.complain(key+".domains", `missing: want those of senders: exact names, "*.suffix" or "*", as in ["example.com"]`)
	}
	for j, d := range t.Domains {
		at := fmt.Sprintf("%s.domains[%d]", key, j)
		if fault := patternFault(d, `an exact name, "*.suffix" or "*"`); fault != "" {
			k.complain(at, "%s", fault)
		} else if seen[d] {
			k.complain(at, "%s has a template above already: want it once", quote(d))
		}
		seen[d] = true
	}
	if t.From == "" && t.Subject == "" && t.Text == "" {
		k.complain(key, "says nothing: want from, subject or text")
	}
	_, err := t.Read()
	for _, part := range []error{dsn.ErrFrom, dsn.ErrSubject, dsn.ErrText, dsn.ErrLanguage} {
		if errors.Is(err, part) {
			k.complain(key+"."+part.Error(), "%s", strings.TrimPrefix(err.Error(), part.Error()+": "))
		}
	}
}
