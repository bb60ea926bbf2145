package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Entry is a user as the users file has it.
type Entry struct {
	Name        string   // of AUTH; capitals make no difference
	Password    string   // hash of argon2id or bcrypt; may be empty if SCRAM is not
	SCRAM       string   // verifier of SCRAM-SHA-256, or ""
	Senders     []string // reverse-paths; see NewSenders. Empty = every one
	Tenant      string   // label of the user's messages, or ""
	Messages    int      // see Limits
	Recipients  int
	Connections int
}

// User is somebody who may send, as one version of the users file has it. It is immutable; what was spent of its limits is not part of it.
type User struct {
	Name    string
	Tenant  string
	Senders *Senders // nil = every one
	Limits

	entry   *entry // nil for users that a token names and the users file does not
	table   *table // the version in which the user was found
	account *account
}

// entry is a user of a table.
type entry struct {
	Entry
	user   *User
	hash   hash // of PLAIN and LOGIN
	scram  *verifier
	secret string // both, as written: another means that it was changed
}

// table is one version of the users file. It is immutable.
type table struct {
	users     map[string]*entry // by folded name
	list      []*entry
	verifiers []*entry          // that have a SCRAM verifier
	cacheKey  [sha256.Size]byte // of the passwords in the cache: random
	fakeKey   [sha256.Size]byte // of salts for users that there are not. It must outlive restarts, and be known to nobody
	dummy     hash              // for who is not there, if nobody is
}

// fold makes names that mean the same user equal.
func fold(name string) string { return strings.ToLower(name) }

// CheckName says what is wrong with the name of a user.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > nameMax:
		return fmt.Errorf("the name is longer than %d octets", nameMax)
	case !utf8.ValidString(name) || strings.IndexFunc(name, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) >= 0:
		return errors.New("the name has spaces, control characters or broken UTF-8")
	}
	return nil
}

// newTable makes a version of entries; account gives each user what it has spent so far.
func newTable(entries []Entry, account func(name string) *account) (*table, error) {
	t := &table{users: make(map[string]*entry, len(entries))}
	_, _ = rand.Read(t.cacheKey[:])
	t.fakeKey = t.cacheKey
	for _, given := range entries {
		e := &entry{Entry: given, secret: given.Password + "\x00" + given.SCRAM}
		if err := e.parse(); err != nil {
			return nil, fmt.Errorf("user %q: %w", shorten(given.Name), err)
		}
		senders, err := NewSenders(given.Senders)
		if err != nil {
			return nil, fmt.Errorf("user %q: %w", shorten(given.Name), err)
		}
		key := fold(given.Name)
		if t.users[key] != nil {
			return nil, fmt.Errorf("user %q is there twice", shorten(given.Name))
		}
		e.user = &User{
			Name: given.Name, Tenant: given.Tenant, Senders: senders, Limits: Limits{given.Messages, given.Recipients, given.Connections},
			entry: e, table: t, account: account(key),
		}
		t.users[key], t.list = e, append(t.list, e)
		if e.scram != nil {
			t.verifiers = append(t.verifiers, e)
		}
	}
	if len(t.list) > 0 {
		t.fakeKey = sha256.Sum256([]byte("mailrace fake salts\x00" + t.list[0].secret))
	}
	t.dummy = &argonHash{argonMemory, argonTime, argonThreads, make([]byte, argonSalt), make([]byte, argonKey)}
	return t, nil
}

// parse reads the secrets of an entry.
func (e *entry) parse() (err error) {
	if err = CheckName(e.Name); err != nil {
		return err
	}
	if e.Entry.SCRAM != "" {
		if e.scram, err = parseVerifier(e.Entry.SCRAM); err != nil {
			return err
		}
		e.hash = e.scram
	}
	if e.Entry.Password != "" {
		e.hash, err = parseHash(e.Entry.Password)
	} else if e.scram == nil {
		err = errors.New("there is neither a password nor a SCRAM verifier")
	}
	return err
}

// find returns a user, or nil.
func (t *table) find(name string) *entry {
	if len(name) > nameMax {
		return nil
	}
	return t.users[fold(name)]
}

// stranger is the hash that a password is checked against for a name that is not in the table: that of some user, always the same for a name,
// so that names that are there and names that are not take equally long.
func (t *table) stranger(name string) hash {
	if len(t.list) == 0 {
		return t.dummy
	}
	return pick(t, t.list, name).hash
}

// verifier is what SCRAM tells a client about a name: for one that has no verifier it makes one up, always the same, which no password fits.
func (t *table) verifier(name string) *verifier {
	if e := t.find(name); e != nil && e.scram != nil {
		return e.scram
	}
	v := &verifier{
		iterations: scramIterations, salt: t.mac("salt", name)[:argonSalt], storedKey: t.mac("stored", name), serverKey: t.mac("server", name),
	}
	if len(t.verifiers) > 0 {
		like := pick(t, t.verifiers, name).scram
		v.iterations, v.salt = like.iterations, t.mac("salt", name)[:min(len(like.salt), sha256.Size)]
	}
	return v
}

// pick finds the entry that a name is treated like.
func pick(t *table, list []*entry, name string) *entry {
	return list[binary.BigEndian.Uint64(t.mac("like", name))%uint64(len(list))]
}

func (t *table) mac(purpose, name string) []byte {
	m := hmac.New(sha256.New, t.fakeKey[:])
	m.Write([]byte(purpose + "\x00" + fold(name)))
	return m.Sum(nil)
}

// proof identifies a password of a user, in this version only.
func (t *table) proof(name, password string) (p [sha256.Size]byte) {
	m := hmac.New(sha256.New, t.cacheKey[:])
	m.Write([]byte(fold(name) + "\x00" + password)) // no name has a NUL
	m.Sum(p[:0])
	return p
}
