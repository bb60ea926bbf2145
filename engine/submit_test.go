package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/inject"
	"mailrace/proto/message"
)

// TestSubmit takes mail from the embedding program as from a client.
func TestSubmit(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, settings(t, f.route("*")))
	for _, m := range []Mail{
		{From: "s@sender.example", To: []string{"a@far.example", "b@far.example"}, Content: []byte(hello)},
		{From: "", To: []string{"a@far.example"}, Content: []byte("\r\n")},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(noise(200<<10, 3))},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: nil},
		{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(eightBit)},
		{From: "s@sender.example", To: []string{"gr\u00fc\u00dfe@far.example"}, Content: []byte(eightBit)},
	} {
		want := string(m.Content)
		id, err := r.Submit(t.Context(), m)
		if err != nil {
			t.Errorf("%v: %v", m.To, err)
			continue
		}
		clear(m.Content) // it was copied
		l := f.next()
		content := l.content
		trace := content[:len(content)-len(want)]
		if !strings.HasPrefix(trace, "Received: by mta.test.example id "+id.String()+"; ") || content[len(trace):] != want {
			t.Errorf("%v: %.300q", m.To, content)
		}
		if wantSent := !bytes.Contains([]byte(want), []byte("\xc3")); wantSent == strings.Contains(l.mail, "BODY=8BITMIME") {
			t.Errorf("%v: %s", m.To, l.mail)
		}
		if strings.Contains(l.mail, "SMTPUTF8") != strings.Contains(m.To[0], "\u00fc") {
			t.Errorf("%v: %s", m.To, l.mail)
		}
	}
	r.awaitEmpty()
}

// TestSubmitRefuses what SMTP would refuse.
func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	c := settings(t)
	c.Limits.MessageSize = 10_000
	r := start(t, c)
	good := []string{"a@far.example"}
	for name, m := range map[string]Mail{
		"bare LF":             {From: "s@sender.example", To: good, Content: []byte("Subject: x\n\r\n")},
		"bare CR":             {From: "s@sender.example", To: good, Content: []byte("Subject: x\rX: y\r\n")},
		"CR at the end":       {From: "s@sender.example", To: good, Content: []byte("Subject: x\r")},
		"NUL":                 {From: "s@sender.example", To: good, Content: []byte("Subject: \x00\r\n")},
		"no CRLF at the end":  {From: "s@sender.example", To: good, Content: []byte("Subject: x")},
		"smuggled end":        {From: "s@sender.example", To: good, Content: []byte("Subject: x\n.\r\nMAIL FROM:<x@y.example>\r\n")},
		"too large":           {From: "s@sender.example", To: good, Content: []byte(text(1, 11_000))},
		"no recipients":       {From: "s@sender.example", To: nil, Content: []byte(hello)},
		"empty recipient":     {From: "s@sender.example", To: []string{""}, Content: []byte(hello)},
		"no domain in sender": {From: "s", To: good, Content: []byte(hello)},
		"line break in rcpt":  {From: "s@sender.example", To: []string{"a@far.example>\r\nRCPT TO:<b@far.example"}, Content: []byte(hello)},
		"bracket in rcpt":     {From: "s@sender.example", To: []string{"a@far.example> X=y"}, Content: []byte(hello)},
		"source route":        {From: "s@sender.example", To: []string{"@relay.example:a@far.example"}, Content: []byte(hello)},
		"control in sender":   {From: "s\x01@sender.example", To: good, Content: []byte(hello)},
		"bad UTF-8":           {From: "s\xff@sender.example", To: good, Content: []byte(hello)},
		"local part too long": {From: strings.Repeat("s", 65) + "@sender.example", To: good, Content: []byte(hello)},
	} {
		if id, err := r.Submit(t.Context(), m); err == nil {
			t.Errorf("%s: taken as %v", name, id)
		}
	}
	if n := len(r.records()); n != 0 || len(r.queue()) != 0 {
		t.Errorf("%d records, queue %+v", n, r.queue())
	}
}

