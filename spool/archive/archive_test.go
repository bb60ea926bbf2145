package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"mailrace/proto/message"
	"mailrace/spool"
)

func options(dir string) spool.Options {
	return spool.Options{Path: filepath.Join(dir, "spool"), Sync: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

var budget = message.NewBudget(1 << 30)

// stored is a message as it is in a spool.
type stored struct {
	message.Message
	content string
}

// fill makes a spool with messages of every kind in it.
func fill(t *testing.T, o spool.Options, shards int) map[message.ID]*stored {
	t.Helper()
	done := make(chan *spool.Op, 100)
	o.Shards = shards
	o.Post = func(_ int, ops []*spool.Op) {
		for _, op := range ops {
			done <- op
		}
	}
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 3*message.ChunkSize+5)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	later := time.Date(2026, 5, 6, 7, 8, 9, 123456789, time.UTC).UnixNano()
	made := []*message.Message{
		{From: "s@sender.example", Recipients: []message.Recipient{{Address: "a@one.example"}}},
		{From: "", Flags: message.SMTPUTF8 | message.Body8Bit, Recipients: []message.Recipient{{Address: "jürgen@two.example"}}},
		{From: "raw\xff@sender.example", Flags: message.Binary | message.Body8Bit | message.RequireTLS, User: "u", Tenant: "acme", Campaign: "spring",
			Recipients: []message.Recipient{
				{Address: "a@one.example", Notify: message.NotifyNever},
				{Address: "b@Three.example", Notify: message.NotifySuccess | message.NotifyDelay, State: message.Deferred, Attempts: 7, Due: later, Reply: `451 4.7.1 "later"`, Late: true, Noticed: 2,
					Doubt: &message.Doubt{Began: later, Attempt: 6, Times: 2, Peer: netip.MustParseAddrPort("[2001:db8::1]:25"), Cause: message.DoubtConnection, Action: message.DoubtWait}},
				{Address: "c@three.example", State: message.Delivered, Attempts: 1, Reply: "250 ok"},
			},
			DSN:    &message.DSN{Return: message.ReturnFull, EnvelopeID: "x+y", Originals: []string{"", "rfc822;b@o.example", ""}},
			Wishes: &message.Wishes{Release: later, Deadline: later + 5, ByMode: message.ByNotify, ByTrace: true, Priority: -9}},
		{From: "S@sender.example", Flags: message.LeadingDots, Recipients: []message.Recipient{{Address: "d@one.example"}}},
		{From: "t@sender.example", Recipients: []message.Recipient{{Address: "e@four.example"}}},
	}
	contents := []string{"Subject: hello\r\n\r\nworld\r\n", "Subject: grüße\r\n", string(noise), ".\r\n..\r\n", ""}
	all := map[message.ID]*stored{}
	for i, m := range made {
		m.ID = s.Shard(i % shards).NewID()
		m.Arrived, m.Client, m.Helo = later-int64(i), "192.0.2.7", "client.example"
		m.Trace = fmt.Appendf(nil, "Received: by mx.example\r\n\tid %v\r\n", m.ID)
		if i == 4 {
			m.Trace = nil
		}
		m.Size = int64(len(contents[i]))
		if strings.Contains("\n"+contents[i], "\n.") {
			m.Flags |= message.LeadingDots
		}
		m.Body = budget.AppendContent(nil, []byte(contents[i]), m.Size)
		m.Chunks = len(m.Body)
		m.Hold(1)
		op := &spool.Op{Append: m}
		for j, r := range m.Recipients {
			if r.State != message.Pending {
				op.Updates = append(op.Updates, spool.Update{ID: m.ID, Index: j, State: r.State, Attempts: r.Attempts, Due: r.Due, Reply: r.Reply, Late: r.Late, Noticed: r.Noticed, Doubt: r.Doubt})
			}
		}
		s.ShardOf(m.ID).Enqueue(op)
		<-done
		m.Release()
		all[m.ID] = nil
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return read(t, o)
}

// read reads what a spool holds.
func read(t *testing.T, o spool.Options) map[message.ID]*stored {
	t.Helper()
	o.ReadOnly, o.Shards = true, 0
	s, err := spool.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	all := map[message.ID]*stored{}
	if err := s.Scan(func(m *message.Message) bool {
		cs, err := s.Load(m.ID, 0, m.Chunks+1, budget)
		if err != nil {
			t.Fatal(err)
		}
		kept := &stored{}
		kept.ID, kept.Arrived, kept.From, kept.Recipients, kept.Flags, kept.Size = m.ID, m.Arrived, m.From, m.Recipients, m.Flags, m.Size
		kept.Chunks, kept.Client, kept.Helo, kept.DSN, kept.Wishes = m.Chunks, m.Client, m.Helo, m.DSN, m.Wishes
		kept.User, kept.Tenant, kept.Campaign = m.User, m.Tenant, m.Campaign
		kept.Trace = bytes.Clone(cs[0].B)
		var b strings.Builder
		for _, c := range cs[1:] {
			b.Write(c.B)
		}
		kept.content = b.String()
		message.FreeAll(cs)
		all[m.ID] = kept
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func export(t *testing.T, o spool.Options, to string, f Filter) Exported {
	t.Helper()
	done, err := Export(t.Context(), o, to, f, nil)
	if err != nil || len(done.Failed) > 0 {
		t.Fatal(done, err)
	}
	return done
}

func importAll(t *testing.T, o spool.Options, from string) Imported {
	t.Helper()
	done, err := Import(t.Context(), o, from, nil)
	if err != nil {
		t.Fatal(done, err)
	}
	return done
}

// TestRoundTrip carries messages out and into an empty spool: they are the same, octet for octet, ids and states too.
func TestRoundTrip(t *testing.T) {
	o, dir := options(t.TempDir()), filepath.Join(t.TempDir(), "out")
	all := fill(t, o, 3)
	if done := export(t, o, dir, Filter{}); done.Messages != int64(len(all)) || done.Kept != 0 {
		t.Errorf("%+v", done)
	}
	for id, m := range all {
		text, err := os.ReadFile(filepath.Join(dir, id.String()+".eml"))
		if err != nil || string(text) != string(m.Trace)+m.content {
			t.Errorf("%v: %d octets, %v", id, len(text), err)
		}
	}
	if done := export(t, o, dir, Filter{}); done.Messages != int64(len(all)) || done.Kept != done.Messages {
		t.Errorf("again: %+v", done)
	}
	other := options(t.TempDir())
	if done := importAll(t, other, dir); done.Messages != int64(len(all)) || len(done.Renamed)+len(done.Failed) != 0 {
		t.Errorf("%+v", done)
	}
	got := read(t, other)
	for id, m := range all {
		if !reflect.DeepEqual(got[id], m) {
			t.Errorf("%v of %d octets, %q, %v, %+v, came back otherwise", id, len(m.content), m.Trace, m.Flags, m.Recipients)
		}
	}
	if done := importAll(t, other, dir); done.Messages != 0 || done.Present != int64(len(all)) {
		t.Errorf("again: %+v", done)
	}
	if v, err := spool.Verify(t.Context(), other, nil); err != nil || !v.OK() {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestImportParks: what was imported is in the index of what is due, at its time, so that a node reads it then and not at its start.
func TestImportParks(t *testing.T) {
	o, dir := options(t.TempDir()), filepath.Join(t.TempDir(), "out")
	all := fill(t, o, 2)
	export(t, o, dir, Filter{})
	other := options(t.TempDir())
	importAll(t, other, dir)
	s, err := spool.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found := 0
	for i := range s.Shards() {
		due, err := s.Shard(i).Due(nil, spool.Due{}, math.MaxInt64, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range due {
			m := all[d.ID]
			want := m.Arrived // of those that were never tried
			for _, r := range m.Recipients {
				if len(m.Recipients) > 1 && r.State == message.Deferred {
					want = min(want, r.Due)
				}
			}
			if d.At != want {
				t.Errorf("%v of %d recipients is due at %d, want %d", d.ID, len(m.Recipients), d.At, want)
			}
			found++
		}
	}
	if found != len(all) {
		t.Errorf("%d of %d messages are in the index", found, len(all))
	}
	deferred := func(due int64) message.Recipient { return message.Recipient{State: message.Deferred, Due: due} }
	for want, m := range map[int64]*message.Message{
		70: {Arrived: 5, Recipients: []message.Recipient{deferred(90), {State: message.Delivered, Due: 3}, deferred(70)}},
		40: {Arrived: 5, Recipients: []message.Recipient{deferred(90)}, Wishes: &message.Wishes{ByMode: message.ByNotify, Deadline: 40}},
		90: {Arrived: 5, Recipients: []message.Recipient{deferred(90)}, Wishes: &message.Wishes{ByMode: message.ByReturn, Deadline: 40}},
		1:  {Recipients: []message.Recipient{{}, deferred(90)}},
	} {
		m.ID = 7
		op := new(spool.Op)
		if park(op, m); op.Park != (spool.Due{At: want, ID: 7}) || len(op.Updates) != len(m.Recipients) || !op.Updates[0].Parked {
			t.Errorf("%+v, want %d", op, want)
		}
	}
}

// TestFields fails when a message gets a field: the side file must carry it.
func TestFields(t *testing.T) {
	for _, c := range []struct {
		of   any
		want int
	}{{message.Message{}, 24}, {message.Recipient{}, 10}, {message.DSN{}, 3}, {message.Wishes{}, 5}, {message.Doubt{}, 6}, {spool.Update{}, 10}} {
		if got := reflect.TypeOf(c.of).NumField(); got != c.want {
			t.Errorf("%T has %d fields and not %d: carry the new one in envelope, and count it here", c.of, got, c.want)
		}
	}
}

func TestFilters(t *testing.T) {
	o := options(t.TempDir())
	fill(t, o, 1)
	for _, c := range []struct {
		f    Filter
		want int64
	}{
		{Filter{}, 5}, {Filter{Limit: 2}, 2}, {Filter{Domain: "ONE.example"}, 3}, {Filter{Domain: "three.example"}, 1},
		{Filter{Domain: "three.example", States: []message.State{message.Pending}}, 0},
		{Filter{Domain: "three.example", States: []message.State{message.Delivered}}, 1},
		{Filter{States: []message.State{message.Deferred}}, 1}, {Filter{Sender: "s@SENDER.example"}, 2}, {Filter{Sender: "<>"}, 1},
		{Filter{Tenant: "acme"}, 1}, {Filter{Tenant: "nobody"}, 0},
	} {
		if done := export(t, o, t.TempDir(), c.f); done.Messages != c.want {
			t.Errorf("%+v: %d messages, want %d", c.f, done.Messages, c.want)
		}
	}
}

// TestTakenIDs imports into a spool where the ids belong to other messages.
func TestTakenIDs(t *testing.T) {
	o, dir := options(t.TempDir()), t.TempDir()
	all := fill(t, o, 1)
	export(t, o, dir, Filter{})
	for id, m := range all { // the same ids, other content
		text := string(m.Trace) + strings.Repeat("x", len(m.content))
		if err := os.WriteFile(filepath.Join(dir, id.String()+".eml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := importAll(t, o, dir)
	if done.Messages != 4 || done.Present != 1 || len(done.Renamed) != 4 { // that without content is the same
		t.Errorf("%+v", done)
	}
	got := read(t, o)
	if len(got) != len(all)+4 {
		t.Errorf("%d messages", len(got))
	}
	for _, r := range done.Renamed {
		id, err := message.ParseID(r.New)
		if err != nil || got[id] == nil || r.Old != r.Name || strings.Trim(got[id].content, "x") != "" {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for id, m := range all {
		if !reflect.DeepEqual(got[id], m) {
			t.Errorf("%v was changed", id)
		}
	}
	if done := importAll(t, o, dir); done.Messages != 0 || done.Present != 5 {
		t.Errorf("again: %+v", done)
	}
}

func TestImportRefuses(t *testing.T) {
	o, dir := options(t.TempDir()), t.TempDir()
	fill(t, o, 1)
	export(t, o, dir, Filter{Limit: 1})
	names, err := envelopeNames(dir)
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	name := filepath.Join(dir, names[0])
	side, content := must(os.ReadFile(name+".json")), must(os.ReadFile(name+".eml"))
	edit := func(old, with string) string { return strings.Replace(string(side), old, with, 1) }
	for _, c := range []struct{ what, side, content, want string }{
		{"unknown field", edit(`"format"`, `"fromat"`), string(content), "unknown field"},
		{"later format", edit(`"format": 1`, `"format": 2`), string(content), "format 2"},
		{"no id", edit(names[0], "../../etc"), string(content), "not a message id"},
		{"a line in an address", edit("a@one.example", `a@one.example\r\nDATA`), string(content), "control characters"},
		{"no recipient", edit("a@one.example", ""), string(content), "no address"},
		{"unknown state", edit(`"pending"`, `"sleeping"`), string(content), "not one of pending, deferred"},
		{"bare line feed", string(side), strings.Replace(string(content), "hello\r\n", "hello!\n", 1), "line feed without carriage return"},
		{"bare carriage return", string(side), strings.Replace(string(content), "hello\r\n", "hello\r!", 1), "carriage return without line feed"},
		{"NUL", string(side), strings.Replace(string(content), "hello", "hell\x00", 1), "NUL"},
		{"longer", string(side), string(content) + "x", "trace_octets and size must be right"},
		{"trace cut", edit(`"trace_octets": `, `"trace_octets": 1`), string(content), "trace_octets and size"},
		{"no JSON", "hello", string(content), "invalid character"},
		{"two envelopes", string(side) + "{}", string(content), "more behind"},
		{"long ago", edit(`"arrived": "2026`, `"arrived": "1026`), string(content), "out of range"},
	} {
		if c.side == string(side) && c.content == string(content) {
			t.Errorf("%s: nothing was edited", c.what)
		}
		if err := errors.Join(os.WriteFile(name+".json", []byte(c.side), 0o600), os.WriteFile(name+".eml", []byte(c.content), 0o600)); err != nil {
			t.Fatal(err)
		}
		done := importAll(t, options(t.TempDir()), dir)
		if done.Messages != 0 || len(done.Failed) != 1 || !strings.Contains(done.Failed[0].Reason, c.want) {
			t.Errorf("%s: %+v, want %q", c.what, done, c.want)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestCalledOff ends an export and an import; the next run does the rest.
func TestCalledOff(t *testing.T) {
	o, dir := options(t.TempDir()), t.TempDir()
	all := fill(t, o, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	other := options(t.TempDir())
	if _, err := Import(ctx, other, dir, nil); err != nil { // there is nothing to import
		t.Errorf("%v", err)
	}
	export(t, o, dir, Filter{})
	if done, err := Import(ctx, other, dir, nil); !errors.Is(err, context.Canceled) || done.Messages != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if done := importAll(t, other, dir); done.Messages != int64(len(all)) {
		t.Errorf("%+v", done)
	}
}

// FuzzEnvelope holds side files to what they say: what is read describes itself as what is read again.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"format":1,"id":"0000000000001","arrived":"2026-05-06T07:08:09.1Z","from":{"base64":"/w=="},"trace_octets":0,"size":0,
		"recipients":[{"address":"a@b.example","state":"deferred","due":"2026-05-06T07:08:09Z","notify":["success"],"original":"rfc822;x"}],
		"dsn":{"return":"full"},"wishes":{"by_mode":"notify","priority":-9},"flags":["binary"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, m, err := parse(b)
		if err != nil {
			return
		}
		again, err := describe(m, e.Trace).message()
		if err != nil {
			t.Fatalf("%v: %q", err, b)
		}
		if !reflect.DeepEqual(m, again) {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
