package engine_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	module = "mailrace/"
	// fileLines is where a file has become two: a noun is missing.
	fileLines = 600
)

// folders are the top-level folders of the house. bin holds what make builds.
var folders = []string{"bench", "bin", "cmd", "engine", "proto", "router", "spool"}

// rooms says for each room which others it may import. A room is a folder with what is below it, up to the next room; it may always import
// itself. The arrows point down.
var rooms = map[string][]string{
	"cmd":               {"bench", "engine", "engine/acme", "engine/admin", "engine/auth", "engine/config", "engine/egress", "engine/event", "engine/explain", "engine/ingress", "engine/inject", "engine/loop", "proto", "router", "spool"},
	"bench":             {"engine/loop", "proto"},
	"engine":            {"engine/acme", "engine/admin", "engine/auth", "engine/config", "engine/egress", "engine/event", "engine/explain", "engine/ingress", "engine/inject", "engine/keep", "engine/loop", "engine/maildir", "engine/policy", "engine/recipients", "engine/tlsrpt", "proto", "router", "spool"},
	"engine/acme":       {},
	"engine/admin":      {"engine/auth", "engine/event", "engine/explain", "proto", "router", "spool"},
	"engine/auth":       {"proto"},
	"engine/config":     {"proto"},
	"engine/egress":     {"engine/auth", "engine/loop", "engine/maildir", "engine/tlsrpt", "proto", "router", "spool"},
	"engine/event":      {"proto"},
	"engine/explain":    {"engine/config", "proto", "router"},
	"engine/ingress":    {"engine/auth", "engine/loop", "proto", "spool"},
	"engine/inject":     {"proto"},
	"engine/keep":       {},
	"engine/loop":       {},
	"engine/maildir":    {"proto"},
	"engine/policy":     {"engine/keep", "engine/tlsrpt", "engine/web", "proto", "router"},
	"engine/recipients": {"engine/loop", "proto", "router"},
	"engine/tlsrpt":     {"engine/keep", "engine/web", "proto", "router"},
	"engine/web":        {"router"},
	"router":            {"proto"},
	"spool":             {"proto"},
	"proto":             {},
}

// doors are the modules that only one room may know, or the rooms that are named, each for files of its own.
var doors = map[string]string{
	"github.com/panjf2000/gnet":        "engine/loop",
	"github.com/caddyserver/certmagic": "engine/acme",
	"github.com/mholt/acmez":           "engine/acme",
	"go.uber.org/zap":                  "engine/acme",
	"github.com/letsencrypt/pebble":    "engine",
	"github.com/cockroachdb/pebble":    "spool",
	"github.com/miekg/dns":             "router/mx",
	"github.com/pelletier/go-toml":     "engine/config bench/sink",
	"github.com/spf13/cobra":           "cmd",
	"github.com/xdg-go/scram":          "engine/auth",
	"github.com/golang-jwt/jwt":        "engine/auth",
	"github.com/MicahParks/keyfunc":    "engine/auth",
	"golang.org/x/crypto/argon2":       "engine/auth",
	"golang.org/x/crypto/bcrypt":       "engine/auth",
	"github.com/emersion/go-smtp":      "cmd",
	"github.com/emersion/go-sasl":      "engine/auth",
	"github.com/emersion/go-message":   "engine/inject",
	"github.com/pires/go-proxyproto":   "engine",
	"golang.org/x/net/proxy":           "engine/egress",
}

// open are the doors that stand open to tests: their name servers and the files that they read.
var open = []string{"github.com/miekg/dns", "github.com/pelletier/go-toml", "github.com/xdg-go/scram", "github.com/emersion/go-sasl"}

// pure are the rooms without sockets, storage or a clock of their own, and the standard packages that would give them one.
var pure = map[string][]string{
	"proto":           {"net", "net/http", "os", "os/exec", "syscall"},
	"router":          {"net/http", "os", "os/exec", "syscall"},
	"router/schedule": {"net"},
	"router/pool":     {"net"},
}

// clockless are the folders that take their time from the caller, as all of proto does. Within router, mx asks real name servers and measures them.
var clockless = []string{"router", "router/pool", "router/schedule"}

// source is one Go file.
type source struct {
	file string // path below the module's root
	dir  string
	test bool
	ast  *ast.File
	fset *token.FileSet
}

// TestArchitecture checks the rules that keep the house livable.
func TestArchitecture(t *testing.T) {
	root := moduleRoot(t)
	checkFolders(t, root)
	files := sources(t, root)
	if len(files) < 20 {
		t.Fatalf("found only %d Go files below %s", len(files), root)
	}
	for _, s := range files {
		checkPlace(t, s)
		for _, spec := range s.ast.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if fault := importFault(s, imported); fault != "" {
				t.Errorf("%s: %s", s.fset.Position(spec.Pos()), fault)
			}
		}
		if !s.test && (within(s.dir, "proto") || slices.Contains(clockless, s.dir)) {
			checkClock(t, s)
		}
	}
}

