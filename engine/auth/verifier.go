package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// scramName is the only hash function of SCRAM that is served. RFC 7677
const scramName = "SCRAM-SHA-256"

// Iterations of PBKDF2, whose time it takes is the client's: RFC 7677 §4 asks for 4096 at least.
const (
	scramIterations    = 100_000
	scramIterationsMin = 4096
	scramIterationsMax = 10_000_000
)

// verifier is what SCRAM needs to know of a password. RFC 5802 §3
type verifier struct {
	iterations                 int
	salt, storedKey, serverKey []byte
}

// NewVerifier makes the SCRAM verifier that is kept in a users file: RFC 5803 with the field names of RFC 7677.
func NewVerifier(password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt)
	v, err := deriveVerifier(password, salt, scramIterations)
	if err != nil {
		return "", err
	}
	return v.String(), nil
}

// deriveVerifier prepares the password with SASLprep, as clients do.
func deriveVerifier(password string, salt []byte, iterations int) (*verifier, error) {
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return nil, fmt.Errorf("the password has characters that SCRAM does not know: %w", err)
	}
	k, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return nil, fmt.Errorf("SCRAM: %w", err)
	}
	return &verifier{iterations, salt, k.StoredKey, k.ServerKey}, nil
}

// CheckVerifier says what is wrong with a verifier of a users file. Its errors do not repeat the verifier.
func CheckVerifier(text string) error {
	_, err := parseVerifier(text)
	return err
}

// parseVerifier reads "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey". RFC 5803 §2
func parseVerifier(text string) (*verifier, error) {
	rest, ok := strings.CutPrefix(text, scramName+"$")
	info, value, both := strings.Cut(rest, "$")
	count, salt, hasSalt := strings.Cut(info, ":")
	stored, server, hasKeys := strings.Cut(value, ":")
	if !ok || !both || !hasSalt || !hasKeys {
		return nil, errors.New(`not a verifier of SCRAM: want "SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey"`)
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < scramIterationsMin || n > scramIterationsMax {
		return nil, fmt.Errorf("the verifier has a bad count of iterations: want %d to %d", scramIterationsMin, scramIterationsMax)
	}
	v := &verifier{iterations: n}
	for _, part := range []struct {
		text      string
		to        *[]byte
		low, high int
		name      string
	}{{salt, &v.salt, 8, 64, "salt"}, {stored, &v.storedKey, sha256.Size, sha256.Size, "StoredKey"}, {server, &v.serverKey, sha256.Size, sha256.Size, "ServerKey"}} {
		if *part.to, err = base64.StdEncoding.Strict().DecodeString(part.text); err != nil || len(*part.to) < part.low || len(*part.to) > part.high {
			return nil, fmt.Errorf("the verifier has a bad %s: want %d to %d octets in base64", part.name, part.low, part.high)
		}
	}
	return v, nil
}

func (v *verifier) String() string {
	b := base64.StdEncoding
	return fmt.Sprintf("%s$%d:%s$%s:%s", scramName, v.iterations, b.EncodeToString(v.salt), b.EncodeToString(v.storedKey), b.EncodeToString(v.serverKey))
}

// credentials are the verifier as the library wants it.
func (v *verifier) credentials() scram.StoredCredentials {
	return scram.StoredCredentials{
		KeyFactors: scram.KeyFactors{Salt: string(v.salt), Iters: v.iterations}, StoredKey: v.storedKey, ServerKey: v.serverKey,
	}
}

// fits checks a password for a user who has no other hash.
func (v *verifier) fits(password string) bool {
	got, err := deriveVerifier(password, v.salt, v.iterations)
	if err != nil { // a password that nobody can have set takes as long
		_, _ = pbkdf2.Key(sha256.New, password, v.salt, v.iterations, sha256.Size)
		return false
	}
	return hmac.Equal(got.storedKey, v.storedKey)
}
