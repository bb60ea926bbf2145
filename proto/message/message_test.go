package message

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

func TestIDsRise(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	var last ID
	for i := range 100_000 {
		at := now.Add(time.Duration(i%7-3) * time.Hour) // a clock that jumps both ways
		id := NextID(last, at, 5)
		if id <= last || id.String() <= last.String() {
			t.Fatalf("id %d: %v after %v", i, id, last)
		}
		if id.Shard() != 5 {
			t.Fatalf("shard %d, want 5", id.Shard())
		}
		last = id
	}
	if id := NextID(0, now, 1); !id.Time().Equal(now) {
		t.Errorf("time %v, want %v", id.Time(), now)
	}
}

func TestIDText(t *testing.T) {
	for range 1000 {
		id := ID(rand.Uint64())
		s := id.String()
		got, err := ParseID(s)
		if len(s) != IDLength || err != nil || got != id {
			t.Fatalf("%d printed as %q, read back as %d, %v", id, s, got, err)
		}
	}
	for _, bad := range []string{"", "0", "../../x", "ZZZZZZZZZZZZZ", "000000000000U", "00000000000000", "000000000000\n"} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q read as %v", bad, id)
		}
	}
}

func TestAppendContent(t *testing.T) {
	b := NewBudget(1 << 20)
	want := make([]byte, 300_000)
	for i := range want {
		want[i] = byte(rand.Uint32())
	}
	for _, hint := range []int64{0, 10, 300_000, 1 << 40} {
		var cs []*Chunk
		for p := want; len(p) > 0; {
			n := min(len(p), rand.IntN(20_000)+1)
			cs = b.AppendContent(cs, p[:n], hint)
			p = p[n:]
		}
		var got []byte
		for i, c := range cs {
			if i < len(cs)-1 && len(c.B) != ChunkSize {
				t.Fatalf("chunk %d of %d holds %d octets", i, len(cs), len(c.B))
			}
			got = append(got, c.B...)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("hint %d: content differs", hint)
		}
		FreeAll(cs)
		if b.Used() != 0 {
			t.Fatalf("hint %d: %d bytes of the budget leaked", hint, b.Used())
		}
	}
}

func TestReleaseReturnsTheBudget(t *testing.T) {
	b := NewBudget(1000)
	m := &Message{Body: b.AppendContent(nil, make([]byte, 100_000), 0)}
	m.Hold(1)
	m.Hold(2)
	for range 2 {
		m.Release()
		if m.Body == nil || !b.Full() {
			t.Fatal("content went before its last holder")
		}
	}
	if m.Release(); m.Body != nil || b.Used() != 0 {
		t.Fatalf("content stayed: %d bytes", b.Used())
	}
}

func TestDomain(t *testing.T) {
	for addr, want := range map[string]string{"a@b.example": "b.example", `"u@far"@local`: "local", "a@[192.0.2.1]": "[192.0.2.1]", "postmaster": ""} {
		if got := (&Recipient{Address: addr}).Domain(); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

func BenchmarkChunk(b *testing.B) {
	budget, p := NewBudget(1<<30), make([]byte, 10<<10)
	var cs []*Chunk
	b.ReportAllocs()
	for b.Loop() {
		cs = budget.AppendContent(cs[:0], p, 10<<10)
		FreeAll(cs)
	}
}
