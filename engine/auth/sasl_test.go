package auth

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

func TestMechanisms(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), nil)
	if got := strings.Join(r.Mechanisms(true), " "); got != "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN" {
		t.Error(got)
	}
	if got := strings.Join(r.Mechanisms(false), " "); got != "SCRAM-SHA-256 PLAIN LOGIN" {
		t.Error(got)
	}
	if r.Begin(XOAuth2, Channel{}) != nil || r.Begin("XYZZY", Channel{}) != nil {
		t.Error("a mechanism that is not served")
	}
}

// TestExchanges: what clients send, and what comes of it. A response of "-" is none; the last answer is "ok", "no" or a challenge.
func TestExchanges(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), nil)
	for _, test := range []struct {
		mechanism string
		responses []string
		want      string
	}{
		{Plain, []string{"\x00alice@example.com\x00right"}, "ok alice@example.com"},
		{Plain, []string{"-", "\x00alice@example.com\x00right"}, "ok alice@example.com"},
		{Plain, []string{"alice@example.com\x00alice@example.com\x00right"}, "ok alice@example.com"},
		{Plain, []string{"ALICE@example.com\x00alice@example.com\x00right"}, "ok alice@example.com"},
		{Plain, []string{"-"}, "challenge "},
		{Plain, []string{"bob\x00alice@example.com\x00right"}, "no"}, // A6: nobody speaks for others
		{Plain, []string{"\x00alice@example.com\x00wrong"}, "no"},
		{Plain, []string{"\x00alice@example.com"}, "no"},
		{Plain, []string{"\x00alice@example.com\x00right\x00"}, "no"},
		{Plain, []string{""}, "no"},
		{Plain, []string{"", "\x00alice@example.com\x00right"}, "no"}, // an exchange that has ended stays so
		{Login, []string{"-"}, "challenge Username:"},
		{Login, []string{"-", "alice@example.com"}, "challenge Password:"},
		{Login, []string{"alice@example.com"}, "challenge Password:"},
		{Login, []string{"alice@example.com", "right"}, "ok alice@example.com"},
		{Login, []string{"-", "alice@example.com", "right"}, "ok alice@example.com"},
		{Login, []string{"-", "alice@example.com", ""}, "no"},
		{Login, []string{"-", "", "right"}, "no"},
		{Scram, []string{"-"}, "challenge "},
		{Scram, []string{"-", ""}, "no"},
		{Scram, []string{"n,,n=user,r=" + strings.Repeat("x", scramMessageMax)}, "no"},
		{Scram, []string{"n,a=bob,n=user,r=x"}, "no"},
		{Scram, []string{"n,,n=us=er,r=x"}, "no"},
		{Scram, []string{"p=tls-exporter,,n=user,r=x"}, "no"}, // binds, but not by a mechanism that does
		{ScramPlus, []string{"n,,n=user,r=x"}, "no"},
		{ScramPlus, []string{"p=tls-exporter,,n=user,r=x"}, "no"}, // nothing to bind to
	} {
		x := r.Begin(test.mechanism, Channel{})
		got := ""
		for _, response := range test.responses {
			p := []byte(response)
			if response == "-" {
				p = nil
			}
			switch a := r.step(x, p); {
			case a.Err != nil:
				if got = "no"; !errors.Is(a.Err, ErrCredentials) {
					t.Errorf("%s %q: %v", test.mechanism, test.responses, a.Err)
				}
			case a.User != nil:
				got = "ok " + a.User.Name
			default:
				got = "challenge " + string(a.Challenge)
			}
		}
		if got != test.want {
			t.Errorf("%s %q: %q, want %q", test.mechanism, test.responses, got, test.want)
		}
	}
}

