package gauge

import (
	"path/filepath"
	"testing"
)

func TestTwoMappingsShareTheCounter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gauge")
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a.Add(40)
	b.Add(2)
	if a.Value() != 42 || b.Value() != 42 {
		t.Errorf("%d and %d, want 42", a.Value(), b.Value())
	}
	if _, err := Open(filepath.Join(path, "missing")); err == nil {
		t.Error("a path that cannot be was opened")
	}
}
