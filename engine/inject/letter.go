package inject

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"unicode"
	"unicode/utf8"

	"mailrace/proto/message"
)

// labelMax is the most octets of a tenant, a campaign and a key.
const labelMax = 255

// letter is one injection: content for a number of recipients, who share messages where it is the same for all.
type letter struct {
	from       string
	recipients []recipient
	content    content
	global     map[string]any
	strict     bool // a placeholder without a value is an error

	tenant, campaign, key string
	notify                message.Notify
	dsn                   *message.DSN
	wishes                *message.Wishes
	requireTLS            bool
}

// content is what a letter is made of.
type content interface {
	// compile checks all that is the same for all recipients.
	compile() error
	// names calls fn with what the placeholders ask for.
	names(fn func(name string))
	// own says that the content names its recipient, so that no two share it.
	own() bool
	// international says that the header section needs SMTPUTF8.
	international() bool
	// compose makes the wire form.
	compose(v *values) ([]byte, error)
}

// outcome is what became of a recipient: an error, or the Result of the batch with that index.
type outcome struct {
	email string
	index int
	err   error
}

// sender is on whose behalf letters are sent.
type sender struct {
	user   *User // nil = somebody in a network that may inject
	client netip.AddrPort
}

var errNoRecipients = errors.New("no recipients: want at least one")

// check judges what concerns all recipients.
func (l *letter) check(by *sender, h *Handler) error {
	if l.from != "" {
		if err := checkPath(l.from); err != nil {
			return fmt.Errorf("envelope sender: %w", err)
		}
	}
	if len(l.recipients) == 0 {
		return errNoRecipients
	}
	for what, label := range map[string]string{"tenant": l.tenant, "campaign": l.campaign, "idempotency key": l.key} {
		if len(label) > labelMax || !utf8.ValidString(label) || !printable(label) {
			return fmt.Errorf("%s %s: want up to %d octets of printable UTF-8", what, excerpt(label), labelMax)
		}
	}
	if w := l.wishes; w != nil {
		if err := h.checkWishes(w); err != nil {
			return err
		}
	}
	if err := l.allow(by); err != nil {
		return err
	}
	return l.content.compile()
}

func printable(s string) bool {
	for _, c := range s {
		if c != ' ' && !unicode.IsGraphic(c) {
			return false
		}
	}
	return true
}

// personal says whether the content differs between recipients.
func (l *letter) personal() bool {
	if l.content.own() {
		return true
	}
	asked := map[string]bool{}
	l.content.names(func(name string) { asked[name] = true })
	if len(asked) == 0 {
		return false
	}
	if asked["name"] || asked["email"] || asked["to_header"] {
		return true
	}
	for i := range l.recipients {
		if len(l.recipients[i].Substitutions) > 0 {
			return true
		}
	}
	return false
}

// send hands the messages of the letter to a batch. An error concerns all recipients, of whom none was sent to then; each outcome another.
func (l *letter) send(ctx context.Context, by *sender, h *Handler, b *results) ([]outcome, error) {
	if err := l.check(by, h); err != nil {
		return nil, err
	}
	mail := Mail{
		From: l.from, Tenant: l.tenant, Campaign: l.campaign, Key: l.key, Notify: l.notify, DSN: l.dsn, Wishes: l.wishes,
		SMTPUTF8: l.content.international(), RequireTLS: l.requireTLS, Client: by.client,
	}
	if by.user != nil {
		mail.User, mail.MaySend = by.user.Name, by.user.MaySend
	}
	outcomes := make([]outcome, len(l.recipients))
	for i := range l.recipients {
		outcomes[i].email = l.recipients[i].Email
		outcomes[i].err = l.recipients[i].check()
	}
	if l.personal() {
		l.sendEach(ctx, &mail, by, h, b, outcomes)
		return outcomes, nil
	}
	return outcomes, l.sendShared(ctx, &mail, by, h, b, outcomes)
}

// sendEach sends a message of its own to each recipient. Under a key each is a part of its own, so that a repetition for some of the recipients
// is known as well.
func (l *letter) sendEach(ctx context.Context, mail *Mail, by *sender, h *Handler, b *results, outcomes []outcome) {
	for i := range l.recipients {
		r, o := &l.recipients[i], &outcomes[i]
		if o.err != nil {
			continue
		}
		var own map[string]any
		if own, o.err = parseValues(r.Substitutions); o.err != nil {
			continue
		}
		m := *mail
		m.Content, o.err = l.content.compose(&values{global: l.global, own: own, to: r, strict: l.strict, max: h.o.MaxMessage})
		if o.err != nil {
			continue
		}
		m.To, m.Part = []string{r.Email}, r.Email
		if o.err = by.spend(1, h.o.Now()); o.err == nil {
			o.index = b.add(ctx, &m)
		}
	}
}

// sendShared sends messages with as many recipients as one may have.
func (l *letter) sendShared(ctx context.Context, mail *Mail, by *sender, h *Handler, b *results, outcomes []outcome) error {
	v := values{global: l.global, strict: l.strict, max: h.o.MaxMessage}
	if len(l.recipients) == 1 {
		v.to = &l.recipients[0]
	}
	text, err := l.content.compose(&v)
	if err != nil {
		return err
	}
	mail.Content = text
	for group, at := 0, 0; at < len(outcomes); group++ {
		m := *mail
		var members []int
		for ; at < len(outcomes) && len(members) < h.o.Recipients; at++ {
			if outcomes[at].err == nil {
				m.To, members = append(m.To, outcomes[at].email), append(members, at)
			}
		}
		if len(members) == 0 {
			break
		}
		if group > 0 {
			m.Part = strconv.Itoa(group)
		}
		err, index := by.spend(len(members), h.o.Now()), 0
		if err == nil {
			index = b.add(ctx, &m)
		}
		for _, i := range members {
			outcomes[i].index, outcomes[i].err = index, err
		}
	}
	return nil
}

// results is a batch with the number of Mails in it.
type results struct {
	Batch
	n     int
	items int // letters that were read
}

func (b *results) add(ctx context.Context, m *Mail) int {
	b.Add(ctx, m)
	b.n++
	return b.n - 1
}
