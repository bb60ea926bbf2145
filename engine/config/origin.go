package config

import (
	"fmt"
	"strings"
)

// origin is where the keys of a file stand. It is shared and immutable.
type origin struct {
	file  string
	lines map[string]int // by key with indexes of tables, as in "route[0].to"
}

// note keeps where keys stand, and not where the elements of lists do: a file may list very many domains.
func (r *reader) note() *origin {
	o := &origin{file: r.file, lines: map[string]int{}}
	for key, at := range r.where {
		if key != "" && !strings.HasSuffix(key, "]") {
			o.lines[key] = at.line
		}
	}
	return o
}

// Origin says where the value of a key was set, as in "mailrace.toml:12"; "" = nowhere: it is the default, or the configuration is no file. Keys
// are written as in "queue.retry_min" and "route[0].to".
func (c *Config) Origin(key string) string {
	if c.origin == nil || c.origin.lines[key] == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%d", c.origin.file, c.origin.lines[key])
}
