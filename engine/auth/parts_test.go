package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestHashes(t *testing.T) {
	t.Parallel()
	made, err := HashPassword("correct horse")
	if err != nil || !strings.HasPrefix(made, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatal(made, err)
	}
	for text, password := range map[string]string{
		made: "correct horse",
		// what the argon2 command and htpasswd make
		"$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U": "",
	} {
		h, err := parseHash(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if password != "" && (!h.fits(password) || h.fits(password+" ")) {
			t.Errorf("%s does not tell passwords apart", text)
		}
		if h, ok := h.(*argonHash); ok && h.String() != text {
			t.Errorf("%s became %s", text, h)
		}
	}
	for _, bad := range []string{
		"", "secret", "{SHA}x", "$1$x$y", "$argon2i$v=19$m=64,t=2,p=1$c29tZXNhbHQ$c29tZXNhbHRzb21lc2FsdA",
		"$argon2id$v=16$m=64,t=2,p=1$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$argon2id$v=19$m=64,t=0,p=1$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$argon2id$v=19$m=64,t=2$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$argon2id$v=19$m=64,t=2,p=256$c29tZXNhbHQ$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$", "$argon2id$v=19$m=64,t=2,p=1$c29t$2wMTjZ3stAf2NajHSVQl3UYJVpMxcjzOMxJJk0lv40U",
		"$2y$04$short", "$2y$31$Ta60E5QQ4FETaXl9nR6YzOhbg8zZ8L8axkgbVP1UU2AR69s9pFlsy",
	} {
		if err := CheckHash(bad); err == nil || len(bad) > 4 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "a\x00b", strings.Repeat("x", passwordMax+1)} {
		if _, err := HashPassword(bad); err == nil {
			t.Errorf("%.10q was hashed", bad)
		}
		if _, err := NewVerifier(bad); err == nil {
			t.Errorf("%.10q has a verifier", bad)
		}
	}
}

func TestVerifiers(t *testing.T) {
	t.Parallel()
	v, err := parseVerifier(pencil)
	if err != nil || v.String() != pencil || !v.fits("pencil") || v.fits("pen") || v.fits("\u0627\u0031") {
		t.Fatal(v, err)
	}
	made, err := NewVerifier("pencil")
	if err != nil || CheckVerifier(made) != nil {
		t.Fatal(made, err)
	}
	for _, bad := range []string{
		"", "x", strings.Replace(pencil, "256", "1", 1), strings.Replace(pencil, "4096", "4095", 1), strings.Replace(pencil, "4096", "99999999", 1),
		strings.Replace(pencil, "W22ZaJ0SNY7soEsUEjb6gQ==", "", 1), strings.Replace(pencil, ":wf", "", 1), pencil + "AAAA", strings.TrimSuffix(pencil, "="),
	} {
		if CheckVerifier(bad) == nil {
			t.Errorf("%q is a verifier", bad)
		}
	}
}

// FuzzSecrets: what is read of a users file is written the same, and what is not breaks nothing.
func FuzzSecrets(f *testing.F) {
	f.Add(pencil)
	f.Add(cheap("x"))
	f.Add("$2y$04$Ta60E5QQ4FETaXl9nR6YzOhbg8zZ8L8axkgbVP1UU2AR69s9pFlsy")
	f.Add("*@*.example.com")
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := parseVerifier(text); err == nil && CheckVerifier(v.String()) != nil {
			t.Fatalf("%q became %q", text, v)
		}
		if h, err := parseHash(text); err == nil {
			if h, ok := h.(*argonHash); ok && CheckHash(h.String()) != nil {
				t.Fatalf("%q became %q", text, h)
			}
		}
		if s, err := NewSenders([]string{text}); err == nil && text != "<>" && s.Allow("") {
			t.Fatalf("%q allows the null reverse-path", text)
		}
	})
}

