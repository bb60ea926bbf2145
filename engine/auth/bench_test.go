package auth

import (
	"context"
	"testing"
	"time"
)

// BenchmarkPassword: what a try costs that has to be hashed, as mailrace user does it, and one that the cache knows.
func BenchmarkPassword(b *testing.B) {
	made, err := HashPassword("right")
	if err != nil {
		b.Fatal(err)
	}
	for name, cache := range map[string]time.Duration{"hashed": 0, "cached": time.Hour} {
		b.Run(name, func(b *testing.B) {
			a, err := New(Options{File: "users.toml", Read: func(string) ([]Entry, error) { return []Entry{{Name: "alice", Password: made}}, nil }, Cache: cache, Mechanisms: []string{Plain}})
			if err != nil {
				b.Fatal(err)
			}
			defer a.Close()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Password(context.Background(), "alice", "right", home1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScram is the server's side of a whole exchange, that of RFC 7677 §3.
func BenchmarkScram(b *testing.B) {
	a, err := New(Options{File: "users.toml", Read: func(string) ([]Entry, error) { return []Entry{{Name: "user", SCRAM: pencil}}, nil }})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	a.nonce = func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }
	b.ReportAllocs()
	for b.Loop() {
		x := a.Begin(Scram, Channel{Client: home1})
		for _, response := range []string{
			"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "",
		} {
			if answer, _ := x.Step([]byte(response), nil); answer.Err != nil {
				b.Fatal(answer.Err)
			}
		}
	}
}
