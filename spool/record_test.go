package spool

import (
	"encoding/hex"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"mailrace/proto/message"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files of the newest record versions")

func goldenMessage() *message.Message {
	return &message.Message{
		ID: 0x1234567890abcd07, Arrived: 1767323045678901234, From: "bounce+77@example.com",
		Recipients: []message.Recipient{{Address: "a@example.net", Notify: message.NotifySuccess | message.NotifyDelay}, {Address: "\"quoted @\"@example.org", Notify: message.NotifyNever}, {Address: "пример@example.net"}},
		Flags:      message.Body8Bit | message.SMTPUTF8 | message.LeadingDots, Size: 70_000, Chunks: 2,
		Trace: []byte("Received: from client ([192.0.2.1]) by mx;\r\n\tFri, 2 Jan 2026 03:04:05 +0000\r\n"), Client: "192.0.2.1:25000", Helo: "[192.0.2.1]",
		DSN:  &message.DSN{Return: message.ReturnFull, EnvelopeID: "job 77 +=", Originals: []string{"rfc822;a+b@example.net", "", "utf-8;\\x{43F}@example.net"}},
		User: "app@example.com", Tenant: "shop", Campaign: "spring sale",
		Wishes: &message.Wishes{Release: 1767326645000000000, Deadline: 1767330245000000000, ByMode: message.ByNotify, ByTrace: true, Priority: -3},
	}
}

// goldenUnlabelled is goldenMessage as far as records of version 2 hold it.
func goldenUnlabelled() *message.Message {
	m := goldenMessage()
	m.User, m.Tenant, m.Campaign, m.Wishes = "", "", "", nil
	return m
}

// goldenPlain is goldenMessage as far as records of version 1 hold it.
func goldenPlain() *message.Message {
	m := goldenUnlabelled()
	m.DSN = nil
	for i := range m.Recipients {
		m.Recipients[i].Notify = message.NotifyDefault
	}
	return m
}

func goldenUpdate() Update {
	return Update{ID: 0x1234567890abcd07, Index: 300, State: message.Deferred, Attempts: 65535, Due: 1767323999000000001,
		Reply: "451 4.7.1 <a@example.net>: greylisted", Late: true, Parked: true, Noticed: 2,
		Doubt: &message.Doubt{Began: 1767323990000000001, Attempt: 65534, Times: 2, Peer: netip.MustParseAddrPort("192.0.2.7:25"),
			Cause: message.DoubtConnection, Action: message.DoubtWait}}
}

// golden compares a record with its golden file, which holds hexadecimal in lines, or rewrites the file.
func golden(t *testing.T, name string, record []byte) []byte {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *rewrite && record != nil {
		text := hex.EncodeToString(record)
		var lines strings.Builder
		for len(text) > 0 {
			n := min(len(text), 128)
			lines.WriteString(text[:n] + "\n")
			text = text[n:]
		}
		if err := os.WriteFile(name, []byte(lines.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if record != nil && string(record) != string(want) {
		t.Errorf("%s: the record is\n%x, the file has\n%x", name, record, want)
	}
	return want
}

func TestGoldenEnvelope(t *testing.T) {
	want := goldenMessage()
	record := golden(t, "envelope.v3", appendEnvelope(nil, want))
	checkEnvelope(t, record, want)
	if n := envelopeSize(want); n != len(record) {
		t.Errorf("size %d announced, is %d", n, len(record))
	}
}

// TestOldGoldenEnvelope reads what earlier versions wrote.
func TestOldGoldenEnvelope(t *testing.T) {
	checkEnvelope(t, golden(t, "envelope.v1", nil), goldenPlain())
	checkEnvelope(t, golden(t, "envelope.v2", nil), goldenUnlabelled())
}

func checkEnvelope(t *testing.T, record []byte, want *message.Message) {
	t.Helper()
	got := message.Message{DSN: new(message.DSN), Wishes: new(message.Wishes), Tenant: "left"}
	if err := decodeEnvelope(record, &got, true); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("read %+v, want %+v", &got, want)
	}
	if trace, err := envelopeTrace(record); err != nil || string(trace) != string(want.Trace) {
		t.Errorf("trace %q, %v", trace, err)
	}
}

func TestGoldenRecipient(t *testing.T) {
	want := goldenUpdate()
	record := golden(t, "recipient.v5", appendUpdate(nil, &want))
	if n := updateSize(&want); n != len(record) {
		t.Errorf("size %d announced, is %d", n, len(record))
	}
	for _, version := range []string{"recipient.v5", "recipient.v4", "recipient.v3", "recipient.v2", "recipient.v1"} {
		got, err := decodeUpdate(golden(t, version, nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %+v, %v, want %+v", version, got, err, want)
		}
		switch version { // what the one before does not hold
		case "recipient.v5":
			want.Doubt = nil
		case "recipient.v4":
			want.Noticed = 0
		case "recipient.v3":
			want.Parked = false
		case "recipient.v2":
			want.Late = false
		}
	}
}

func TestDamagedRecordsAreRefused(t *testing.T) {
	envelope, u := appendEnvelope(nil, goldenMessage()), goldenUpdate()
	recipient := appendUpdate(nil, &u)
	for i := range envelope {
		if err := decodeEnvelope(envelope[:i], new(message.Message), true); !errors.Is(err, errRecord) {
			t.Fatalf("envelope cut to %d bytes: %v", i, err)
		}
		damaged := append([]byte(nil), envelope...)
		damaged[i] ^= 0x10
		if err := decodeEnvelope(damaged, new(message.Message), true); !errors.Is(err, errRecord) {
			t.Fatalf("envelope with byte %d damaged: %v", i, err)
		}
	}
	for i := range recipient {
		damaged := append([]byte(nil), recipient...)
		damaged[i] ^= 0x10
		if _, err := decodeUpdate(damaged); !errors.Is(err, errRecord) {
			t.Fatalf("recipient with byte %d damaged: %v", i, err)
		}
	}
	long := append([]byte(nil), recipient...)
	long = append(long, 0)
	seal(long)
	if _, err := decodeUpdate(long); !errors.Is(err, errRecord) {
		t.Errorf("recipient with a byte behind: %v", err)
	}
}

// FuzzDecodeRecords feeds records whose checksum is right and whose fields may be anything. What decodes must encode to a record that
// decodes to the same.
func FuzzDecodeRecords(f *testing.F) {
	u := goldenUpdate()
	f.Add(appendEnvelope(nil, goldenMessage()))
	f.Add(appendUpdate(nil, &u))
	f.Fuzz(func(t *testing.T, record []byte) {
		if len(record) >= recordHeader {
			record = append([]byte(nil), record...)
			if record[0] == 0 || record[0] > recipientVersion {
				record[0] = recipientVersion
			}
			seal(record)
		}
		var m, again message.Message
		if err := decodeEnvelope(record, &m, true); err == nil {
			b := appendEnvelope(nil, &m)
			if len(b) != envelopeSize(&m) {
				t.Fatalf("size %d announced, is %d", envelopeSize(&m), len(b))
			}
			if err := decodeEnvelope(b, &again, true); err != nil || !reflect.DeepEqual(&m, &again) {
				t.Fatalf("%+v encoded and read back: %+v, %v", &m, &again, err)
			}
		} else if !errors.Is(err, errRecord) {
			t.Fatal(err)
		}
		_, _ = envelopeTrace(record)
		if u, err := decodeUpdate(record); err == nil && len(u.Reply) <= maxReply {
			if got, err := decodeUpdate(appendUpdate(nil, &u)); err != nil || !reflect.DeepEqual(got, u) {
				t.Fatalf("%+v encoded and read back: %+v, %v", u, got, err)
			}
		}
	})
}

func TestEncodingAllocatesNothing(t *testing.T) {
	m, u := goldenMessage(), goldenUpdate()
	dst := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(1000, func() {
		dst = appendEnvelope(dst[:0], m)
		dst = appendUpdate(dst, &u)
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func BenchmarkEncodeEnvelope(b *testing.B) {
	m := goldenMessage()
	m.Recipients = m.Recipients[:1]
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		dst = appendEnvelope(dst[:0], m)
	}
}

func BenchmarkDecodeEnvelope(b *testing.B) {
	m := goldenMessage()
	m.Recipients = m.Recipients[:1]
	record := appendEnvelope(nil, m)
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeEnvelope(record, m, false); err != nil {
			b.Fatal(err)
		}
	}
}