// TestScramVectors is the dialogue of RFC 7677 §3.
func TestScramVectors(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), nil)
	r.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	x := r.Begin(Scram, Channel{Client: home1})
	for _, step := range []struct{ response, challenge string }{
		{"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"},
		{"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="},
	} {
		if a := r.step(x, []byte(step.response)); a.Err != nil || a.User != nil || string(a.Challenge) != step.challenge {
			t.Fatalf("%s: %+v", step.response, a)
		}
	}
	if x.Name() != "user" {
		t.Errorf("name %q", x.Name())
	}
	if a := r.step(x, []byte{}); a.Err != nil || a.User.Name != "user" {
		t.Errorf("%+v", a)
	}
}

// scrams runs SCRAM as the client of the library does.
func (r *rig) scrams(mechanism, name, password, identity string, c Channel, client *scram.ChannelBinding) Answer {
	r.t.Helper()
	s, err := scram.SHA256.NewClient(name, password, identity)
	if err != nil {
		r.t.Fatal(err)
	}
	conversation := s.NewConversation()
	if client != nil && client.Type == "y" {
		conversation = s.NewConversationAdvertisingChannelBinding()
	} else if client != nil {
		conversation = s.NewConversationWithChannelBinding(*client)
	}
	x, challenge := r.Begin(mechanism, c), ""
	for {
		response, err := conversation.Step(challenge)
		if err != nil {
			r.t.Fatalf("the client says %v of %q", err, challenge)
		}
		a := r.step(x, []byte(response))
		if a.Err != nil || a.User != nil {
			if a.User != nil && (!conversation.Done() || !conversation.Valid()) {
				r.t.Error("the client does not agree")
			}
			return a
		}
		challenge = string(a.Challenge)
	}
}

