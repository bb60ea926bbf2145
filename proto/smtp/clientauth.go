package smtp

import (
	"bytes"
	"encoding/base64"
	"errors"
)

// ErrChallenge: a challenge of AUTH that is not in base64. RFC 4954 §4
var ErrChallenge = errors.New("malformed challenge of AUTH")

// SASL are mechanisms of AUTH.
type SASL uint8

const (
	SASLPlain       SASL = 1 << iota // RFC 4616
	SASLLogin                        // draft-murchison-sasl-login
	SASLScram                        // SCRAM-SHA-256, RFC 7677
	SASLXOAuth2                      // Google's
	SASLOAuthBearer                  // RFC 7628
)

// Has says whether all of want are among the mechanisms.
func (m SASL) Has(want SASL) bool { return m&want == want }

// saslNames are the names of the mechanisms.
var saslNames = [...]struct {
	name string
	is   SASL
}{{"PLAIN", SASLPlain}, {"LOGIN", SASLLogin}, {"SCRAM-SHA-256", SASLScram}, {"XOAUTH2", SASLXOAuth2}, {"OAUTHBEARER", SASLOAuthBearer}}

// parseSASL reads the parameters of AUTH in the answer to EHLO. RFC 4954 §3
func parseSASL(params []byte) (m SASL) {
	for len(params) > 0 {
		var word []byte
		word, params = cutWord(params)
		for _, s := range saslNames {
			if equalFold(word, s.name) {
				m |= s.is
			}
		}
	}
	return m
}

// Mechanisms are those of AUTH that the server offers, of the ones known here.
func (c *Client) Mechanisms() SASL { return c.offer.sasl }

// Auth queues AUTH by one of the mechanisms, with an initial response if it is not nil. ClientChallenge, ClientAuthenticated or
// ClientAuthRefused follows. It reports false, and does nothing, unless the server offers the mechanism, the session is up, and no transaction
// is under way. RFC 4954 §4
func (c *Client) Auth(mechanism SASL, initial []byte) bool {
	if !c.CanBegin() || c.count > 0 || mechanism&c.offer.sasl == 0 {
		return false
	}
	for _, s := range saslNames {
		if s.is != mechanism {
			continue
		}
		c.queue("AUTH ", s.name)
		switch {
		case initial == nil:
		case len(initial) == 0:
			c.queue(" =")
		default:
			c.queue(" ")
			c.out = base64.StdEncoding.AppendEncode(c.out, initial)
		}
		c.queue("\r\n")
		c.phase, c.resetDue = clientAuth, false
		return true
	}
	return false
}

// Challenge is what the server said with ClientChallenge, without its base64. It holds until the next Feed.
func (c *Client) Challenge() []byte { return c.challenge }

// AuthResponse queues the response to a challenge; nil gives the exchange up, which the server answers with ClientAuthRefused.
func (c *Client) AuthResponse(response []byte) {
	switch {
	case c.phase != clientAuth:
	case response == nil:
		c.queue("*\r\n")
	default:
		c.out = base64.StdEncoding.AppendEncode(c.out, response)
		c.queue("\r\n")
	}
}

// takeAuth judges the answer to AUTH or to a response.
func (c *Client) takeAuth(r *ReplyView) (ev ClientEvent) {
	switch {
	case r.Code == 421 || r.Code == 221:
		c.phase = clientOver
		return ClientGone
	case r.Code/100 >= 4:
		ev = ClientAuthRefused
	case r.Code/100 == 2: // 235, but for servers that say 250: RFC 5321 §4.2.1
		ev = ClientAuthenticated
	case r.Code == 334:
		text := bytes.TrimRight(r.Text, " ")
		if len(text) > maxAuthLine {
			return c.fail(ErrChallenge)
		}
		var err error
		if c.challenge, err = base64.StdEncoding.AppendDecode(c.challenge[:0], text); err != nil {
			return c.fail(ErrChallenge)
		}
		return ClientChallenge
	default:
		return c.fail(ErrUnexpectedReply)
	}
	c.phase, c.challenge = clientUp, nil
	return ev
}
