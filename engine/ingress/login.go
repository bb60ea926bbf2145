package ingress

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"mailrace/engine/auth"
	"mailrace/engine/loop"
	"mailrace/proto/smtp"
)

// Users is who may log in at a door.
type Users struct {
	Authority *auth.Authority
	Required  bool          // MAIL needs a user, unless the client may relay anyhow: RFC 6409 §4.3
	Delay     time.Duration // before the answer to the first failed try of a session; it doubles with each
	// Endpoints are the channel bindings tls-server-end-point of the certificates in use. RFC 5929 §4; nil = none
	Endpoints func() [][]byte
}

// triesMax is how many times a session may fail to log in. HOSTILE A6 and RFC 4954 §9
const triesMax = 3

// login is the authentication of a session, made with its first AUTH.
type login struct {
	exchange  *auth.Exchange // under way, or the last
	mechanism string
	tries     int        // that failed
	until     time.Time  // when what the user has shown expires; zero = never
	delay     loop.Timer // before the answer to a failed one
}

// Replies about users. RFC 4954 §6
var (
	replyCredentials = smtp.Reply{Code: 535, Enhanced: "5.7.8", Text: "Authentication credentials invalid"}
	replyNotNow      = smtp.Reply{Code: 454, Enhanced: "4.7.0", Text: "Temporary authentication failure, try again later"}
	replyTries       = smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Too many failed authentications"}
	replyAuthFirst   = smtp.Reply{Code: 530, Enhanced: "5.7.0", Text: "Authentication required"}
	replyUserGone    = smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Your user has changed, connect again"}
	replyExpired     = smtp.Reply{Code: 421, Enhanced: "4.7.0", Text: "Your token has expired, connect again with another"}
	replySender      = smtp.Reply{Code: 553, Enhanced: "5.7.1", Text: "Sender address is not one that you may use"}
	replyNoSuchLogin = smtp.Reply{Code: 550, Enhanced: "5.7.0", Text: "LOGIN: no such user here"}
)

// authenticate takes a step of AUTH. What it has to wait for parks the session.
func (s *session) authenticate() {
	if s.room.draining {
		s.smtp.Refuse(replyDraining)
		return
	}
	if s.smtp.AuthBegins() {
		if s.counted && !s.door.Clients.mayAuthenticate(s.visit, s.conn.Loop().Now()) {
			s.door.Stats.Quota[tooManyAuthFailures].Inc()
			s.smtp.Refuse(replyQuota[tooManyAuthFailures])
			return
		}
		if s.login == nil {
			s.login = new(login)
		}
		s.login.mechanism = s.smtp.AuthMechanism()
		s.login.exchange = s.door.Users.Authority.Begin(s.login.mechanism, auth.Channel{Client: s.remote.Addr(), Bindings: s.bindings()})
	}
	home := s.conn.Loop()
	answer, waits := s.login.exchange.Step(s.smtp.AuthResponse(), func(a auth.Answer) { home.Post(func() { s.answered(a) }) })
	if s.parked = waits; !waits {
		s.judged(answer)
	}
}

// bindings are the channel bindings of the session's TLS; nil in clear.
func (s *session) bindings() func(kind string) [][]byte {
	if s.tls.version == "" {
		return nil
	}
	return func(kind string) [][]byte {
		state, ok := s.conn.TLS()
		switch {
		case !ok:
		case kind == "tls-exporter": // RFC 9266
			if key, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32); err == nil {
				return [][]byte{key}
			}
		case kind == "tls-unique" && len(state.TLSUnique) > 0: // RFC 5929 §3; not of TLS 1.3
			return [][]byte{state.TLSUnique}
		case kind == "tls-server-end-point" && s.door.Users.Endpoints != nil:
			return s.door.Users.Endpoints()
		}
		return nil
	}
}

// answered goes on with an answer that the session was parked for.
func (s *session) answered(a auth.Answer) {
	if s.gone || s.ending {
		return
	}
	s.parked = false
	s.judged(a)
	s.proceed()
}

// proceed goes on behind a pause of AUTH. If the machine has come to the end of the session, it says so now.
func (s *session) proceed() {
	if s.parked || s.inData {
		return
	}
	if s.goOn(); s.conn.Kept() == 0 && !s.gone && !s.ending {
		s.Data(s.conn, nil)
	}
}

// judged tells the client what became of its response.
func (s *session) judged(a auth.Answer) {
	switch {
	case a.Err != nil:
		s.failed(a.Err)
	case a.User == nil:
		s.smtp.Challenge(a.Challenge)
	case !s.enterUser(a.User):
		s.door.Stats.authenticated(s.login.mechanism, "connections")
		s.smtp.Refuse(replyQuota[userConnections])
	default:
		s.door.Stats.authenticated(s.login.mechanism, "ok")
		s.login.until = a.Until
		s.smtp.Offer(s.offer())
		s.smtp.Accept()
	}
}