// TestScram: with bindings that are right or not, and against those who hide that there are any.
func TestScram(t *testing.T) {
	t.Parallel()
	verifier, err := deriveVerifier("geheim", []byte("0123456789abcdef"), 5000)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, append(somebody(), Entry{Name: "eve=,x", SCRAM: verifier.String()}), nil)
	binds := Channel{Client: home1, Bindings: func(kind string) [][]byte {
		return map[string][][]byte{"tls-exporter": {[]byte("exported")}, "tls-server-end-point": {[]byte("one"), []byte("two")}}[kind]
	}}
	bind := func(kind scram.ChannelBindingType, data string) *scram.ChannelBinding {
		return &scram.ChannelBinding{Type: kind, Data: []byte(data)}
	}
	for i, test := range []struct {
		mechanism, name, password, identity string
		channel                             Channel
		client                              *scram.ChannelBinding
		ok                                  bool
	}{
		{Scram, "user", "pencil", "", Channel{}, nil, true},
		{Scram, "USER", "pencil", "user", Channel{}, nil, true},
		{Scram, "user", "pencil", "bob", Channel{}, nil, false},
		{Scram, "user", "pen", "", Channel{}, nil, false},
		{Scram, "eve=,x", "geheim", "", Channel{}, nil, true},
		{Scram, "bob", "crypted", "", Channel{}, nil, false}, // has no verifier
		{Scram, "nobody", "pencil", "", Channel{}, nil, false},
		{Scram, "user", "pencil", "", binds, nil, true},
		{Scram, "user", "pencil", "", Channel{}, bind("y", ""), true},
		{Scram, "user", "pencil", "", binds, bind("y", ""), false}, // PLUS was taken out of EHLO on its way
		{ScramPlus, "user", "pencil", "", binds, bind("tls-exporter", "exported"), true},
		{ScramPlus, "user", "pencil", "", binds, bind("tls-exporter", "of another"), false},
		{ScramPlus, "user", "pencil", "", binds, bind("tls-server-end-point", "one"), true},
		{ScramPlus, "user", "pencil", "", binds, bind("tls-server-end-point", "two"), true},
		{ScramPlus, "user", "pencil", "", binds, bind("tls-server-end-point", "three"), false},
		{ScramPlus, "user", "pencil", "", binds, bind("tls-unique", "exported"), false},
		{ScramPlus, "user", "wrong", "", binds, bind("tls-exporter", "exported"), false},
	} {
		a := r.scrams(test.mechanism, test.name, test.password, test.identity, test.channel, test.client)
		if (a.User != nil) != test.ok || !test.ok && a.Err != ErrCredentials {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if n := r.Hashes(); n != 0 {
		t.Errorf("%d hashes", n)
	}
}

// TestA6ScramNames: for a name without a verifier salt and count are those of one that has: always the same, in every process.
func TestA6ScramNames(t *testing.T) {
	t.Parallel()
	challenge := func(r *rig, name string) string {
		a := r.step(r.Begin(Scram, Channel{}), []byte("n,,n="+name+",r=x"))
		if a.Err != nil {
			t.Fatalf("%s: %v", name, a.Err)
		}
		_, salted, _ := strings.Cut(string(a.Challenge), ",")
		return salted
	}
	users := somebody()
	users[1].Password = cheap("crypted")
	one, two := open(t, users, nil), open(t, users, nil)
	seen := map[string]bool{}
	for _, name := range []string{"user", "bob", "nobody", "somebody"} {
		first := challenge(one, name)
		if challenge(one, strings.ToUpper(name)) != first || challenge(two, name) != first {
			t.Errorf("%s: %q, and then another", name, first)
		}
		if !strings.HasSuffix(first, ",i=4096") || len(first) != len("s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096") || seen[first] {
			t.Errorf("%s: %q gives it away", name, first)
		}
		seen[first] = true
	}
}

// TestA6ScramGuesses: guesses are counted, too.
func TestA6ScramGuesses(t *testing.T) {
	t.Parallel()
	r := open(t, somebody(), func(o *Options) { o.Failures = 5 })
	for i := range 7 {
		a, want := r.scrams(Scram, "user", "guess", "", Channel{Client: home2}, nil), ErrCredentials
		if i >= 5 {
			want = ErrLocked
		}
		if a.Err != want {
			t.Errorf("try %d: %v", i, a.Err)
		}
	}
}

// FuzzExchange: whatever a client says, nobody gets in who does not know the password, and nothing breaks.
func FuzzExchange(f *testing.F) {
	f.Add(byte(0), []byte("\x00alice@example.com\x00wrong"), []byte(""), []byte(""))
	f.Add(byte(1), []byte("alice@example.com"), []byte("wrong"), []byte(""))
	f.Add(byte(2), []byte("n,,n=user,r=x"), []byte("c=biws,r=x,p=AAAA"), []byte(""))
	f.Add(byte(3), []byte("p=tls-exporter,,n=user,r=x"), []byte("c=cD10bHMtZXhwb3J0ZXIsLGV4cG9ydGVk,r=x,p="), []byte(""))
	f.Add(byte(4), []byte("n,a=x@y.example,\x01host=h\x01port=25\x01auth=Bearer abc\x01\x01"), []byte("\x01"), []byte(""))
	f.Add(byte(5), []byte("user=x@y.example\x01auth=Bearer abc\x01\x01"), []byte(""), []byte(""))
	mechanisms := slices.Clone(All)
	slices.Sort(mechanisms)
	a, err := New(Options{
		File: "users.toml", Read: func(string) ([]Entry, error) { return somebody(), nil },
		OAuth: &OAuth{Introspection: "http://127.0.0.1:1/"},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(a.Close)
	a.cancel()
	binds := func(string) [][]byte { return [][]byte{[]byte("exported")} }
	f.Fuzz(func(t *testing.T, which byte, one, two, three []byte) {
		x := a.Begin(mechanisms[int(which)%len(mechanisms)], Channel{Client: home1, Bindings: binds})
		for _, response := range [][]byte{nil, one, two, three} {
			if bytes.Contains(response, []byte("right")) || bytes.Contains(response, []byte("crypted")) || bytes.Contains(response, []byte("pencil")) {
				t.Skip()
			}
			done := make(chan Answer, 1)
			answer, waits := x.Step(response, func(a Answer) { done <- a })
			if waits {
				answer = <-done
			}
			if answer.User != nil {
				t.Fatalf("%q is %s", response, answer.User.Name)
			}
		}
	})
}
