package client

import (
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// talk answers challenges in turn, and returns what was said.
func talk(t *testing.T, mechanism string, c Credentials, challenges ...string) (said []string, x *Exchange, err error) {
	t.Helper()
	x, initial, err := Begin(mechanism, c)
	if err != nil {
		t.Fatal(err)
	}
	if initial != nil {
		said = append(said, string(initial))
	}
	for _, challenge := range challenges {
		var response []byte
		if response, err = x.Next([]byte(challenge)); err != nil {
			return said, x, err
		}
		said = append(said, string(response))
	}
	return said, x, nil
}

func TestMechanisms(t *testing.T) {
	alice := Credentials{User: "alice", Secret: "s3cret", Host: "smart.example", Port: 587}
	for _, c := range []struct {
		mechanism  string
		challenges []string
		want       string // what is said, parted by spaces
		fault      string
	}{
		{Plain, nil, "\x00alice\x00s3cret", ""},
		{Plain, []string{""}, "\x00alice\x00s3cret", "unexpected"},
		{Login, []string{"Username:", "Password:"}, "alice s3cret", ""},
		{Login, []string{"", "who knows"}, "alice s3cret", ""},
		{Login, []string{"a", "b", "c"}, "alice s3cret", "more than the mechanism has to say"},
		{XOAuth2, nil, "user=alice\x01auth=Bearer s3cret\x01\x01", ""},
		{XOAuth2, []string{`{"status":"401"}`}, "user=alice\x01auth=Bearer s3cret\x01\x01", `refuses the token: "{\"status\":\"401\"}"`},
		{OAuthBearer, nil, "n,a=alice,\x01host=smart.example\x01port=587\x01auth=Bearer s3cret\x01\x01", ""},
		{OAuthBearer, []string{`{"status":"invalid_token"}`}, "n,a=alice,\x01host=smart.example\x01port=587\x01auth=Bearer s3cret\x01\x01", "invalid_token"},
	} {
		said, x, err := talk(t, c.mechanism, alice, c.challenges...)
		if got := strings.Join(said, " "); got != c.want || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) || !x.Proved() {
			t.Errorf("%s %q: %q, %v", c.mechanism, c.challenges, got, err)
		}
	}
	if _, _, err := Begin("CRAM-MD5", alice); err == nil {
		t.Error("CRAM-MD5 is served")
	}
}

// TestScram: against a server, and against those that are none.
func TestScram(t *testing.T) {
	for name, c := range map[string]struct {
		password string
		iters    int
		forge    func(second bool, message string) string
		fault    string
	}{
		"right":                {"right", 4096, nil, ""},
		"wrong":                {"wrong", 4096, nil, "server error"},
		"few iterations":       {"right", 1, nil, "too few iterations"},
		"many iterations":      {"right", 4096, func(second bool, m string) string { return strings.Replace(m, "i=4096", "i=99999999", 1) }, "99999999 iterations"},
		"overflowing":          {"right", 4096, func(second bool, m string) string { return strings.Replace(m, "i=4096", "i=99999999999999999999", 1) }, "iterations"},
		"another's nonce":      {"right", 4096, func(second bool, m string) string { return strings.Replace(m, "r=", "r=x", 1) }, "nonce"},
		"without the password": {"right", 4096, func(second bool, m string) string { return strings.Replace(m, "v=", "v=AAAA", 1) }, "validation failed"},
	} {
		client, err := scram.SHA256.NewClient("alice", "right", "")
		if err != nil {
			t.Fatal(err)
		}
		credentials, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: c.iters})
		if err != nil {
			t.Fatal(err)
		}
		server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return credentials, nil })
		if err != nil {
			t.Fatal(err)
		}
		x, message, err := Begin(Scram, Credentials{User: "alice", Secret: c.password})
		if err != nil {
			t.Fatal(err)
		}
		conversation := server.NewConversation()
		for second := range 2 {
			challenge, _ := conversation.Step(string(message))
			if c.forge != nil {
				challenge = c.forge(second == 1, challenge)
			}
			if x.Proved() {
				t.Errorf("%s: proved too early", name)
			}
			if message, err = x.Next([]byte(challenge)); err != nil {
				break
			}
		}
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) || x.Proved() != (c.fault == "") {
			t.Errorf("%s: %v, proved %v", name, err, x.Proved())
		}
	}
}
