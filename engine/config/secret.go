package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Secret says where a password or token stands, which is never in the configuration itself: "file:/path" or "env:NAME"; "" = there is none.
type Secret string

// secretMax is the most octets of a secret.
const secretMax = 16 << 10

// parseSecret reads where a secret stands. What it complains of it does not repeat: it may be the secret.
func parseSecret(s string) (Secret, error) {
	kind, name, _ := strings.Cut(s, ":")
	if s != "" && (kind != "file" && kind != "env" || name == "") {
		return "", errors.New(`a secret does not belong in this file: want "file:/path" or "env:NAME", where it stands`)
	}
	return Secret(s), nil
}

// Read returns the secret, without the line end behind it. A file that everybody may read is refused. It blocks for as long as the disk does.
func (s Secret) Read() (string, error) {
	kind, name, _ := strings.Cut(string(s), ":")
	text := ""
	if kind == "env" {
		text = os.Getenv(name)
	} else {
		b, err := readPrivate(name)
		if err != nil {
			return "", err
		}
		text = strings.TrimRight(string(b), "\r\n")
	}
	switch {
	case text == "":
		return "", fmt.Errorf("%s is empty", quote(string(s)))
	case strings.ContainsAny(text, "\x00\r\n"):
		return "", fmt.Errorf("%s holds more than one line", quote(string(s)))
	}
	return text, nil
}

// readPrivate reads a small file that not everybody may read.
func readPrivate(name string) ([]byte, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() { // opening it could wait for ever
		return nil, fmt.Errorf("%s is no file", quote(name))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("%s is open to everybody: want chmod o= %s", quote(name), name)
	}
	b, err := io.ReadAll(io.LimitReader(f, secretMax+1))
	if err == nil && len(b) > secretMax {
		err = fmt.Errorf("%s is longer than %d octets", quote(name), secretMax)
	}
	return b, err
}
