package recipients

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// write writes a list, with a time of its own.
func write(t testing.TB, path, content string, version int) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000+int64(version), 0)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients.txt")
	write(t, path, "# who is there\n\nAnn@Example.com\r\n  bob@example.com # comes by\n*@all.example\n\"quoted one\"@example.com\nann@example.com\njürgen@bücher.example", 1)
	l, err := openList(path)
	if err != nil {
		t.Fatal(err)
	}
	if l.len() != 5 {
		t.Errorf("%d entries", l.len())
	}
	for address, want := range map[string]bool{
		"ann@example.com": true, "ANN@example.com": true, "bob@example.com": true, "carl@example.com": false, "ann@all.example": true, "any@all.example": true,
		"ann@other.example": false, `"ann"@example.com`: true, `"a\nn"@example.com`: true, `"quoted one"@example.com`: true, "jürgen@xn--bcher-kva.example": true,
		"ann+tag@example.com": true, "ann+@example.com": true, "+ann@example.com": false, "dora+ann@example.com": false, "ann-x@example.com": true, "*@example.com": false,
	} {
		local, domain, _ := strings.Cut(address, "@")
		if got := l.has(appendLocal(nil, []byte(local)), domain, "+-"); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	if l.has([]byte("ann+tag"), "example.com", "") {
		t.Error("a subaddress where there are none")
	}
}

func TestListFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients.txt")
	for content, want := range map[string]string{
		"a@example.com\nno address\n":                    `:2: "no address" is no recipient: want user@example.com, or *@example.com`,
		"a@example.com b@example.com\n":                  `:1: "a@example.com b@example.com" is no recipient`,
		"a@\n":                                           `:1: "a@" is no recipient`,
		"<a@example.com>\n":                              `is no recipient`,
		"postmaster\n":                                   `is no recipient`,
		"@x.example:a@example.com\n":                     `is no recipient`,
		"\xff@example.com\n":                             `is no recipient`,
		"a@example.com\n" + strings.Repeat("x", 5000):    `:2: longer than 1024 octets`,
		strings.Repeat("x@y.example\n", 3) + "a\x00@b\n": `:4: "a\x00@b" is no recipient`,
	} {
		write(t, path, content, 1)
		if _, err := openList(path); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%.50q: %v, want %s", content, err, want)
		}
	}
	if _, err := openList(path + ".not"); err == nil {
		t.Error("a list without a file")
	}
}

// TestListChanges: a file that changes is read again, and one that cannot be read leaves the list as it was.
func TestListChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients.txt")
	write(t, path, "ann@example.com\n", 1)
	l, err := openList(path)
	if err != nil {
		t.Fatal(err)
	}
	for version, step := range []struct {
		content        string
		changed, fails bool
		ann, bob       bool
	}{
		{"bob@example.com\n", true, false, false, true},
		{"nonsense\n", false, true, false, true},
		{"ann@example.com\nbob@example.com\n", true, false, true, true},
		{"", true, false, false, false},
	} {
		write(t, path, step.content, version+2)
		if changed, err := l.refresh(); changed != step.changed || (err != nil) != step.fails {
			t.Errorf("%q: changed %v, %v", step.content, changed, err)
		}
		if changed, err := l.refresh(); changed || err != nil {
			t.Errorf("%q: read twice: %v, %v", step.content, changed, err)
		}
		if ann, bob := l.has([]byte("ann"), "example.com", ""), l.has([]byte("bob"), "example.com", ""); ann != step.ann || bob != step.bob {
			t.Errorf("%q: ann %v, bob %v", step.content, ann, bob)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := l.refresh(); err == nil {
		t.Error("a file that is gone")
	}
}

// TestListOfAMillion takes 8 bytes for an entry.
func TestListOfAMillion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recipients.txt")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const entries = 1_000_000
	w := bufio.NewWriter(f)
	for i := range entries {
		fmt.Fprintf(w, "customer%d@shop%d.example\n", i, i%100)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	before := heap()
	l, err := openList(path)
	if err != nil {
		t.Fatal(err)
	}
	if took := int64(heap()) - int64(before); took > 12*entries {
		t.Errorf("%d bytes", took)
	}
	if l.len() != entries || !l.has([]byte("customer777777"), "shop77.example", "") || l.has([]byte("customer777777"), "shop78.example", "") {
		t.Errorf("%d entries", l.len())
	}
	if n := testing.AllocsPerRun(100, func() { l.has([]byte("customer5"), "shop5.example", "") }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	runtime.KeepAlive(l)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func FuzzList(f *testing.F) {
	for _, seed := range []string{"a@b.example\n*@c.example", "\"a b\"@c # x", "#", "ü@ö", "a@[127.0.0.1]"} {
		f.Add(seed)
	}
	path := filepath.Join(f.TempDir(), "recipients.txt")
	version := 0
	f.Fuzz(func(t *testing.T, content string) {
		version++
		write(t, path, content, version)
		l, err := openList(path)
		if err == nil && l.len() > strings.Count(content, "\n")+1 {
			t.Fatalf("%q: %d entries", content, l.len())
		}
	})
}

func BenchmarkList(b *testing.B) {
	path := filepath.Join(b.TempDir(), "recipients.txt")
	var s strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&s, "customer%d@shop.example\n", i)
	}
	write(b, path, s.String(), 1)
	l, err := openList(path)
	if err != nil {
		b.Fatal(err)
	}
	local := []byte("customer77777")
	b.ReportAllocs()
	for b.Loop() {
		if !l.has(local, "shop.example", "+") {
			b.Fatal("not found")
		}
	}
}

func TestCache(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	c := newCache(100)
	c.put(1, entry{until: now.Add(time.Minute).UnixNano()})
	c.put(2, entry{until: now.Add(time.Second).UnixNano(), absent: true})
	for _, step := range []struct {
		key   uint64
		after time.Duration
		v     verdict
		known bool
	}{
		{1, 0, there, true}, {2, 0, absent, true}, {3, 0, unsure, false},
		{2, time.Second - 1, absent, true}, {2, time.Second, unsure, false}, {1, time.Minute - 1, there, true}, {1, time.Minute, unsure, false},
	} {
		if v, known := c.get(step.key, now.Add(step.after)); v != step.v || known != step.known {
			t.Errorf("%+v: %v, %v", step, v, known)
		}
	}
	for key := range uint64(10_000) {
		c.put(1000+key, entry{until: now.Add(time.Hour).UnixNano()})
		if _, known := c.get(1000, now); !known { // what is asked for stays
			t.Fatalf("forgotten after %d others", key)
		}
		if n := len(c.young) + len(c.old); n > 200 {
			t.Fatalf("%d entries", n)
		}
	}
	if _, known := c.get(1500, now); known {
		t.Error("what is not asked for stays")
	}
}
