// Package archive carries messages out of a spool into a directory and back: each as NAME.eml, the octets as they would be delivered, with
// an envelope beside it in NAME.json. What was exported and is imported is the same octet for octet, under the same id where that is free.
package archive

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"mailrace/proto/message"
)

// format is the version of the side file.
const format = 1

const (
	// maxRecipients bounds what a side file may ask for.
	maxRecipients = 100_000
	// maxText bounds each of its texts, and maxTrace the trace header, in octets.
	maxText  = 4 << 10
	maxTrace = 16 << 10
)

// envelope is the side file of a message.
type envelope struct {
	Format     int         `json:"format"`
	ID         string      `json:"id"`
	Arrived    time.Time   `json:"arrived"`
	From       octets      `json:"from"` // "" = null reverse-path
	Recipients []recipient `json:"recipients"`
	Flags      []string    `json:"flags,omitempty"`
	Trace      int         `json:"trace_octets"` // of the .eml: the trace header in front of the content
	Size       int64       `json:"size"`         // octets of content behind it
	Client     octets      `json:"client,omitempty"`
	Helo       octets      `json:"helo,omitempty"`
	User       octets      `json:"user,omitempty"`
	Tenant     octets      `json:"tenant,omitempty"`
	Campaign   octets      `json:"campaign,omitempty"`
	DSN        *dsn        `json:"dsn,omitempty"`
	Wishes     *wishes     `json:"wishes,omitempty"`
}

type recipient struct {
	Address  octets    `json:"address"`
	State    string    `json:"state"`
	Attempts uint16    `json:"attempts,omitempty"`
	Due      time.Time `json:"due,omitzero"`
	Reply    octets    `json:"reply,omitempty"`
	Notify   []string  `json:"notify,omitempty"`   // RFC 3461 §4.1
	Original octets    `json:"original,omitempty"` // ORCPT, RFC 3461 §4.2
	Late     bool      `json:"late,omitempty"`     // its deadline passed and was reported
	Noticed  uint8     `json:"noticed,omitempty"`  // delays that were reported
	Doubt    *doubt    `json:"in_doubt,omitempty"` // a delivery may have happened
}

// doubt is a delivery that may have happened.
type doubt struct {
	Began   time.Time      `json:"began"`
	Attempt uint16         `json:"attempt"`
	Times   uint16         `json:"times"`
	Peer    netip.AddrPort `json:"peer,omitzero"`
	Cause   string         `json:"cause"`  // "crash" or "connection"
	Action  string         `json:"action"` // "retry", "wait" or "give-up"
}

func describeDoubt(d *message.Doubt) *doubt {
	if d == nil {
		return nil
	}
	return &doubt{Began: moment(d.Began), Attempt: d.Attempt, Times: d.Times, Peer: d.Peer, Cause: d.Cause.String(), Action: d.Action.String()}
}

// read is the doubt that d describes; none for a nil one.
func (d *doubt) read() (*message.Doubt, error) {
	if d == nil {
		return nil, nil
	}
	began, err := nanoseconds(d.Began)
	if err != nil {
		return nil, fmt.Errorf("began: %w", err)
	}
	m := message.Doubt{Began: began, Attempt: d.Attempt, Times: d.Times, Peer: d.Peer}
	if d.Cause == message.DoubtConnection.String() {
		m.Cause = message.DoubtConnection
	}
	var known bool
	if m.Action, known = message.ParseDoubtAction(d.Action); !known || m.Cause.String() != d.Cause || !m.Valid() || d.Peer.Addr().Zone() != "" {
		return nil, fmt.Errorf("%+v cannot be", *d)
	}
	return &m, nil
}

type dsn struct {
	Return     string `json:"return,omitempty"` // "headers" or "full"
	EnvelopeID octets `json:"envelope_id,omitempty"`
}

