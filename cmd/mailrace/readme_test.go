package main

import (
	"os"
	"path/filepath"
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

// TestReadmeShowsEveryKey holds the README to the configuration that the code documents.
func TestReadmeShowsEveryKey(t *testing.T) {
	if !strings.Contains(readme(t), "```toml\n"+strings.TrimSpace(config.Example)+"\n```") {
		t.Error("README.md does not show engine/config/example.toml as it is")
	}
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
