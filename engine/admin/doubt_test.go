package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"mailrace/proto/message"
)

// TestInDoubtIsListed lists the recipients that a delivery may have reached, and no others.
func TestInDoubtIsListed(t *testing.T) {
	ms := sample(3)
	ms[1].Recipients[0].Cast(message.Doubt{
		Began: 1767323999000000000, Attempt: 3, Peer: netip.MustParseAddrPort("192.0.2.1:25"), Cause: message.DoubtConnection, Action: message.DoubtWait,
	})
	ms[2].Recipients[2].Cast(message.Doubt{Attempt: 1}) // it was delivered in the end
	s := start(t, Options{Scan: scanOf(ms)})
	res, body := request(t, s, "GET", "/v1/queue/in-doubt", "")
	want := `"recipients":[{"address":"u1@Example.com","state":"deferred","attempts":0,"in_doubt":{"began":"2026-01-02T03:19:59Z","peer":"192.0.2.1:25","attempt":3,` +
		`"times":1,"cause":"connection","action":"wait"}}]}],"more":false}` + "\n"
	if res.StatusCode != 200 || !strings.HasSuffix(body, want) || strings.Count(body, `"id"`) != 1 {
		t.Errorf("%d %s\nwant %s", res.StatusCode, body, want)
	}
	if res, body := request(t, s, "POST", "/v1/queue/in-doubt", ""); res.StatusCode != 405 {
		t.Errorf("a decision where nobody decides: %d %s", res.StatusCode, body)
	}
}

// TestDecide takes decisions in the right form, and no others.
func TestDecide(t *testing.T) {
	var asked string
	s := start(t, Options{Scan: scanOf(nil), Decide: func(_ context.Context, ids []message.ID, action message.DoubtAction) (Decision, error) {
		asked += fmt.Sprintf("%v %v;", action, ids)
		if len(ids) == 2 {
			return Decision{}, errors.New("the disk cannot be read")
		}
		return Decision{Action: action.String(), Messages: 1, Recipients: 2, Unknown: []string{"0000000000001"}}, nil
	}})
	for _, c := range []struct {
		kind, body string
		status     int
		has        string
	}{
		{"application/json", `{"action":"retry","ids":["0000000000001"]}`, 200, `{"action":"retry","messages":1,"recipients":2,"unknown":["0000000000001"]}`},
		{"Application/JSON; charset=utf-8", `{"action":"give-up","all":true}`, 200, `"give-up"`},
		{"application/json", `{"action":"retry","ids":["0000000000001","0000000000002"]}`, 500, "the disk cannot be read"},
		{"text/plain", `{"action":"give-up","all":true}`, 415, "application/json"}, // as a page in a browser could send it
		{"", `{"action":"give-up","all":true}`, 415, "application/json"},
		{"application/json", `{"action":"wait","all":true}`, 400, "want retry or give-up"},
		{"application/json", `{"action":"","all":true}`, 400, "want retry or give-up"},
		{"application/json", `{"action":"retry"}`, 400, "want ids"},
		{"application/json", `{"action":"retry","all":true,"ids":["0000000000001"]}`, 400, "want ids"},
		{"application/json", `{"action":"retry","ids":["1"]}`, 400, "not a message id"},
		{"application/json", `{"action":"retry","all":true,"force":1}`, 400, "force"},
		{"application/json", `{"action":"retry","ids":["` + strings.Repeat("0", maxDecision) + `"]}`, 400, "too large"},
		{"application/json", `[`, 400, "body"},
	} {
		res, err := http.Post("http://"+s.Addr().String()+"/v1/queue/in-doubt", c.kind, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status || !strings.Contains(string(body), c.has) {
			t.Errorf("%.100s: %d %s, %v, want %d %s", c.body, res.StatusCode, body, err, c.status, c.has)
		}
	}
	for _, field := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"} { // a proxy on this machine speaks for others
		q, err := http.NewRequest("POST", "http://"+s.Addr().String()+"/v1/queue/in-doubt", strings.NewReader(`{"action":"retry","all":true}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		q.Header.Set(field, "192.0.2.1")
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		if res.Body.Close(); res.StatusCode != 403 {
			t.Errorf("a decision with %s: %d", field, res.StatusCode)
		}
	}
	if want := "retry [0000000000001];give-up [];retry [0000000000001 0000000000002];"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
}