type wishes struct {
	Release  time.Time `json:"release,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	ByMode   string    `json:"by_mode,omitempty"` // "return" or "notify"
	ByTrace  bool      `json:"by_trace,omitempty"`
	Priority int8      `json:"priority,omitempty"`
}

// octets is a string that JSON cannot spoil: text where it is UTF-8, and {"base64": …} where not.
type octets string

type encoded struct {
	Base64 string `json:"base64"`
}

// MarshalJSON implements json.Marshaler.
func (o octets) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(o)) {
		return json.Marshal(string(o))
	}
	return json.Marshal(encoded{base64.StdEncoding.EncodeToString([]byte(o))})
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *octets) UnmarshalJSON(b []byte) error {
	var s string
	if len(b) > 0 && b[0] == '{' {
		var e encoded
		if err := json.Unmarshal(b, &e); err != nil {
			return err
		}
		raw, err := base64.StdEncoding.DecodeString(e.Base64)
		*o = octets(raw)
		return err
	}
	err := json.Unmarshal(b, &s)
	*o = octets(s)
	return err
}

// names of flags, in the order of their bits.
var flagNames = []string{"8bit", "smtputf8", "leading_dots", "binary", "require_tls"}

var notifyNames = []string{"never", "success", "failure", "delay"}

var returnNames = []string{"", "headers", "full"}

var byModeNames = []string{"", "return", "notify"}

// bits are the names of the bits that are set in v.
func bits(v uint8, names []string) (set []string) {
	for i, name := range names {
		if v&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return set
}

// fromBits is the reverse.
func fromBits(set, names []string) (v uint8, err error) {
	for _, name := range set {
		i := slices.Index(names, name)
		if i < 0 {
			return 0, unknownName(name, names)
		}
		v |= 1 << i
	}
	return v, nil
}

func unknownName(name string, names []string) error {
	return fmt.Errorf("%q is not one of %s", name, strings.Join(slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "" }), ", "))
}

func indexOf(name string, names []string) (int, error) {
	if i := slices.Index(names, name); i >= 0 {
		return i, nil
	}
	return 0, unknownName(name, names)
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

func nanoseconds(t time.Time) (int64, error) {
	switch {
	case t.IsZero():
		return 0, nil
	case t.Year() < 1980 || t.Year() > 2261:
		return 0, fmt.Errorf("%v is out of range", t)
	}
	return t.UnixNano(), nil
}

// describe makes the side file of m, whose trace header has so many octets.
func describe(m *message.Message, trace int) *envelope {
	e := &envelope{
		Format: format, ID: m.ID.String(), Arrived: m.Arrival().UTC(), From: octets(m.From), Flags: bits(uint8(m.Flags), flagNames), Trace: trace,
		Size: m.Size, Client: octets(m.Client), Helo: octets(m.Helo), User: octets(m.User), Tenant: octets(m.Tenant), Campaign: octets(m.Campaign),
	}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		e.Recipients = append(e.Recipients, recipient{
			Address: octets(r.Address), State: r.State.String(), Attempts: r.Attempts, Due: moment(r.Due), Reply: octets(r.Reply),
			Notify: bits(uint8(r.Notify), notifyNames), Original: octets(m.DSN.Original(i)), Late: r.Late, Noticed: r.Noticed, Doubt: describeDoubt(r.Doubt),
		})
	}
	if d := m.DSN; d != nil {
		e.DSN = &dsn{Return: returnNames[d.Return], EnvelopeID: octets(d.EnvelopeID)}
	}
	if w := m.Wishes; w != nil {
		e.Wishes = &wishes{Release: moment(w.Release), Deadline: moment(w.Deadline), ByMode: byModeNames[w.ByMode], ByTrace: w.ByTrace, Priority: w.Priority}
	}
	return e
}

// parse reads a side file, strictly: what it does not understand it refuses, since mail that loses a wish is not the same mail.
func parse(b []byte) (*envelope, *message.Message, error) {
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	e := new(envelope)
	if err := d.Decode(e); err != nil {
		return nil, nil, err
	}
	if d.More() {
		return nil, nil, errors.New("there is more behind the envelope")
	}
	m, err := e.message()
	return e, m, err
}

// message is what the side file describes, without content.
func (e *envelope) message() (*message.Message, error) {
	if e.Format != format {
		return nil, fmt.Errorf("format %d: this program reads %d", e.Format, format)
	}
	id, err := message.ParseID(e.ID)
	if err != nil {
		return nil, fmt.Errorf("id: %w", err)
	}
	flags, err := fromBits(e.Flags, flagNames)
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	m := &message.Message{
		ID: id, From: string(e.From), Flags: message.Flags(flags), Size: e.Size, Client: string(e.Client), Helo: string(e.Helo),
		User: string(e.User), Tenant: string(e.Tenant), Campaign: string(e.Campaign),
	}
	if m.Arrived, err = nanoseconds(e.Arrived); err != nil || m.Arrived == 0 {
		return nil, fmt.Errorf("arrived: %v is out of range", e.Arrived)
	}
	if e.Trace < 0 || e.Trace > maxTrace || e.Size < 0 {
		return nil, fmt.Errorf("trace_octets %d, size %d: out of range", e.Trace, e.Size)
	}
	for _, text := range []octets{e.From, e.Client, e.Helo, e.User, e.Tenant, e.Campaign} {
		if err := clean(text); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(e.recipients(m), e.notifications(m), e.wishes(m)); err != nil {
		return nil, err
	}
	return m, nil
}

// clean refuses what could end a line of SMTP.
func clean(text octets) error {
	if len(text) > maxText {
		return fmt.Errorf("a text of %d octets", len(text))
	}
	if strings.ContainsFunc(string(text), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%q holds control characters", string(text))
	}
	return nil
}

func (e *envelope) recipients(m *message.Message) error {
	if len(e.Recipients) == 0 || len(e.Recipients) > maxRecipients {
		return fmt.Errorf("%d recipients: want 1 to %d", len(e.Recipients), maxRecipients)
	}
	m.Recipients = make([]message.Recipient, len(e.Recipients))
	for i, r := range e.Recipients {
		to := &m.Recipients[i]
		notify, err := fromBits(r.Notify, notifyNames)
		if err == nil && !message.Notify(notify).Valid() {
			err = errors.New("never stands alone")
		}
		if err != nil {
			return fmt.Errorf("recipient %d: notify: %w", i, err)
		}
		if to.State, err = parseState(r.State); err != nil {
			return fmt.Errorf("recipient %d: %w", i, err)
		}
		if to.Due, err = nanoseconds(r.Due); err != nil {
			return fmt.Errorf("recipient %d: due: %w", i, err)
		}
		if to.Doubt, err = r.Doubt.read(); err != nil {
			return fmt.Errorf("recipient %d: in_doubt: %w", i, err)
		}
		if r.Address == "" {
			return fmt.Errorf("recipient %d: no address", i)
		}
		if err := errors.Join(clean(r.Address), clean(r.Reply), clean(r.Original)); err != nil {
			return fmt.Errorf("recipient %d: %w", i, err)
		}
		to.Address, to.Reply, to.Attempts, to.Notify, to.Late = string(r.Address), string(r.Reply), r.Attempts, message.Notify(notify), r.Late
		to.Noticed = r.Noticed
	}
	return nil
}

// parseState reads the name of a recipient's state.
func parseState(name string) (message.State, error) {
	var names []string
	for s := message.Pending; s <= message.Expired; s++ {
		names = append(names, s.String())
	}
	i, err := indexOf(name, names)
	if err != nil {
		return 0, fmt.Errorf("state: %w", err)
	}
	return message.State(i), nil
}

func (e *envelope) notifications(m *message.Message) error {
	var originals []string
	for i, r := range e.Recipients {
		if r.Original != "" && originals == nil {
			originals = make([]string, len(e.Recipients))
		}
		if originals != nil {
			originals[i] = string(r.Original)
		}
	}
	if e.DSN == nil {
		if originals != nil {
			return errors.New("dsn: missing, and recipients have original addresses")
		}
		return nil
	}
	back, err := indexOf(e.DSN.Return, returnNames)
	if err != nil {
		return fmt.Errorf("dsn: return: %w", err)
	}
	m.DSN = &message.DSN{Return: message.Return(back), EnvelopeID: string(e.DSN.EnvelopeID), Originals: originals}
	return clean(e.DSN.EnvelopeID)
}

func (e *envelope) wishes(m *message.Message) error {
	w := e.Wishes
	if w == nil {
		return nil
	}
	mode, err := indexOf(w.ByMode, byModeNames)
	if err != nil {
		return fmt.Errorf("wishes: by_mode: %w", err)
	}
	if w.Priority < -message.PriorityMax || w.Priority > message.PriorityMax {
		return fmt.Errorf("wishes: priority %d is out of range", w.Priority)
	}
	m.Wishes = &message.Wishes{ByMode: message.ByMode(mode), ByTrace: w.ByTrace, Priority: w.Priority}
	var errs [2]error
	m.Wishes.Release, errs[0] = nanoseconds(w.Release)
	m.Wishes.Deadline, errs[1] = nanoseconds(w.Deadline)
	return errors.Join(errs[:]...)
}
