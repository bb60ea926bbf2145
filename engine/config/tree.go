package config

import (
	"errors"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// position is a place in the file, counted from 1; column counts bytes.
type position struct{ line, column int }

// value is one TOML value and where it stands.
type value struct {
	kind  unstable.Kind // Table and ArrayTable for what headers build
	at    position      // of the value
	text  string        // scalars: decoded string, or the digits as written
	items []*value      // Array, ArrayTable
	table []*entry      // Table, InlineTable: in the order of the file
}

// entry is one key of a table.
type entry struct {
	name string
	at   position // of the key
	*value
}

func (v *value) entry(name string) *entry {
	for _, e := range v.table {
		if e.name == name {
			return e
		}
	}
	return nil
}

// describe says what stands in the file, for complaints.
func (v *value) describe() string {
	switch v.kind {
	case unstable.String:
		return quote(v.text)
	case unstable.Bool, unstable.Integer, unstable.Float:
		return shorten(v.text)
	case unstable.Array:
		return "an array"
	case unstable.Table, unstable.InlineTable:
		return "a table"
	case unstable.ArrayTable:
		return "an array of tables"
	}
	return "a date or time"
}

// parseTree reads TOML into values with positions. go-toml's decoder judges the document first: its syntax, and that no key or table is
// defined twice. What then is walked here is known to be sound.
func parseTree(name string, data []byte) (*value, error) {
	var scratch map[string]any
	if err := toml.Unmarshal(data, &scratch); err != nil {
		p := Problem{File: name, Line: 1, Column: 1, Text: strings.TrimPrefix(err.Error(), "toml: ")}
		var at *toml.DecodeError
		if errors.As(err, &at) {
			p.Line, p.Column = at.Position()
			p.Key = strings.Join(at.Key(), ".")
		}
		return nil, Errors{p}
	}
	root := &value{kind: unstable.Table, at: position{1, 1}}
	p := &unstable.Parser{}
	p.Reset(data)
	w := walker{lines: lineStarts(data)}
	into := root
	for p.NextExpression() {
		switch n := p.Expression(); n.Kind {
		case unstable.KeyValue:
			w.keyValue(into, n)
		case unstable.Table, unstable.ArrayTable:
			into = w.header(root, n)
		}
	}
	if err := p.Error(); err != nil {
		return nil, Errors{{File: name, Line: 1, Column: 1, Text: err.Error()}}
	}
	return root, nil
}

// walker turns expressions into values.
type walker struct {
	lines []int // offset at which each line begins: files may list very many domains
}

func lineStarts(data []byte) []int {
	lines := []int{0}
	for i, c := range data {
		if c == '\n' {
			lines = append(lines, i+1)
		}
	}
	return lines
}

func (w walker) position(n *unstable.Node) position {
	offset := int(n.Raw.Offset)
	line := sort.SearchInts(w.lines, offset+1) // the first line that begins behind offset
	return position{line, offset - w.lines[line-1] + 1}
}

// descend goes through all but the last part of a dotted key, making tables on the way, and returns the table and the last part.
func (w walker) descend(into *value, it unstable.Iterator) (*value, *unstable.Node) {
	it.Next()
	for !it.IsLast() {
		n := it.Node()
		e := into.entry(string(n.Data))
		if e == nil {
			at := w.position(n)
			e = &entry{string(n.Data), at, &value{kind: unstable.Table, at: at}}
			into.table = append(into.table, e)
		}
		into = e.value
		if into.kind == unstable.ArrayTable {
			into = into.items[len(into.items)-1]
		}
		it.Next()
	}
	return into, it.Node()
}

func (w walker) keyValue(into *value, n *unstable.Node) {
	into, key := w.descend(into, n.Key())
	at := w.position(key)
	into.table = append(into.table, &entry{string(key.Data), at, w.value(n.Value(), at)})
}

// header opens the table that [a.b] or [[a.b]] names and returns it.
func (w walker) header(root *value, n *unstable.Node) *value {
	into, key := w.descend(root, n.Key())
	at, name := w.position(key), string(key.Data)
	e := into.entry(name)
	if e == nil {
		e = &entry{name, at, &value{kind: n.Kind, at: at}}
		into.table = append(into.table, e)
	}
	if n.Kind == unstable.Table {
		return e.value
	}
	item := &value{kind: unstable.Table, at: at}
	e.items = append(e.items, item)
	return item
}

// value copies a node; at is the position of its key, for arrays, which do not carry one.
func (w walker) value(n *unstable.Node, at position) *value {
	v := &value{kind: n.Kind, at: at}
	if n.Raw.Length > 0 {
		v.at = w.position(n)
	}
	switch n.Kind {
	case unstable.Array:
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, w.value(it.Node(), at))
		}
	case unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			w.keyValue(v, it.Node())
		}
	default:
		v.text = string(n.Data)
	}
	return v
}
