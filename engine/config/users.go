package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2/unstable"
)

// User is an entry of the file of users: a table [[user]].
type User struct {
	Name        string   // key name: required, and there once; capitals make no difference
	Password    string   // key password: hash of argon2id or bcrypt
	SCRAM       string   // key scram: verifier of RFC 5803
	Senders     []string // key senders: reverse-paths, "*@domain", "*@*.suffix", "<>"; empty = every one
	Tenant      string   // key tenant: label of the user's messages
	Messages    int      // key messages: in an hour; 0 = no limit
	Recipients  int      // key recipients: likewise
	Connections int      // key connections: open at once; 0 = no limit
}

// UserForms judge the parts of a User that this package knows nothing of. Their errors must not repeat a secret.
type UserForms struct{ Name, Password, SCRAM, Sender func(string) error }

// UsersFile is a file of users that can be changed: what stands in it beside the users changed stays as it is.
type UsersFile struct {
	Path  string
	Users []User // in the order of the file; not to be changed
	lines []string
	first []int // line on which each user begins, from 0
	plain bool  // the users are tables [[user]], or there are none
}

// LoadUsers reads a file of users, as strictly as the configuration: a file with any fault is refused with Errors.
func LoadUsers(path string, forms UserForms) ([]User, error) {
	f, err := OpenUsers(path, forms)
	if err != nil {
		return nil, err
	}
	return f.Users, nil
}

// OpenUsers reads a file of users to change it.
func OpenUsers(path string, forms UserForms) (*UsersFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	root, err := parseTree(path, data)
	if err != nil {
		return nil, err
	}
	f := &UsersFile{Path: path, plain: true}
	r := reader{file: path, where: map[string]position{"": {1, 1}}, failed: map[string]bool{}}
	r.fields(root, "", []field{{"user", tables(func() []field {
		f.Users = append(f.Users, User{})
		return userFields(&f.Users[len(f.Users)-1])
	})}})
	r.users(f.Users, forms)
	if len(r.problems) > 0 {
		r.problems.sort()
		return nil, r.problems
	}
	if e := root.entry("user"); e != nil {
		f.plain = e.kind == unstable.ArrayTable
	}
	for i := range f.Users {
		f.first = append(f.first, r.where[fmt.Sprintf("user[%d]", i)].line-1)
	}
	f.lines = slices.Collect(strings.Lines(string(data)))
	return f, nil
}

func userFields(u *User) []field {
	return []field{
		{"name", text(&u.Name)},
		{"password", secret(&u.Password)},
		{"scram", secret(&u.SCRAM)},
		{"senders", list(&u.Senders, func(s string) (string, error) { return s, nil })},
		{"tenant", text(&u.Tenant)},
		{"messages", integer(&u.Messages)},
		{"recipients", integer(&u.Recipients)},
		{"connections", integer(&u.Connections)},
	}
}

// secret is text that no complaint repeats.
func secret(to *string) setter {
	return func(r *reader, key string, v *value) {
		if v.kind != unstable.String {
			r.complain(key, v.at, "not a string: want it in quotes")
			return
		}
		*to = v.text
	}
}

// users judges what was read.
func (r *reader) users(users []User, forms UserForms) {
	seen := map[string]bool{}
	judge := func(key string, form func(string) error, is string) {
		if form == nil || r.failed[key] {
			return
		}
		if err := form(is); err != nil {
			r.complain(key, r.nearest(key), "%v", err)
		}
	}
	for i, u := range users {
		key := fmt.Sprintf("user[%d]", i)
		switch folded := strings.ToLower(u.Name); {
		case u.Name == "":
			r.complain(key+".name", r.nearest(key+".name"), "missing: want the name that the user logs in with")
		case seen[folded]:
			r.complain(key+".name", r.nearest(key+".name"), "%s is there above already: want it once", quote(u.Name))
		default:
			seen[folded] = true
			judge(key+".name", forms.Name, u.Name)
		}
		if u.Password == "" && u.SCRAM == "" && !r.failed[key+".password"] && !r.failed[key+".scram"] {
			r.complain(key+".password", r.nearest(key), `missing: want a hash, as "mailrace user passwd" makes it`)
		}
		if u.Password != "" {
			judge(key+".password", forms.Password, u.Password)
		}
		if u.SCRAM != "" {
			judge(key+".scram", forms.SCRAM, u.SCRAM)
		}
		for j, s := range u.Senders {
			judge(fmt.Sprintf("%s.senders[%d]", key, j), forms.Sender, s)
		}
		if !validLabel(u.Tenant) {
			r.complain(key+".tenant", r.nearest(key+".tenant"), "not a label: want at most 255 octets without control characters")
		}
		for name, n := range map[string]int{"messages": u.Messages, "recipients": u.Recipients, "connections": u.Connections} {
			if n < 0 || n > 1_000_000_000 {
				r.complain(key+"."+name, r.nearest(key+"."+name), "%d is out of range: want 0 to 1000000000", n)
			}
		}
	}
}

// Find returns the index of a user, or -1.
func (f *UsersFile) Find(name string) int {
	return slices.IndexFunc(f.Users, func(u User) bool { return strings.EqualFold(u.Name, name) })
}