// failed counts a try that failed, and answers after a while: who guesses has to wait, and the one who does it in many sessions is counted
// by address.
func (s *session) failed(why error) {
	now := s.conn.Loop().Now()
	if !errors.Is(why, auth.ErrCredentials) {
		s.note(now, why)
		s.smtp.Refuse(replyNotNow)
		return
	}
	s.note(now, auth.ErrCredentials)
	s.login.tries++
	if s.counted {
		s.door.Clients.failed(s.visit, now)
	}
	d := s.door.Users.Delay << (s.login.tries - 1)
	if d <= 0 {
		s.refuseLogin()
		return
	}
	s.parked = true
	s.login.delay.Fire = s.refuseLate
	s.conn.Loop().After(d, &s.login.delay)
}

// refuseLate is called when the delay of a failed try has passed.
func (s *session) refuseLate() {
	if s.gone || s.ending {
		return
	}
	s.parked = false
	s.refuseLogin()
	s.proceed()
}

// refuseLogin answers a failed try, and the last of a session with its end.
func (s *session) refuseLogin() {
	s.smtp.Refuse(replyCredentials)
	if s.login.tries >= triesMax {
		s.smtp.Bye(replyTries)
	}
}

// note counts and logs a failed try.
func (s *session) note(now time.Time, why error) {
	result := map[error]string{auth.ErrCredentials: "refused", auth.ErrLocked: "locked", auth.ErrBusy: "busy"}[why]
	if result == "" {
		result = "unavailable"
	}
	s.door.Stats.authenticated(s.login.mechanism, result)
	name := s.login.exchange.Name()
	s.room.logins.log(now, s.door.Log, slog.LevelInfo, "authentication failed",
		"user", strings.ToValidUTF8(name[:min(len(name), loggedName)], "?"), "client", s.client, "mechanism", s.login.mechanism, "reason", why)
}

// enterUser makes the client a user, unless the user has too many connections.
func (s *session) enterUser(u *auth.User) bool {
	if !u.Enter() {
		s.door.Stats.Quota[userConnections].Inc()
		return false
	}
	s.leave() // it is counted no longer as a stranger
	s.user, s.relay, s.trusted, s.ends = u, true, true, time.Time{}
	return true
}

// part ends what enterUser began. A message under way still knows its user.
func (s *session) part() {
	if s.user != nil {
		s.user.Leave()
	}
	if s.login != nil {
		s.login.delay.Stop()
	}
}

// forget makes the client nobody in particular.
func (s *session) forget() {
	s.part()
	if s.user = nil; s.login != nil {
		s.login.until = time.Time{}
	}
}

// mayMail says with which reply MAIL must be refused because of who the user is, or is not; nil if it is well.
func (s *session) mayMail(path []byte) *smtp.Reply {
	if s.user == nil {
		if s.door.Users != nil && s.door.Users.Required && !s.relay {
			s.door.Stats.NoUser.Inc()
			return &replyAuthFirst
		}
		return nil
	}
	if s.login != nil && !s.login.until.IsZero() && s.conn.Loop().Now().After(s.login.until) {
		return &replyExpired
	}
	current := s.door.Users.Authority.Current(s.user)
	if current == nil {
		return &replyUserGone
	}
	if s.user = current; current.Senders != nil && !current.Senders.Allow(string(path)) {
		s.door.Stats.BadSender.Inc()
		return &replySender
	}
	return nil
}

// askUser asks for another message of the user.
func (s *session) askUser() verdict {
	switch n := s.user.Begin(s.conn.Loop().Now()); n {
	case -1:
		return userMessages
	case 0:
		return userRecipients
	default:
		s.recipients = n
	}
	return admitted
}

// tenant is the user's.
func (s *session) tenant() string {
	if s.user == nil {
		return ""
	}
	return s.user.Tenant
}

// hearsayUser is the user that XCLIENT names, nil if it names none. ok is false if there is no such user.
func (s *session) hearsayUser(name string) (u *auth.User, ok bool) {
	if name == "" || s.door.Users == nil {
		return nil, name == ""
	}
	u = s.door.Users.Authority.Find(name)
	return u, u != nil
}

// maySend says whether the user may use an address in From; nil = any.
func (s *session) maySend() func(address []byte) bool {
	if s.user == nil || s.user.Senders == nil {
		return nil
	}
	senders := s.user.Senders
	return func(address []byte) bool { return senders.Allow(string(address)) }
}

// loggedName is the most octets of a user's name in the log: it is what the client says.
const loggedName = 80
