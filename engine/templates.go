package engine

import (
	"fmt"
	"strings"

	"mailrace/engine/config"
	"mailrace/proto/dsn"
	"mailrace/router/mx"
)

// templates are the texts of notifications by the domain of the sender, who reads them: "example.com", "*.example.com" or "*".
type templates map[string]*dsn.Template

// newTemplates reads them.
func newTemplates(c *config.DSN) (templates, error) {
	ts := templates{}
	for i := range c.Templates {
		t, err := c.Templates[i].Read()
		if err != nil {
			return nil, fmt.Errorf("dsn.template: %w", err)
		}
		for _, domain := range c.Templates[i].Domains {
			ts[domain] = t
		}
	}
	return ts, nil
}

// of returns the template of the most specific name, or nil.
func (ts templates) of(sender string) *dsn.Template {
	if len(ts) == 0 {
		return nil
	}
	domain, err := mx.Normal(sender[strings.LastIndexByte(sender, '@')+1:])
	if err != nil {
		return ts["*"]
	}
	if t := ts[domain]; t != nil {
		return t
	}
	for {
		_, above, found := strings.Cut(domain, ".")
		if !found {
			return ts["*"]
		}
		if t := ts["*."+above]; t != nil {
			return t
		}
		domain = above
	}
}