// TestImportRules shows that the rules can be broken.
func TestImportRules(t *testing.T) {
	for _, c := range []struct {
		dir, imported string
		test, ok      bool
	}{
		{"proto/smtp", "mailrace/proto/message", false, true},
		{"proto/smtp", "mailrace/spool", false, false},
		{"proto/smtp", "net", false, false},
		{"proto/smtp", "net/netip", false, true},
		{"spool", "mailrace/router", false, false},
		{"spool", "mailrace/proto/message", false, true},
		{"spool", "mailrace/proto/smtp", false, false},
		{"router/mx", "mailrace/spool", false, false},
		{"router", "mailrace/router/mx", false, true},
		{"router", "mailrace/engine/loop", false, false},
		{"router/mx", "github.com/miekg/dns", false, true},
		{"router", "github.com/miekg/dns", false, false},
		{"router", "github.com/miekg/dns", true, true},
		{"engine/ingress", "mailrace/router", false, false},
		{"engine/ingress", "mailrace/engine", false, false},
		{"engine/ingress", "mailrace/engine", true, true},
		{"engine", "mailrace/engine/ingress", false, true},
		{"engine", "github.com/cockroachdb/pebble/v2", false, false},
		{"engine/loop", "github.com/panjf2000/gnet/v2/pkg/errors", false, true},
		{"bench/load", "github.com/panjf2000/gnet/v2", false, false},
		{"bench/load", "mailrace/engine/loop", false, true},
		{"bench/load", "mailrace/engine", false, false},
		{"bench/scenario", "github.com/pelletier/go-toml/v2", true, true},
		{"bench/scenario", "github.com/pelletier/go-toml/v2", false, false},
		{"bench/scenario", "github.com/panjf2000/gnet/v2", true, false},
		{"cmd/mailrace", "mailrace/engine", false, true},
		{"cmd/mailrace", "mailrace/bench/load", false, true},
		{"engine", "mailrace/bench/load", false, false},
		{"engine", "mailrace/proto/util", false, false},
	} {
		s := &source{dir: c.dir, test: c.test}
		if fault := importFault(s, c.imported); (fault == "") != c.ok {
			t.Errorf("%s imports %s, test %v: %q", c.dir, c.imported, c.test, fault)
		}
	}
}

// importFault says why a file may not import a package, or "".
func importFault(s *source, imported string) string {
	if ours, ok := strings.CutPrefix(imported, module); ok {
		return roomFault(s, ours)
	}
	for prefix, room := range doors {
		if strings.HasPrefix(imported, prefix) && !slices.ContainsFunc(strings.Fields(room), func(room string) bool { return within(s.dir, room) }) && !(s.test && slices.Contains(open, prefix)) {
			return fmt.Sprintf("%s has one door: %s", imported, room)
		}
	}
	for room, banned := range pure {
		if within(s.dir, room) && !s.test && slices.Contains(banned, imported) {
			return fmt.Sprintf("%s does no I/O: it may not import %s", room, imported)
		}
	}
	if within(s.dir, "proto") && !s.test && strings.Contains(imported, "VictoriaMetrics") {
		return "proto keeps no figures"
	}
	return ""
}

// roomFault judges an import of ours.
func roomFault(s *source, imported string) string {
	from, to := roomOf(s.dir), roomOf(imported)
	switch {
	case from == "" || to == "":
		return fmt.Sprintf("%s or %s is in no room", s.dir, imported)
	case slices.Contains([]string{"util", "utils", "common", "helper", "helpers"}, path.Base(imported)):
		return fmt.Sprintf("%s is a name for nothing", imported)
	case imported == "engine" && s.test:
		return "" // tests of the whole
	case imported == "engine" && from != "cmd" && s.dir != "engine":
		return "only cmd and tests import the engine's root"
	case from == "spool" && to == "proto" && imported != "proto/message":
		return "the spool knows types of proto only, no dialogue"
	case from != to && !slices.Contains(rooms[from], to):
		return fmt.Sprintf("%s may not import %s", from, to)
	}
	return ""
}

// roomOf is the innermost room that a folder is in, or "".
func roomOf(dir string) string {
	for ; dir != "."; dir = path.Dir(dir) {
		if _, ok := rooms[dir]; ok {
			return dir
		}
	}
	return ""
}

func within(dir, room string) bool { return dir == room || strings.HasPrefix(dir, room+"/") }

func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}

func checkFolders(t *testing.T, root string) {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		running := strings.HasPrefix(e.Name(), "mailrace-bench-") // the spool of a bench that somebody runs here
		if e.IsDir() && !running && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(folders, e.Name()) {
			t.Errorf("top-level folder %s: the folders are %v", e.Name(), folders)
		}
	}
}

func sources(t *testing.T, root string) (files []*source) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(p) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		s := &source{file: rel, dir: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), fset: token.NewFileSet()}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if s.ast, err = parser.ParseFile(s.fset, rel, text, parser.SkipObjectResolution); err != nil {
			return err
		}
		files = append(files, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func checkPlace(t *testing.T, s *source) {
	t.Helper()
	if roomOf(s.dir) == "" {
		t.Errorf("%s: in no room of the house", s.file)
	}
	if name := s.ast.Name.Name; slices.Contains([]string{"util", "utils", "common", "helper", "helpers"}, name) {
		t.Errorf("%s: package %s is a name for nothing", s.file, name)
	}
	if n := s.fset.File(s.ast.FileStart).LineCount(); n > fileLines {
		t.Errorf("%s: %d lines, want at most %d: a noun is missing", s.file, n, fileLines)
	}
}

// checkClock refuses calls that read or wait for the real time, and in proto goroutines.
func checkClock(t *testing.T, s *source) {
	t.Helper()
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if within(s.dir, "proto") {
				t.Errorf("%s: proto starts no goroutines", s.fset.Position(n.Pos()))
			}
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if ok && pkg.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, n.Sel.Name) {
				t.Errorf("%s: time.%s: here time comes from the caller", s.fset.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
}