var errInline = errors.New(`the users stand in an array in brackets: write them as tables [[user]] to have them changed`)

// Set adds a user, or puts it in the place of the one with its name.
func (f *UsersFile) Set(u User) error {
	if !f.plain {
		return errInline
	}
	i := f.Find(u.Name)
	if i >= 0 {
		from, to := f.block(i)
		f.replace(from, to, u.lines())
		f.Users[i] = u
		f.move(i+1, len(u.lines())-(to-from))
		return nil
	}
	block := u.lines()
	if n := len(f.lines); n > 0 {
		if !strings.HasSuffix(f.lines[n-1], "\n") {
			f.lines[n-1] += "\n"
		}
		f.lines = append(f.lines, "\n")
	}
	f.first = append(f.first, len(f.lines))
	f.lines = append(f.lines, block...)
	f.Users = append(f.Users, u)
	return nil
}

// Remove takes a user out, and says whether there was one.
func (f *UsersFile) Remove(name string) (bool, error) {
	i := f.Find(name)
	switch {
	case i < 0:
		return false, nil
	case !f.plain:
		return false, errInline
	}
	from, to := f.block(i)
	for to < len(f.lines) && strings.TrimSpace(f.lines[to]) == "" { // one distance is enough
		to++
	}
	f.replace(from, to, nil)
	f.Users, f.first = slices.Delete(f.Users, i, i+1), slices.Delete(f.first, i, i+1)
	f.move(i, from-to)
	return true, nil
}

// block is where a user stands: to the last key, without the comments in front of the next user.
func (f *UsersFile) block(i int) (from, to int) {
	from, to = f.first[i], len(f.lines)
	if i+1 < len(f.first) {
		to = f.first[i+1]
	}
	for to > from+1 {
		line := strings.TrimSpace(f.lines[to-1])
		if line != "" && line[0] != '#' {
			break
		}
		to--
	}
	return from, to
}

func (f *UsersFile) replace(from, to int, with []string) {
	f.lines = slices.Replace(f.lines, from, to, with...)
}

// move notes that users from i on stand elsewhere.
func (f *UsersFile) move(i, by int) {
	for ; i < len(f.first); i++ {
		f.first[i] += by
	}
}

// lines is the user as a table.
func (u *User) lines() []string {
	lines := []string{"[[user]]\n", "name = " + basicString(u.Name) + "\n"}
	for _, field := range []struct{ key, value string }{{"password", u.Password}, {"scram", u.SCRAM}, {"tenant", u.Tenant}} {
		if field.value != "" {
			lines = append(lines, field.key+" = "+basicString(field.value)+"\n")
		}
	}
	if len(u.Senders) > 0 {
		var senders []string
		for _, s := range u.Senders {
			senders = append(senders, basicString(s))
		}
		lines = append(lines, "senders = ["+strings.Join(senders, ", ")+"]\n")
	}
	for _, field := range []struct {
		key   string
		value int
	}{{"messages", u.Messages}, {"recipients", u.Recipients}, {"connections", u.Connections}} {
		if field.value != 0 {
			lines = append(lines, field.key+" = "+strconv.Itoa(field.value)+"\n")
		}
	}
	return lines
}

// basicString writes a string of TOML.
func basicString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// ChangeUsers reads a file of users, has it changed, and writes it: whole, on the disk, readable for its owner only, or not at all. A file that is
// missing is made if create says so. Others that change it wait meanwhile.
func ChangeUsers(path string, forms UserForms, create bool, change func(f *UsersFile) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("users: %w", err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("users: locking %s: %w", dir.Name(), err)
	}
	f, err := OpenUsers(path, forms)
	if errors.Is(err, fs.ErrNotExist) && create {
		f, err = &UsersFile{Path: path, plain: true}, nil
	}
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	if err := f.write(dir); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// write puts a new file in the place of the old one.
func (f *UsersFile) write(dir *os.File) (err error) {
	tmp, err := os.CreateTemp(dir.Name(), "."+filepath.Base(f.Path)+"-*") // of mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp.Name())
		}
	}()
	if info, statErr := os.Stat(f.Path); statErr == nil { // a file that the node reads must stay the node's
		if is, ok := info.Sys().(*syscall.Stat_t); ok && int(is.Uid) != os.Geteuid() {
			if err = tmp.Chown(int(is.Uid), int(is.Gid)); err != nil {
				tmp.Close()
				return err
			}
		}
	}
	var b bytes.Buffer
	for _, line := range f.lines {
		b.WriteString(line)
	}
	_, err = tmp.Write(b.Bytes())
	if err == nil {
		err = tmp.Sync()
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), f.Path)
	}
	if err == nil {
		err = dir.Sync()
	}
	return err
}

// UsersOf is the file of users that a configuration names, or "". The rest of the configuration may be wrong: the file may have to be made first.
func UsersOf(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	root, err := parseTree(path, data)
	if err != nil {
		return "", err
	}
	if e := root.entry("auth"); e != nil && e.table != nil {
		if u := e.entry("users"); u != nil && u.kind == unstable.String {
			return u.text, nil
		}
	}
	return "", nil
}

// validLabel says whether s can be a label: at most 255 octets without control characters.
func validLabel(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f })
}
