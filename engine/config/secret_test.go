package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecret(t *testing.T) {
	name := filepath.Join(t.TempDir(), "secret")
	t.Setenv("MAILRACE_TEST_SECRET", "p w")
	for _, c := range []struct {
		secret Secret
		text   string
		mode   os.FileMode
		want   string
		fault  string
	}{
		{Secret("file:" + name), "pa ss\r\n", 0o600, "pa ss", ""},
		{Secret("file:" + name), "pass", 0o640, "pass", ""},
		{Secret("file:" + name), "pass\n", 0o604, "", "is open to everybody: want chmod o= " + name},
		{Secret("file:" + name), "\n\n", 0o600, "", "is empty"},
		{Secret("file:" + name), "one\ntwo\n", 0o600, "", "holds more than one line"},
		{Secret("file:" + name), strings.Repeat("x", secretMax+1), 0o600, "", "is longer than 16384 octets"},
		{Secret("file:" + filepath.Dir(name)), "", 0o600, "", "is no file"},
		{"env:MAILRACE_TEST_SECRET", "", 0o600, "p w", ""},
		{"env:MAILRACE_TEST_NO_SECRET", "", 0o600, "", `"env:MAILRACE_TEST_NO_SECRET" is empty`},
	} {
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := c.secret.Read()
		if got != c.want || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q: %q, %v", c.text[:min(len(c.text), 20)], got, err)
		}
	}
}
