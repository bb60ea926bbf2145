package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
)

// forms are rules of a test: nothing may be "bad".
var forms = func() UserForms {
	judge := func(s string) error {
		if s == "bad" {
			return errors.New("of no known form")
		}
		return nil
	}
	return UserForms{judge, judge, judge, judge}
}()

func usersFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "users.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// userFaults: what stands in the file, and every word of the answer but the folder. No secret is repeated.
var userFaults = []struct{ toml, want string }{
	{"[[user]]\n", "users.toml:1:3: user.name: missing: want the name that the user logs in with\nusers.toml:1:3: user.password: missing: want a hash, as \"mailrace user passwd\" makes it"},
	{"[[user]]\nname = 'bad'\npassword = 'bad'\nscram = 'bad'\nsenders = ['x', 'bad']\n", "" +
		"users.toml:2:8: user.name: of no known form\n" +
		"users.toml:3:12: user.password: of no known form\n" +
		"users.toml:4:9: user.scram: of no known form\n" +
		"users.toml:5:17: user.senders: of no known form"},
	{"[[user]]\nname = 'a'\npassword = 12345\n", "users.toml:3:12: user.password: not a string: want it in quotes"},
	{"[[user]]\nname = 'a'\npassword = 'x'\n[[user]]\nname = 'A'\nscram = 'x'\n", `users.toml:5:8: user.name: "A" is there above already: want it once`},
	{"[[user]]\nname = 'a'\npasword = 'x'\n", "" +
		"users.toml:1:3: user.password: missing: want a hash, as \"mailrace user passwd\" makes it\n" +
		"users.toml:3:1: user.pasword: unknown key: did you mean \"password\"?"},
	{"[[user]]\nname = 'a'\npassword = 'x'\ntenant = \"a\\nb\"\nmessages = -1\n", "" +
		"users.toml:4:10: user.tenant: not a label: want at most 255 octets without control characters\n" +
		"users.toml:5:12: user.messages: -1 is out of range: want 0 to 1000000000"},
	{"users = []\n", `users.toml:1:1: users: unknown key: did you mean "user"?`},
	{"[user]\nname = 'a'\n", "users.toml:1:2: user: a table where tables belong: want [[user]]"},
	{"[[user]]\nname = 'a\n", "users.toml:2:10: literal strings cannot have new lines"},
}

func TestUserFaults(t *testing.T) {
	for _, test := range userFaults {
		path := usersFile(t, test.toml)
		_, err := LoadUsers(path, forms)
		if err == nil {
			t.Errorf("%q: no error", test.toml)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""); got != test.want {
			t.Errorf("%q: got\n%s\nwant\n%s", test.toml, got, test.want)
		}
	}
	if users, err := LoadUsers(usersFile(t, ""), forms); err != nil || len(users) != 0 {
		t.Error("nobody is allowed", err)
	}
	if _, err := LoadUsers("/nowhere/users.toml", forms); err == nil {
		t.Error("no error")
	}
}

// TestChangeUsers: users are added, changed and taken out, and what else stands in the file stays.
func TestChangeUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.toml")
	change := func(fn func(f *UsersFile) error) {
		t.Helper()
		if err := ChangeUsers(path, forms, true, fn); err != nil {
			t.Fatal(err)
		}
	}
	set := func(u User) func(f *UsersFile) error { return func(f *UsersFile) error { return f.Set(u) } }
	full := User{"a@x.example", `p"w\`, "s", []string{"*@x.example", "<>"}, "acme \u00e4", 1, 2, 3}
	change(set(full))
	change(set(User{Name: "b", Password: "x"}))
	const start = "[[user]]\nname = \"a@x.example\"\npassword = \"p\\\"w\\\\\"\nscram = \"s\"\ntenant = \"acme \u00e4\"\nsenders = [\"*@x.example\", \"<>\"]\n" +
		"messages = 1\nrecipients = 2\nconnections = 3\n\n[[user]]\nname = \"b\"\npassword = \"x\"\n"
	if got, _ := os.ReadFile(path); string(got) != start {
		t.Fatalf("%s", got)
	}
	if users, err := LoadUsers(path, forms); err != nil || !reflect.DeepEqual(users[0], full) {
		t.Errorf("%+v, %v", users, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Error(info.Mode(), err)
	}
	commented := "# ours\n\n" + strings.Replace(start, "\n\n[[user]]", "\n\n# the other one\n[[user]]", 1) + "# the end"
	if err := os.WriteFile(path, []byte(commented), 0o600); err != nil {
		t.Fatal(err)
	}
	change(set(User{Name: "A@X.example", Password: "y"}))
	want := "# ours\n\n[[user]]\nname = \"A@X.example\"\npassword = \"y\"\n\n# the other one\n[[user]]\nname = \"b\"\npassword = \"x\"\n# the end"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	change(func(f *UsersFile) error {
		if ok, err := f.Remove("a@x.example"); !ok || err != nil {
			t.Error(ok, err)
		}
		if ok, err := f.Remove("nobody"); ok || err != nil {
			t.Error(ok, err)
		}
		if f.Find("B") != 0 {
			t.Error("b is not there")
		}
		return f.Set(User{Name: "c", Password: "z"})
	})
	want = "# ours\n\n# the other one\n[[user]]\nname = \"b\"\npassword = \"x\"\n# the end\n\n[[user]]\nname = \"c\"\npassword = \"z\"\n"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	broken := errors.New("broken off")
	if err := ChangeUsers(path, forms, false, func(f *UsersFile) error { _, _ = f.Remove("b"); return broken }); err != broken {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("%s", got)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := ChangeUsers(path+"x", forms, false, func(*UsersFile) error { return nil }); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	inline := usersFile(t, "user = [{ name = 'a', password = 'x' }]\n")
	if err := ChangeUsers(inline, forms, false, set(User{Name: "b", Password: "x"})); !errors.Is(err, errInline) {
		t.Error(err)
	}
	if err := ChangeUsers(inline, forms, false, func(f *UsersFile) error { _, err := f.Remove("a"); return err }); !errors.Is(err, errInline) {
		t.Error(err)
	}
}

// TestChangeUsersTogether: nobody's change is lost.
func TestChangeUsersTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.toml")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := ChangeUsers(path, forms, true, func(f *UsersFile) error { return f.Set(User{Name: string(rune('a' + i)), Password: "x"}) }); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if users, err := LoadUsers(path, forms); err != nil || len(users) != 20 {
		t.Errorf("%d users, %v", len(users), err)
	}
}

// FuzzUsers: no file of users breaks anything, and what is accepted can be changed and read again.
func FuzzUsers(f *testing.F) {
	f.Add("[[user]]\nname = 'a'\npassword = 'x'\n# c\n\n[[user]]\nname = 'b'\nscram = 'x'")
	f.Add("# none")
	f.Fuzz(func(t *testing.T, text string) {
		path := usersFile(t, text)
		before, err := LoadUsers(path, forms)
		if err != nil {
			return
		}
		err = ChangeUsers(path, forms, false, func(f *UsersFile) error {
			if err := f.Set(User{Name: "fuzz", Password: "x"}); err != nil {
				return err
			}
			return nil
		})
		if errors.Is(err, errInline) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := LoadUsers(path, forms)
		if err != nil {
			t.Fatalf("%v of\n%s", err, text)
		}
		for _, u := range before {
			if strings.EqualFold(u.Name, "fuzz") {
				return
			}
		}
		if len(after) != len(before)+1 || !reflect.DeepEqual(after[:len(before)], before) && len(before) > 0 {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}
