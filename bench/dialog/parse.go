package dialog

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed dialogs
var files embed.FS

// All returns the dialogs of the suite.
func All() ([]Dialog, error) { return ReadAll(files, "dialogs") }

// ReadAll returns the dialogs of all .txt files below dir.
func ReadAll(fsys fs.FS, dir string) (all []Dialog, err error) {
	err = fs.WalkDir(fsys, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".txt" {
			return err
		}
		src, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		dialogs, err := Parse(strings.TrimSuffix(strings.TrimPrefix(p, dir+"/"), ".txt"), string(src))
		all = append(all, dialogs...)
		return err
	})
	return all, err
}

// block is a dialog as written: its cases not yet told apart.
type block struct {
	Dialog
	line  int
	cases []example
	lines []sourceLine
}

// example is an each header.
type example struct {
	name string
	text text
}

type sourceLine struct {
	number int
	text   string
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Parse reads a file of dialogs; name is what their names begin with. Errors name the line.
func Parse(name, src string) (all []Dialog, err error) {
	var b *block
	seen := make(map[string]bool)
	finish := func() error {
		if b == nil {
			return nil
		}
		dialogs, err := b.expand()
		all = append(all, dialogs...)
		return err
	}
	number := 0
	for line := range strings.Lines(src) {
		number++
		line = strings.TrimSuffix(line, "\n")
		fault := func(err error) error { return fmt.Errorf("%s.txt:%d: %w", name, number, err) }
		title, isTitle := strings.CutPrefix(line, "== ")
		switch {
		case line == "" || line[0] == '#':
		case line != strings.TrimSpace(line):
			return nil, fault(errors.New(`space at the begin or the end: write \x20`))
		case isTitle:
			if err := finish(); err != nil {
				return nil, fmt.Errorf("%s.txt:%w", name, err)
			}
			if !namePattern.MatchString(title) || seen[title] {
				return nil, fault(fmt.Errorf("%q is no name, or stands twice", title))
			}
			seen[title] = true
			b = &block{Dialog: Dialog{Name: name + "/" + title, start: stageHello}, line: number}
		case b == nil:
			return nil, fault(errors.New("no dialog has begun: == name"))
		default:
			if err := b.take(number, line); err != nil {
				return nil, fault(err)
			}
		}
	}
	if err := finish(); err != nil {
		return nil, fmt.Errorf("%s.txt:%w", name, err)
	}
	return all, nil
}

// take reads a header or keeps a step.
func (b *block) take(number int, line string) error {
	key, value, found := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch {
	case !found:
		return errors.New("neither header nor step")
	case slices.Contains([]string{"C", "R", "S", "S?", "S*", "X"}, key):
		b.lines = append(b.lines, sourceLine{number, line})
		return nil
	case len(b.lines) > 0:
		return fmt.Errorf("%q is no step, and headers stand before the first", key)
	}
	label, isCase := strings.CutPrefix(key, "each ")
	switch {
	case key == "note":
		b.Notes = append(b.Notes, value)
	case key == "needs":
		b.needs = append(b.needs, list(value)...)
	case key == "lacks":
		b.lacks = append(b.lacks, list(value)...)
	case key == "start":
		i := slices.Index(stageNames, value)
		if i < 0 {
			return fmt.Errorf("start: one of %s", strings.Join(stageNames, ", "))
		}
		b.start = stage(i)
	case isCase:
		t, err := parseText(value, nil)
		if err != nil {
			return err
		}
		if !namePattern.MatchString(label) || slices.ContainsFunc(b.cases, func(e example) bool { return e.name == label }) {
			return fmt.Errorf("%q is no name, or stands twice", label)
		}
		b.cases = append(b.cases, example{label, t})
	default:
		return fmt.Errorf("unknown header %q", key)
	}
	return nil
}

// list parts the words of a header.
func list(value string) (items []string) {
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.ToUpper(strings.TrimSpace(item)); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// expand makes a dialog of each case.
func (b *block) expand() (all []Dialog, err error) {
	if len(b.lines) == 0 {
		return nil, fmt.Errorf("%d: the dialog has no steps", b.line)
	}
	cases := b.cases
	if len(cases) == 0 {
		cases = []example{{}}
	}
	for _, c := range cases {
		d := b.Dialog
		if c.name != "" {
			d.Name += "/" + c.name
		}
		for _, line := range b.lines {
			s, err := parseStep(line.text, c.text)
			if err != nil {
				return nil, fmt.Errorf("%d: %w", line.number, err)
			}
			s.line = line.number
			d.steps = append(d.steps, s)
		}
		all = append(all, d)
	}
	return all, nil
}

// parseStep reads a line that begins with one of C: R: S: S?: S*: X:.
func parseStep(line string, cases text) (s step, err error) {
	key, value, _ := strings.Cut(line, ":")
	value = strings.TrimPrefix(value, " ")
	switch key {
	case "C", "R":
		if s.text, err = parseText(value, cases); key == "C" {
			s.text = append(s.text, piece{literal: "\r\n"})
		}
	case "X":
		s.action = actionHalfClose
		if value != "half" {
			err = errors.New("want X: half")
		}
	default:
		s.action = actionExpect
		s.expect, err = parseExpect(value)
		s.expect.source = value
		switch key {
		case "S?":
			s.expect.count = optional
		case "S*":
			s.expect.count = many
		}
		if s.expect.nothing && key != "S" || s.expect.close && key == "S*" {
			err = errors.New("want S: close, S?: close or S: nothing")
		}
	}
	return s, err
}

var codePattern = regexp.MustCompile(`^[2-5x][0-9x][0-9x]$`)

func parseExpect(value string) (e expect, err error) {
	codes, pattern, found := strings.Cut(value, "/")
	if found {
		pattern, closed := strings.CutSuffix(pattern, "/")
		if !closed {
			return e, errors.New("regular expression without its second /")
		}
		if e.text, err = regexp.Compile(pattern); err != nil {
			return e, err
		}
	}
	for word := range strings.FieldsSeq(codes) {
		switch {
		case word == "close":
			e.close = true
		case word == "nothing":
			e.nothing = true
		case codePattern.MatchString(word):
			e.codes = append(e.codes, word)
		default:
			return e, fmt.Errorf("%q is no code such as 250 or 5xx, nor close, nor nothing", word)
		}
	}
	switch {
	case len(e.codes) == 0 && !e.close && !e.nothing:
		err = errors.New("nothing is expected")
	case e.nothing && (e.close || len(e.codes) > 0):
		err = errors.New("nothing stands alone")
	case e.text != nil && len(e.codes) == 0:
		err = errors.New("a regular expression needs a code")
	}
	return e, err
}
