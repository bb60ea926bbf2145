package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailrace/engine/config"
)

func readme(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReadmeBeginning holds the README's first configuration to what check accepts.
func TestReadmeBeginning(t *testing.T) {
	_, text, ok := strings.Cut(readme(t), "as a beginning:\n\n```toml\n")
	text, _, closed := strings.Cut(text, "```")
	if !ok || !closed {
		t.Fatal("there is no such configuration")
	}
	if _, err := config.Parse("README.md", []byte(text)); err != nil {
		t.Error(err)
	}
}

// TestReadmeCommands holds the command lines of the README, in the text and in its examples, to the commands and flags there are.
func TestReadmeCommands(t *testing.T) {
	lines := regexp.MustCompile("(?m)`mailrace ([^`]*)`|^    (?:bin/)?mailrace (.*)$").FindAllStringSubmatch(readme(t), -1)
	if len(lines) < 20 {
		t.Errorf("%d command lines", len(lines))
	}
	for _, line := range lines {
		text, _, _ := strings.Cut(line[1]+line[2], "#")
		c, rest, err := command().Find(strings.Fields(text))
		if err != nil {
			t.Errorf("mailrace %s: %v", text, err)
			continue
		}
		if c.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && rest[0] != "…" {
			t.Errorf("mailrace %s: no such command: %s", text, rest[0])
		}
		c.InitDefaultHelpFlag()
		for _, word := range rest {
			if name, ok := strings.CutPrefix(word, "--"); ok && rest[0] != "…" && c.Flag(name) == nil {
				t.Errorf("mailrace %s: no such flag: %s", text, word)
			}
		}
	}
}
