// Package client is the other side of AUTH: how this node shows other hosts who it is. The messages of PLAIN and OAUTHBEARER are go-sasl's, those of
// SCRAM xdg-go/scram's; LOGIN and XOAUTH2 are two lines each, for which go-sasl has no client, or one that takes a single wording of the
// server's questions.
package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// Names of the mechanisms.
const (
	Plain       = "PLAIN"
	Login       = "LOGIN"
	Scram       = "SCRAM-SHA-256"
	XOAuth2     = "XOAUTH2"
	OAuthBearer = "OAUTHBEARER"
)

// iterationsMax is how many iterations of SCRAM a host may ask for: some tenths of a second. The least is 4096. RFC 7677 §4
const iterationsMax = 1_000_000

// errQuestion: the host asks for more than the mechanism has to say.
var errQuestion = errors.New("the host asks for more than the mechanism has to say")

// Credentials are who is to be authenticated, to whom.
type Credentials struct {
	User   string
	Secret string // a password, or a token for OAUTHBEARER and XOAUTH2
	Host   string
	Port   int
}

// Exchange is one authentication under way. It belongs to one goroutine at a time; its methods may take long.
type Exchange struct {
	next   func(challenge []byte) ([]byte, error)
	proved func() bool
}

// Begin begins an exchange. initial is sent with AUTH; nil = nothing is.
func Begin(mechanism string, c Credentials) (x *Exchange, initial []byte, err error) {
	switch mechanism {
	case Plain:
		return library(sasl.NewPlainClient("", c.User, c.Secret))
	case OAuthBearer:
		return library(sasl.NewOAuthBearerClient(&sasl.OAuthBearerOptions{Username: c.User, Token: c.Secret, Host: c.Host, Port: c.Port}))
	case Login:
		return &Exchange{next: login(c)}, nil, nil
	case XOAuth2:
		return &Exchange{next: refusal}, []byte("user=" + c.User + "\x01auth=Bearer " + c.Secret + "\x01\x01"), nil
	case Scram:
		return beginScram(c)
	}
	return nil, nil, fmt.Errorf("no mechanism %s", mechanism)
}

// Next answers a challenge of the host. An error ends the exchange: the host is to be told so.
func (x *Exchange) Next(challenge []byte) ([]byte, error) { return x.next(challenge) }

// Proved says whether a host that takes the credentials has shown all that the mechanism wants of it.
func (x *Exchange) Proved() bool { return x.proved == nil || x.proved() }

func library(c sasl.Client) (*Exchange, []byte, error) {
	_, initial, err := c.Start()
	return &Exchange{next: c.Next}, initial, err
}

// login answers two questions, whatever their words: who, and the password. draft-murchison-sasl-login
func login(c Credentials) func([]byte) ([]byte, error) {
	answers := []string{c.User, c.Secret}
	return func([]byte) ([]byte, error) {
		if len(answers) == 0 {
			return nil, errQuestion
		}
		answer := answers[0]
		answers = answers[1:]
		return []byte(answer), nil
	}
}

// refusal is a challenge that is none: the host says why it refuses a token.
func refusal(challenge []byte) ([]byte, error) {
	return nil, fmt.Errorf("the host refuses the token: %.200q", challenge)
}

func beginScram(c Credentials) (*Exchange, []byte, error) {
	client, err := scram.SHA256.NewClient(c.User, c.Secret, "")
	if err != nil {
		return nil, nil, err
	}
	conversation := client.NewConversation()
	first, err := conversation.Step("")
	next := func(challenge []byte) ([]byte, error) {
		if n := iterations(string(challenge)); n > iterationsMax {
			return nil, fmt.Errorf("the host wants %d iterations of SCRAM: %d are taken at most", n, iterationsMax)
		}
		response, err := conversation.Step(string(challenge))
		return []byte(response), err
	}
	return &Exchange{next: next, proved: conversation.Valid}, []byte(first), err
}

// iterations is the number that the first message of the server names, or 0. RFC 5802 §5.1
func iterations(message string) int {
	for part := range strings.SplitSeq(message, ",") {
		if digits, ok := strings.CutPrefix(part, "i="); ok {
			n, err := strconv.Atoi(digits)
			if err != nil {
				return iterationsMax + 1
			}
			return n
		}
	}
	return 0
}
