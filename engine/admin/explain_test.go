package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"mailrace/engine/explain"
)

// TestExplain asks for one address, and nothing else.
func TestExplain(t *testing.T) {
	s := start(t, Options{Explain: func(ctx context.Context, address string) (*explain.Report, error) {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("it may take for ever")
		}
		switch address {
		case "bad":
			return nil, fmt.Errorf("%w: bad", explain.ErrAddress)
		case "worse":
			return nil, errors.New("worse")
		}
		return &explain.Report{Address: explain.Address{Given: address}}, nil
	}})
	for query, want := range map[string]struct {
		status int
		body   string
	}{
		"?address=a%2Bb@c.example": {http.StatusOK, `"given":"a+b@c.example"`},
		"?address=bad":             {http.StatusBadRequest, `{"error":"not an address: bad"}`},
		"?address=worse":           {http.StatusInternalServerError, `"worse"`},
		"":                         {http.StatusBadRequest, "want the parameter address"},
		"?address=a&address=b":     {http.StatusBadRequest, "want the parameter address"},
		"?address=a&limit=1":       {http.StatusBadRequest, "want the parameter address"},
	} {
		resp, body := request(t, s, http.MethodGet, "/v1/explain"+query, "localhost")
		if resp.StatusCode != want.status || !strings.Contains(body, want.body) {
			t.Errorf("%q: %s %s", query, resp.Status, body)
		}
	}
	if resp, _ := request(t, s, http.MethodGet, "/v1/explain?address=a@b", "evil.example"); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Error(resp.Status)
	}
	if resp, _ := request(t, start(t, Options{}), http.MethodGet, "/v1/explain?address=a@b", "localhost"); resp.StatusCode != http.StatusNotFound {
		t.Error(resp.Status)
	}
}