func TestSenders(t *testing.T) {
	t.Parallel()
	s, err := NewSenders([]string{"a@b.example", "*@Example.com", "*@*.sub.example", "<>"})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"": true, "a@b.example": true, "a@B.EXAMPLE": true, "A@b.example": false, "c@b.example": false, "x@example.com": true, "x@EXAMPLE.COM": true,
		"x@a.example.com": false, "x@a.sub.example": true, "x@a.b.sub.example": true, "x@sub.example": false, "x@asub.example": false,
		`"x@example.com"@evil.example`: false, "postmaster": false, "x@": false, "@": false,
	} {
		if got := s.Allow(path); got != want {
			t.Errorf("%q: %v", path, got)
		}
	}
	if s, err := NewSenders(nil); s != nil || err != nil || !s.Allow("") || !s.Allow("x@y") {
		t.Error("no senders are every sender")
	}
	if s, err := NewSenders([]string{"a@b"}); err != nil || s.Allow("") {
		t.Error("the null reverse-path has to be named")
	}
	for _, bad := range []string{"", "@", "a@", "@b", "*", "a", "a*@b", "*@*", "*@a.*", "a@*.b", "*@*b", "a b@c", "<a@b>", "a@b\r\n"} {
		if CheckSender(bad) == nil {
			t.Errorf("%q is a sender", bad)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	u := &User{Limits: Limits{Messages: 10, Recipients: 100, Connections: 2}, account: new(account)}
	if one, two, three := u.Enter(), u.Enter(), u.Enter(); !one || !two || three {
		t.Error("two connections")
	}
	u.Leave()
	if !u.Enter() {
		t.Error("a connection has gone")
	}
	for i := range 10 {
		if n := u.Begin(now); n != 100-i*10 && i < 10 {
			t.Errorf("message %d: %d recipients", i, n)
		}
		if i < 9 {
			u.AddRecipients(10, now)
		}
	}
	if n := u.Begin(now); n != -1 {
		t.Errorf("%d", n)
	}
	now = now.Add(90 * time.Minute) // half of them is more than an hour ago
	for range 5 {
		if n := u.Begin(now); n != 55 {
			t.Errorf("%d", n)
		}
	}
	if n := u.Begin(now); n != -1 {
		t.Errorf("%d", n)
	}
	u.Messages = 0
	u.AddRecipients(55, now)
	if n := u.Begin(now); n != 0 {
		t.Errorf("%d", n)
	}
	u.Recipients = 0
	if n := u.Begin(now); n != Unlimited {
		t.Errorf("%d", n)
	}
	if u.account.idle(now) {
		t.Error("there are connections")
	}
	u.Leave()
	u.Leave()
	if u.account.idle(now) || !u.account.idle(now.Add(3*time.Hour)) {
		t.Error("idle when all is long ago, and not before")
	}
}

// TestGuardIsBounded: no flood of names or addresses makes it grow.
func TestGuardIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	g := newGuard(3, time.Minute)
	for i := range 3 * guardNames {
		g.failed(fmt.Sprint("user", i), now)
		g.right(fmt.Sprint("user", i), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(g.names) > guardNames || len(g.homes) > guardHomes {
		t.Errorf("%d names, %d homes", len(g.names), len(g.homes))
	}
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff")
	if homeOf("X", a) != homeOf("x", b) || homeOf("x", a) == homeOf("x", home1) {
		t.Error("a home is a /64")
	}
}

func TestMemoIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	m := newMemo[int](10)
	for i := range 100 {
		m.settle(memoKey{byte(i)}, i, nil, now, now.Add(time.Duration(i+1)*time.Second))
		if len(m.kept) > 10 {
			t.Fatal(len(m.kept))
		}
		if v, ok := m.get(memoKey{byte(i)}, now); !ok || v != i {
			t.Fatal(v, ok)
		}
	}
	if _, ok := m.get(memoKey{99}, now.Add(100*time.Second)); ok {
		t.Error("kept for too long")
	}
}