// TestBatch queues many messages together, with what their senders said of them, and answers for each.
func TestBatch(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	r := start(t, settings(t, f.route("*")))
	b := r.NewBatch()
	const n = 3 * flyingMax
	for i := range n {
		m := Mail{From: "s@sender.example", To: []string{fmt.Sprintf("u%d@far.example", i)}, Content: []byte(hello), Tenant: "shop", Campaign: "spring", User: "app"}
		if i%100 == 7 {
			m.To[0] = "nobody"
			m.To = append(m.To, "@")
		}
		b.Add(t.Context(), &m)
	}
	results := b.Wait(t.Context())
	ids := map[message.ID]bool{}
	for i, got := range results {
		if i%100 == 7 {
			if got.Err == nil {
				t.Errorf("message %d was queued as %v", i, got.ID)
			}
			continue
		}
		if got.Err != nil || got.Repeated || ids[got.ID] {
			t.Fatalf("message %d: %+v", i, got)
		}
		ids[got.ID] = true
	}
	if len(results) != n {
		t.Errorf("%d results, want %d", len(results), n)
	}
	for range len(ids) {
		f.next()
	}
	r.awaitEmpty()
	receptions := r.records("reception")
	if len(receptions) != len(ids) || receptions[0].Tenant != "shop" || receptions[0].Campaign != "spring" || receptions[0].User != "app" {
		t.Errorf("%d receptions, first %+v", len(receptions), receptions[0])
	}
	if r.batches.Load() != 0 {
		t.Error("the batch is not over")
	}
}

// TestBatchKeys queues one message for each key, also within a batch and after a restart.
func TestBatchKeys(t *testing.T) {
	t.Parallel()
	f := listen(t, polite)
	c := settings(t, f.route("*"))
	var first []inject.Result
	for round := range 3 {
		r := start(t, c)
		b := r.NewBatch()
		for i := range 20 {
			b.Add(t.Context(), &Mail{
				From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello), Key: fmt.Sprint(i % 10), Tenant: fmt.Sprint(i % 2),
			})
		}
		got := b.Wait(t.Context())
		if round == 0 {
			first = got
		}
		for i := range got {
			if got[i].Err != nil || got[i].ID != first[i%10].ID || got[i].Repeated != (round > 0 || i >= 10) {
				t.Errorf("round %d, message %d: %+v, the first was %+v", round, i, got[i], first[i%10])
			}
		}
		if round == 0 {
			for range 10 {
				f.next()
			}
		}
		r.awaitEmpty()
		if n := len(r.records("reception")); n != 10 {
			t.Errorf("round %d: %d receptions", round, n)
		}
		r.stop()
	}
}

// TestKeysExpire from the table and from the spool.
func TestKeysExpire(t *testing.T) {
	t.Parallel()
	c := settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}})
	c.Idempotency.Window = time.Second
	r := start(t, c)
	mail := Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello), Key: "k"}
	first, err := r.Submit(t.Context(), mail)
	if err != nil {
		t.Fatal(err)
	}
	r.await("the key to be swept", func() bool { return r.claims.Len() == 0 })
	second, err := r.Submit(t.Context(), mail)
	if err != nil || second == first {
		t.Errorf("queued as %v, then as %v, %v", first, second, err)
	}
}

// TestBatchIsLate: what is added when the time is over is not queued, and what is on its way then is not known of.
func TestBatchIsLate(t *testing.T) {
	t.Parallel()
	r := start(t, settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}))
	mail := Mail{From: "s@sender.example", To: []string{"a@far.example"}, Content: []byte(hello)}
	ctx, cancel := context.WithCancel(t.Context())
	held := make(chan struct{})
	for _, a := range r.lanes {
		a.loop.Post(func() { <-held })
	}
	b := r.NewBatch()
	b.Add(ctx, &mail)
	cancel()
	b.Add(ctx, &mail)
	got := b.Wait(ctx)
	close(held)
	if !errors.Is(got[0].Err, inject.ErrUnknown) || !errors.Is(got[1].Err, context.Canceled) {
		t.Errorf("%+v", got)
	}
	r.record("delivery", "a@far.example", 1)
	r.awaitEmpty()
}
