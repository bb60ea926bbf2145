package dialog

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestSuite reads the dialogs that are built in. Each row of the catalogue of hostile input that a server can be asked about from outside has one.
func TestSuite(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, d := range all {
		if seen[d.Name] {
			t.Errorf("%s stands twice", d.Name)
		}
		seen[d.Name] = true
	}
	rows := []string{"I1", "I3", "I4", "I5", "I6", "I10", "I11", "I14", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12", "B13",
		"B14", "B15", "B16", "B17", "T1", "T4", "T5", "T6", "T9", "A2", "A4", "A5", "A6", "A8", "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "S11", "S12",
		"S13", "S14"}
	for _, row := range rows {
		if !slices.ContainsFunc(all, func(d Dialog) bool {
			return slices.ContainsFunc(strings.Split(d.Name, "/"), func(part string) bool { return part == row || strings.HasPrefix(part, row+"-") })
		}) {
			t.Errorf("no dialog for %s", row)
		}
	}
}

// TestChunkSizes holds chunks whose octets stand in the same step to their announced size. Rows about bad sizes, chunks cut off and chunks that
// are refused unread are no such steps.
func TestChunkSizes(t *testing.T) {
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, d := range all {
		if strings.Contains(d.Name, "B6-") || strings.Contains(d.Name, "B15-") || strings.Contains(d.Name, "B1-unknown") {
			continue
		}
		for _, s := range d.steps {
			sent, err := s.text.expand(nil, map[string]string{"from": "a@b", "to": "c@d"})
			rest, isChunk := strings.CutPrefix(string(sent), "BDAT ")
			if err != nil || !isChunk || s.action != actionSend {
				continue
			}
			for isChunk {
				line, octets, found := strings.Cut(rest, "\r\n")
				size := 0
				for _, c := range strings.Fields(line)[0] {
					size = size*10 + int(c-'0')
				}
				if !found || len(octets) < size {
					t.Fatalf("%s: BDAT %s has %d octets behind it", d.Name, line, len(octets))
				}
				checked++
				if rest, isChunk = strings.CutPrefix(octets[size:], "BDAT "); !isChunk && octets[size:] != "" && octets[size:] != "QUIT\r\n" {
					t.Errorf("%s: %q behind BDAT %s", d.Name, octets[size:], line)
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d chunks", checked)
	}
}

func TestParse(t *testing.T) {
	all, err := Parse("topic/file", `# comment
== one
needs: chunking, AUTH PLAIN
lacks: X
start: rcpt
note: why
each a: \r\n
each b: {from}
C: x{case}y
S: 250 5xx close /^a|b/
S?: 421
S*: 4xx
S: nothing
X: half
== two
C:
R: {3*ab{2*c}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	if got := strings.Join(names, " "); got != "topic/file/one/a topic/file/one/b topic/file/two" {
		t.Fatal(got)
	}
	values := map[string]string{"from": "f"}
	for i, want := range map[int]string{0: "x\r\ny\r\n", 1: "xfy\r\n", 2: "\r\n"} {
		if got, err := all[i].steps[0].text.expand(nil, values); err != nil || string(got) != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	if got, err := all[2].steps[1].text.expand(nil, nil); err != nil || string(got) != "abccabccabcc" {
		t.Errorf("%q, %v", got, err)
	}
	d := all[0]
	if d.start != stageRcpt || !slices.Equal(d.needs, []string{"CHUNKING", "AUTH PLAIN"}) || !slices.Equal(d.lacks, []string{"X"}) || d.Notes[0] != "why" {
		t.Errorf("%+v", d)
	}
	e := d.steps[1].expect
	for code, want := range map[string]bool{"250": true, "251": false, "599": true, "450": false} {
		if got := e.matches(reply{code: code, lines: []string{"a"}}); got != want {
			t.Errorf("%s: %v", code, got)
		}
	}
	if e.matches(reply{code: "250", lines: []string{"c"}}) || !e.close {
		t.Error("the regular expression or the close is not heeded")
	}
}

func TestParseFaults(t *testing.T) {
	for text, want := range map[string]string{
		"C: x":                        "1: no dialog",
		"== a":                        "1: the dialog has no steps",
		"== a b\nC: x":                "1: \"a b\" is no name",
		"== a\nC: x\n== a\nC: x":      "3: \"a\" is no name, or stands twice",
		"== a\nC: x \n":               "2: space at",
		"== a\nC: x\nneeds: X":        "3: \"needs\" is no step",
		"== a\nneed: X\nC: x":         "2: unknown header",
		"== a\nstart: now\nC: x":      "2: start: one of",
		"== a\neach x: y\neach x: z":  "3: \"x\" is no name",
		"== a\nhello\n":               "2: neither header nor step",
		"== a\nC: \\q":                "2: unknown escape",
		"== a\nC: \\x0":               "2: unknown escape",
		"== a\nC: x\\":                "2: \\ at the end",
		"== a\nC: {nobody}":           "2: {nobody: no such",
		"== a\nC: {case}":             "2: {case: no such",
		"== a\nC: {-1*x}":             "2: {-1: no such",
		"== a\nC: {2*x":               "2: { without }",
		"== a\nC: x}":                 "2: } without {",
		"== a\nC: {2*{2*{2*{2*{2*x}}": "2: nested too deep",
		"== a\nS: 25":                 "2: \"25\" is no code",
		"== a\nS:":                    "2: nothing is expected",
		"== a\nS: nothing close":      "2: nothing stands alone",
		"== a\nS: close /x/":          "2: a regular expression needs",
		"== a\nS: 250 /x":             "2: regular expression without",
		"== a\nS: 250 /(/":            "2: error parsing regexp",
		"== a\nS*: close":             "2: want S: close",
		"== a\nS?: nothing":           "2: want S: close",
		"== a\nX: all":                "2: want X: half",
	} {
		if _, err := Parse("f", text); err == nil || !strings.HasPrefix(err.Error(), "f.txt:"+want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestExpandFaults(t *testing.T) {
	for source, want := range map[string]error{"{80000000*xx}": errTooLong, "{9999*{9999*x}}": errTooLong, "{oversize}": missing("oversize"), "{overlines*x}": missing("overlines")} {
		text, err := parseText(source, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := text.expand(nil, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v", source, err)
		}
	}
}

func TestCutReply(t *testing.T) {
	for in, want := range map[string]struct {
		n    int
		code string
		bad  bool
	}{
		"":                          {},
		"250 Ok\r":                  {},
		"250 Ok\r\n":                {8, "250", false},
		"250\r\nx":                  {5, "250", false},
		"250-a\r\n250 b\r\n220 c":   {14, "250", false},
		"250-a\r\n":                 {},
		"250-a\r\n251 b\r\n":        {14, "", true},
		"250 Ok\n":                  {7, "", true},
		"Ok\r\n":                    {4, "", true},
		"250_Ok\r\n":                {8, "", true},
		"150 Ok\r\n":                {8, "", true},
		"2x0 Ok\r\n":                {8, "", true},
		"250 a\r\nand what follows": {7, "250", false},
	} {
		r, n, err := cutReply([]byte(in))
		if n != want.n || r.code != want.code || (err != nil) != want.bad {
			t.Errorf("%q: %d, %q, %v", in, n, r.code, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	all, err := files.ReadDir("dialogs")
	if err != nil {
		f.Fatal(err)
	}
	for _, topic := range all {
		entries, err := files.ReadDir("dialogs/" + topic.Name())
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			src, err := files.ReadFile("dialogs/" + topic.Name() + "/" + e.Name())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(src))
		}
	}
	f.Add("== a\neach b: {9*{9*x}}\nC: {case}\\xff\nS?: 2xx close /a/\nX: half")
	f.Fuzz(func(t *testing.T, src string) {
		all, err := Parse("f", src)
		if err != nil {
			return
		}
		for _, d := range all {
			if len(d.steps) == 0 || !strings.HasPrefix(d.Name, "f/") {
				t.Fatalf("%+v", d)
			}
		}
	})
}

func FuzzCutReply(f *testing.F) {
	f.Add([]byte("250-a\r\n250 b\r\n"))
	f.Add([]byte("250\r\n"))
	f.Add([]byte("25\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := cutReply(b)
		if n > len(b) || err == nil && n > 0 && (len(r.code) != 3 || len(r.lines) == 0) {
			t.Fatalf("%d of %d, %+v", n, len(b), r)
		}
		if quote(b) == "" && len(b) > 0 || strings.ContainsAny(quote(b), "\r\n\x00\x1b") {
			t.Fatalf("%q", quote(b))
		}
	})
}
