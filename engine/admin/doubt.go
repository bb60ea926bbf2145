package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"mailrace/proto/message"
)

// maxDecision bounds the body of a decision, in octets: some 60,000 ids.
const maxDecision = 1 << 20

// Doubt is a delivery that may have happened.
type Doubt struct {
	Began   time.Time `json:"began"`          // when the message went out
	Peer    string    `json:"peer,omitempty"` // address and port of the host that it went to
	Attempt int       `json:"attempt"`
	Times   int       `json:"times"`  // deliveries that came to be in doubt: as many copies may be there
	Cause   string    `json:"cause"`  // "crash" or "connection"
	Action  string    `json:"action"` // "retry", "wait" or "give-up"
}

// doubtOf describes the doubt about a recipient; nil = there is none.
func doubtOf(r *message.Recipient) *Doubt {
	d := r.Doubt
	if d == nil {
		return nil
	}
	listed := &Doubt{Began: moment(d.Began), Attempt: int(d.Attempt), Times: int(d.Times), Cause: d.Cause.String(), Action: d.Action.String()}
	if d.Peer.IsValid() {
		listed.Peer = d.Peer.String()
	}
	return listed
}

// Decide is what POST /v1/queue/in-doubt asks for.
type Decide struct {
	Action string   `json:"action"` // "retry" or "give-up"
	IDs    []string `json:"ids,omitempty"`
	All    bool     `json:"all,omitempty"` // instead of IDs
}

// Decision is what became of it.
type Decision struct {
	Action     string   `json:"action"`
	Messages   int      `json:"messages"`
	Recipients int      `json:"recipients"`
	Unknown    []string `json:"unknown"` // ids of which nothing waits
}

// inDoubt lists recipients that a delivery may have reached: parameters of Filter.
func (s *Server) inDoubt(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		s.fail(w, http.StatusBadRequest, err)
		return
	}
	f.InDoubt = true
	s.list(w, r, f)
}

// decide takes an operator's decision about what waits for it, from this machine alone.
func (s *Server) decide(w http.ResponseWriter, r *http.Request) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() || forwarded(r) {
		s.fail(w, http.StatusForbidden, errors.New("decisions are taken from this machine only: run mailrace queue in-doubt there"))
		return
	}
	// What a page in a browser sends without asking has another type, and what it asks for is not granted.
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
		s.fail(w, http.StatusUnsupportedMediaType, errors.New("want Content-Type: application/json"))
		return
	}
	ids, action, err := parseDecision(http.MaxBytesReader(w, r.Body, maxDecision))
	if err != nil {
		s.fail(w, http.StatusBadRequest, err)
		return
	}
	if !s.enter(r.Context()) {
		return
	}
	defer s.leave()
	done, err := s.decider(r.Context(), ids, action)
	if err != nil {
		s.log.Error("a decision cannot be carried out", "err", err)
		s.fail(w, http.StatusInternalServerError, err)
		return
	}
	s.answer(w, http.StatusOK, done)
}

// parseDecision reads a Decide. No ids stand for all.
func parseDecision(body io.Reader) (ids []message.ID, action message.DoubtAction, err error) {
	var d Decide
	in := json.NewDecoder(body)
	in.DisallowUnknownFields()
	if err := in.Decode(&d); err != nil {
		return nil, 0, fmt.Errorf("body: %w", err)
	}
	action, ok := message.ParseDoubtAction(d.Action)
	if !ok || action == message.DoubtWait {
		return nil, 0, fmt.Errorf("action: %q: want retry or give-up", d.Action)
	}
	if d.All != (len(d.IDs) == 0) {
		return nil, 0, errors.New("want ids, or all = true")
	}
	for _, text := range d.IDs {
		id, err := message.ParseID(text)
		if err != nil {
			return nil, 0, fmt.Errorf("ids: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, action, nil
}

// enter waits for a turn to read the queue, and leave gives it back.
func (s *Server) enter(ctx context.Context) bool {
	select {
	case s.scanning <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *Server) leave() { <-s.scanning }
