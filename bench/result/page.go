package result

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"

	"mailrace/bench/chart"
)

// Page is a file of results, whole in itself: it fetches nothing, so that it can be mailed, kept and compared.
type Page struct {
	Title   string
	Command string // that left it
	Version string // of the program
	Results []Result
}

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"svg":   func(c chart.Chart) template.HTML { return template.HTML(c.SVG()) }, // SVG escapes its texts
	"notes": func(r Result) []string { return r.notes() },
}).Parse(pageText))

// WriteHTML writes the page.
func (p *Page) WriteHTML(w io.Writer) error {
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("page of results: %w", err)
	}
	return nil
}

// Save writes the page into a file, which is replaced at once when all of it is there.
func Save(path string, p Page) error {
	var b bytes.Buffer
	if err := p.WriteHTML(&b); err != nil {
		return err
	}
	if err := save(path, b.Bytes()); err != nil {
		return fmt.Errorf("page of results: %w", err)
	}
	return nil
}

func save(path string, page []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there any more when all went well
	defer f.Close()
	if _, err := f.Write(page); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
