package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
)

// Load reads and validates the configuration in the file at path. Errors of the configuration are Errors.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("configuration: %w: name the file by --config; \"mailrace config\" prints every key there is", err)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads and validates a configuration; name stands for the file in complaints. A configuration with any fault is refused whole,
// with all faults that were found (after a fault of TOML syntax no others are looked for).
func Parse(name string, data []byte) (*Config, error) {
	root, err := parseTree(name, data)
	if err != nil {
		return nil, err
	}
	c := Default()
	r := reader{file: name, where: map[string]position{"": {1, 1}}, failed: map[string]bool{}}
	r.fields(root, "", schema(c))
	for _, p := range c.problems() {
		if !r.failed[p.Key] {
			r.complain(p.Key, r.nearest(p.Key), "%s", p.Text)
		}
	}
	if len(r.problems) > 0 {
		r.problems.sort()
		return nil, r.problems
	}
	c.origin = r.note()
	return c, nil
}

// Validate checks a configuration that was built by a program. Its errors are Errors.
func (c *Config) Validate() error {
	if problems := c.problems(); len(problems) > 0 {
		return problems
	}
	return nil
}

// reader carries a tree of values into a Config and notes what is wrong and where everything stands.
type reader struct {
	file     string
	problems Errors
	where    map[string]position // by key with indexes: of the value
	failed   map[string]bool     // keys with a complaint already: their values are not judged further
}

var indexes = regexp.MustCompile(`\[\d+\]`)

func (r *reader) complain(key string, at position, format string, args ...any) {
	r.failed[key] = true
	r.problems = append(r.problems, Problem{
		File: r.file, Line: at.line, Column: at.column,
		Key: indexes.ReplaceAllString(key, ""), Text: fmt.Sprintf(format, args...),
	})
}

// nearest is where the key stands, or, when it is missing, the table that it is missing from.
func (r *reader) nearest(key string) position {
	for {
		if at, ok := r.where[key]; ok {
			return at
		}
		key = key[:max(strings.LastIndexAny(key, ".["), 0)]
	}
}

// field is one key that a table may have.
type field struct {
	name string
	set  func(r *reader, key string, v *value)
}

// fields carries a table into its fields. Unknown keys are refused.
func (r *reader) fields(t *value, table string, known []field) {
	names := make([]string, len(known))
	for i, f := range known {
		names[i] = f.name
	}
next:
	for _, e := range t.table {
		key := e.name
		if table != "" {
			key = table + "." + e.name
		}
		for _, f := range known {
			if f.name == e.name {
				r.where[key] = e.value.at
				f.set(r, key, e.value)
				continue next
			}
		}
		r.unknown(key, e, table, names)
	}
}

// unknown refuses a key that its table does not have, and guesses what was meant.
func (r *reader) unknown(key string, e *entry, table string, names []string) {
	key = strings.TrimSuffix(key, e.name) + printable(e.name)
	if near := nearest(e.name, names); near != "" {
		r.complain(key, e.at, "unknown key: did you mean %q?", near)
		return
	}
	place := "the top level"
	if table != "" {
		place = "[" + indexes.ReplaceAllString(table, "") + "]"
	}
	r.complain(key, e.at, "unknown key: %s has %s", place, strings.Join(names, ", "))
}

// printable quotes a key that could not stand bare in TOML.
func printable(name string) string {
	for _, c := range name {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return quote(name)
		}
	}
	if name == "" {
		return `""`
	}
	return shorten(name)
}
