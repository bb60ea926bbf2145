package result

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailrace/bench/chart"
	"mailrace/bench/console"
	"mailrace/bench/machine"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, text, want)
	}
}

// measured is a report of two tables, a text, a chart, and strange names.
type measured struct{ Rate int }

func (measured) Result() Result {
	return Result{Name: "relay", Lead: "5 rounds of <10KiB>", Facts: []string{"ratio: 0.5"}, Notes: []string{"3 lost & found"},
		Parts: []Part{
			{Header: []string{"", "messages/s"}, Rows: [][]string{{"ceiling", "20000"}, {"</td><script>", "10000"}}},
			{Text: "shards = 2\nloops = 1"},
		},
		Machine: &machine.Report{CPU: "a CPU", Cores: 2, Memory: 24 << 30, Kernel: "6.1", Go: "go1.26", Steal: 0.1,
			Began: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Load: [2]float64{0.5, 2}},
		Charts: []chart.Chart{{Title: "Accepted", X: chart.Axis{Label: "s"}, Lines: []chart.Line{{Name: "<mta>", Points: []chart.Point{{X: 0, Y: 1}, {X: 1, Y: 2}}}}}}}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	if err := Print(console.Output{Stdout: &out}, measured{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "result.txt", out.String())
}

// TestPage: the page has all that the text has, and fetches nothing.
func TestPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.html")
	var out bytes.Buffer
	err := Print(console.Output{JSON: true, HTML: path, Command: "mailrace bench relay --rounds=5", Version: "v1", Stdout: &out}, measured{7})
	if err != nil {
		t.Fatal(err)
	}
	var r measured
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Rate != 7 {
		t.Errorf("JSON: %s, %v", out.Bytes(), err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "page.html", string(page))
	for _, want := range []string{"5 rounds of &lt;10KiB&gt;", "&lt;/td&gt;&lt;script&gt;", "<svg ", "&lt;mta&gt;", "ratio: 0.5", "3 lost &amp; found", "10.0% of the CPU time"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("%q is not in the page", want)
		}
	}
	if found := regexp.MustCompile(`(?i)(src=|url\(|@import|https?:|<script|<link)`).Find(page); found != nil {
		t.Errorf("%q in a page that must fetch nothing", found)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := Save(filepath.Join(path, "missing", "page.html"), Page{}); err == nil {
		t.Error("a page was saved where there is no directory")
	}
}
