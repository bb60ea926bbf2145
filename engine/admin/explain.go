package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"mailrace/engine/explain"
)

const (
	// explanations is how many run at a time: each may ask DNS.
	explanations = 8
	// explainWait bounds one of them. It is below the time that a reply may take.
	explainWait = 30 * time.Second
)

// explain answers with the way that mail for an address would go: parameter address.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	address := query["address"]
	if len(query) != 1 || len(address) != 1 {
		s.fail(w, http.StatusBadRequest, fmt.Errorf("want the parameter address, once, as in /v1/explain?address=user@example.com"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainWait)
	defer cancel()
	select {
	case s.explaining <- struct{}{}:
		defer func() { <-s.explaining }()
	case <-ctx.Done():
		s.fail(w, http.StatusServiceUnavailable, errors.New("too many explanations are under way"))
		return
	}
	report, err := s.explainer(ctx, address[0])
	switch {
	case errors.Is(err, explain.ErrAddress):
		s.fail(w, http.StatusBadRequest, err)
	case err != nil:
		s.fail(w, http.StatusInternalServerError, err)
	default:
		s.answer(w, http.StatusOK, report)
	}
}
