package auth

import (
	"crypto/rand"
	"encoding/base64"
	"strings"

	"github.com/xdg-go/scram"
)

// scramMessageMax is the most octets of a message of SCRAM: two names and a nonce, or a binding, a nonce and a proof.
const scramMessageMax = 2048

// scramServer is SCRAM-SHA-256, with a channel binding or without. RFC 5802, RFC 7677
//
// Types of channel bindings whose value depends on the certificate have several that are right, if there are several certificates. Each has a
// conversation of its own with the same nonce, of which one may come to its end.
type scramServer struct {
	plus          bool
	user          string
	conversations []*scram.ServerConversation
	entry         *entry // nil if the user has no verifier, or there is no such user
	proved        bool   // the client has the server's signature, and has to say that it knows
}

func (s *scramServer) name() string { return s.user }

func (s *scramServer) next(x *Exchange, response []byte, _ func(Answer)) (Answer, bool) {
	switch {
	case s.proved && len(response) == 0:
		return Answer{User: s.entry.user}, false
	case s.proved, len(response) > scramMessageMax:
		return Answer{Err: ErrCredentials}, false
	case response == nil:
		return Answer{}, false
	case s.conversations == nil:
		return s.first(x, string(response)), false
	}
	return s.final(x, string(response)), false
}

// newNonce is the server's part of a nonce. RFC 5802 §5.1
func newNonce() string {
	var raw [18]byte
	_, _ = rand.Read(raw[:])
	return base64.StdEncoding.EncodeToString(raw[:])
}

// first answers the client's first message with salt and iterations: for names without a verifier they are made up.
func (s *scramServer) first(x *Exchange, message string) Answer {
	flag, _, _ := strings.Cut(message, ",")
	kind, binds := strings.CutPrefix(flag, "p=")
	switch {
	case binds != s.plus, x.channel.Bindings == nil && binds:
		return Answer{Err: ErrCredentials}
	case flag == "y" && x.channel.Bindings != nil && x.a.serves(ScramPlus): // somebody hid it from the client: RFC 5802 §6
		return Answer{Err: ErrCredentials}
	}
	t, nonce := x.a.table.Load(), x.a.nonce()
	server, err := scram.SHA256.NewServer(func(name string) (scram.StoredCredentials, error) {
		if CheckName(name) != nil {
			return scram.StoredCredentials{}, errNoUser
		}
		return t.verifier(name).credentials(), nil
	})
	if err != nil {
		return Answer{Err: ErrUnavailable}
	}
	server.WithNonceGenerator(func() string { return nonce })
	if !binds {
		s.conversations = append(s.conversations, server.NewConversation())
	} else {
		for _, data := range x.channel.Bindings(kind) {
			s.conversations = append(s.conversations,
				server.NewConversationWithChannelBindingRequired(scram.ChannelBinding{Type: scram.ChannelBindingType(kind), Data: data}))
		}
	}
	if len(s.conversations) == 0 {
		return Answer{Err: ErrCredentials}
	}
	challenge := ""
	for _, c := range s.conversations {
		if challenge, err = c.Step(message); err != nil {
			return Answer{Err: ErrCredentials}
		}
		s.user = c.Username()
		if id := c.AuthzID(); id != "" && fold(id) != fold(s.user) {
			return Answer{Err: ErrCredentials} // nobody may speak for others
		}
	}
	if x.a.guard.blocks(s.user, x.channel.Client, x.a.now()) {
		return Answer{Err: ErrLocked}
	}
	if e := t.find(s.user); e != nil && e.scram != nil {
		s.entry = e
	}
	return Answer{Challenge: []byte(challenge)}
}

// final checks the client's proof, and proves to the client that we have the verifier. SMTP has no place for that in its good reply: it is one
// more challenge. RFC 4954 §4
func (s *scramServer) final(x *Exchange, message string) Answer {
	for _, c := range s.conversations {
		signature, err := c.Step(message)
		if err != nil || !c.Valid() || s.entry == nil {
			continue
		}
		s.proved = true
		x.a.guard.right(s.user, x.channel.Client, x.a.now())
		return Answer{Challenge: []byte(signature)}
	}
	x.a.guard.failed(s.user, x.a.now())
	return Answer{Err: ErrCredentials}
}
