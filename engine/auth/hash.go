package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Cost of the hashes that HashPassword makes: the second choice of OWASP for argon2id. It is some 25 ms of one core, and 19 MiB for each
// worker while it lasts.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16 // octets
	argonKey     = 32 // octets
)

// Bounds of what a users file may ask for, so that a bad line cannot take the node's memory, or all of its time.
const (
	argonMemoryMax = 1 << 20 // KiB
	argonTimeMax   = 64
	bcryptCostMax  = 18
	passwordMax    = 1024 // octets of a password that is looked at
	nameMax        = 255  // octets of a user's name
)

// hash is a password in the form in which it is kept.
type hash interface {
	// fits says whether the password is the one. It takes the processor for long: it is for workers.
	fits(password string) bool
}

// HashPassword makes the hash that is kept in a users file, in PHC form.
func HashPassword(password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	h := argonHash{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, argonSalt)}
	_, _ = rand.Read(h.salt) // does not fail: it would end the process
	h.key = h.derive(password, argonKey)
	return h.String(), nil
}

// CheckPassword says why a password will not do for a new user.
func CheckPassword(password string) error {
	switch {
	case password == "":
		return errors.New("the password is empty")
	case len(password) > passwordMax:
		return fmt.Errorf("the password is longer than %d octets", passwordMax)
	case strings.ContainsRune(password, 0):
		return errors.New("the password contains a NUL")
	}
	return nil
}

// CheckHash says what is wrong with a hash of a users file. Its errors do not repeat the hash.
func CheckHash(text string) error {
	_, err := parseHash(text)
	return err
}

var errHashForm = errors.New(`not a hash of a known form: want "$argon2id$…" or "$2y$…", as mailrace user makes them`)

// parseHash reads a hash of argon2id in PHC form, or of bcrypt.
func parseHash(text string) (hash, error) {
	switch {
	case strings.HasPrefix(text, "$argon2id$"):
		return parseArgon(text)
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		cost, err := bcrypt.Cost([]byte(text))
		switch {
		case err != nil || len(text) != 60:
			return nil, errors.New("not a whole hash of bcrypt: want 60 characters")
		case cost > bcryptCostMax:
			return nil, fmt.Errorf("the cost of the bcrypt hash is %d: want %d or less", cost, bcryptCostMax)
		}
		return bcryptHash(text), nil
	}
	return nil, errHashForm
}

// argonHash is argon2id. RFC 9106
type argonHash struct {
	memory, time uint32 // memory in KiB
	threads      uint8
	salt, key    []byte
}

var phc64 = base64.RawStdEncoding.Strict()

// parseArgon reads "$argon2id$v=19$m=19456,t=2,p=1$salt$hash".
func parseArgon(text string) (*argonHash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, errors.New(`not a whole hash of argon2id: want "$argon2id$v=19$m=…,t=…,p=…$salt$hash"`)
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return nil, errors.New(`the hash of argon2id has no "m=…,t=…,p=…"`)
	}
	var numbers [3]uint64
	for i, limit := range []struct {
		name      string
		low, high uint64
	}{{"m=", 8, argonMemoryMax}, {"t=", 1, argonTimeMax}, {"p=", 1, 255}} {
		digits, ok := strings.CutPrefix(costs[i], limit.name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || n < limit.low || n > limit.high {
			return nil, fmt.Errorf("the hash of argon2id has a bad cost %s: want %d to %d", limit.name, limit.low, limit.high)
		}
		numbers[i] = n
	}
	h := &argonHash{memory: uint32(numbers[0]), time: uint32(numbers[1]), threads: uint8(numbers[2])}
	var err error
	if h.salt, err = phc64.DecodeString(parts[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return nil, errors.New("the hash of argon2id has a bad salt: want 8 to 64 octets in base64 without =")
	}
	if h.key, err = phc64.DecodeString(parts[5]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return nil, errors.New("the hash of argon2id has a bad key: want 16 to 128 octets in base64 without =")
	}
	return h, nil
}

func (h *argonHash) derive(password string, octets int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.time, h.memory, h.threads, uint32(octets))
}

func (h *argonHash) fits(password string) bool {
	return subtle.ConstantTimeCompare(h.derive(password, len(h.key)), h.key) == 1
}

func (h *argonHash) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		phc64.EncodeToString(h.salt), phc64.EncodeToString(h.key))
}

// bcryptHash is bcrypt, which looks at the first 72 octets of a password.
type bcryptHash string

func (h bcryptHash) fits(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), []byte(password)) == nil
}
