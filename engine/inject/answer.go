package inject

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// answer writes what became of the request.
func (c *call) answer(status int, v any) {
	c.stats.answers[status].Inc()
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	e := json.NewEncoder(c.w)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		c.o.Log.Debug("an HTTP client went away", "error", err)
	}
}

// Answer is that of POST /v1/messages to one letter.
type Answer struct {
	Accepted   int               `json:"accepted"` // recipients
	Failed     int               `json:"failed"`   // likewise
	Error      string            `json:"error,omitempty"`
	Recipients []RecipientAnswer `json:"recipients,omitempty"`
}

// RecipientAnswer is what became of one recipient.
type RecipientAnswer struct {
	Email     string `json:"email"`
	ID        string `json:"id,omitempty"`        // of the message
	Repeated  bool   `json:"repeated,omitempty"`  // the message was queued before, under the same key
	Error     string `json:"error,omitempty"`     // why it was not queued
	Temporary bool   `json:"temporary,omitempty"` // another try may help
}

// BatchAnswer is that to several letters.
type BatchAnswer struct {
	Accepted int      `json:"accepted"`
	Failed   int      `json:"failed"`
	Items    []Answer `json:"items"`
}

// posted is a letter whose messages are in a batch.
type posted struct {
	outcomes []outcome
	err      error
}

// account makes the answer for a letter from the results of the batch. why gathers the errors.
func (p *posted) account(rs []Result, why *verdict) Answer {
	if p.err != nil {
		why.note(p.err)
		return Answer{Failed: max(len(p.outcomes), 1), Error: p.err.Error()}
	}
	a := Answer{Recipients: make([]RecipientAnswer, len(p.outcomes))}
	for i := range p.outcomes {
		o, r := &p.outcomes[i], &a.Recipients[i]
		r.Email = o.email
		err := o.err
		if err == nil {
			err = rs[o.index].Err
		}
		if err != nil {
			a.Failed++
			r.Error, r.Temporary = err.Error(), why.note(err)
			continue
		}
		a.Accepted++
		r.ID, r.Repeated = rs[o.index].ID.String(), rs[o.index].Repeated
	}
	return a
}

// verdict is the status of an answer of which nothing was accepted: the gravest of its errors that another try may mend, or else the first.
type verdict struct {
	status int
	retry  time.Duration
	text   string
}

// note takes an error into account, and says whether another try may mend it.
func (v *verdict) note(err error) (temporary bool) {
	status, retry := http.StatusBadRequest, time.Duration(0)
	var d *Denied
	switch {
	case errors.Is(err, ErrBusy), errors.Is(err, ErrFull), errors.Is(err, ErrStopping), errors.Is(err, ErrUnknown), errors.Is(err, ErrStore),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status, retry = http.StatusServiceUnavailable, retryLater
	case errors.Is(err, errQuota):
		status, retry = http.StatusTooManyRequests, retryQuota
	case errors.As(err, &d):
		status = http.StatusForbidden
	}
	if v.status == 0 || retry > 0 && v.status < status {
		v.status, v.retry, v.text = status, retry, err.Error()
	}
	return retry > 0
}

// settle is the status of the answer.
func (v *verdict) settle(accepted int) int {
	if accepted > 0 || v.status == 0 {
		return http.StatusOK
	}
	return v.status
}
