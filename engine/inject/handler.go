// Package inject takes mail over HTTP: POST /v1/messages, in a form of its own, and POST /api/inject/v1, in KumoMTA's. A request holds one
// letter or many; each letter becomes messages, which are built here, go into the queue as a batch, and are answered for when all are on
// stable storage. It knows the node by the functions it is given.
//
//	handler  who may, how much at a time, what is answered
//	body     reads a request within its limits
//	native, kumo  the two forms → letters
//	letter   content and recipients → messages: shared where the content is the same
//	template, build, entity, raw  what a message is made of
package inject

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/proto/message"
)

// What a client is told to wait, where trying again will help.
const (
	retrySoon  = time.Second
	retryLater = 5 * time.Second
	retryQuota = time.Minute
)

// Options are what the handler needs of the node.
type Options struct {
	From []netip.Prefix // networks whose clients may inject
	// Password finds out who somebody at an address is; nil = nobody may inject by name. ErrCredentials = refused
	Password func(ctx context.Context, name, password string, at netip.Addr) (*User, error)

	MaxBody     int64 // octets of a request, unpacked
	MaxMessage  int   // octets of a message
	Recipients  int   // of one message
	Requests    int   // that are worked on at a time
	Timeout     time.Duration
	HoldMax     time.Duration // for how long a message may be held
	PriorityMax int8

	Budget  *message.Budget
	Ready   func() error // why the node takes no mail, or nil
	Begin   func() Batch
	Metrics *metrics.Set
	Log     *slog.Logger
	Now     func() time.Time // nil = time.Now
}

// Handler serves both forms. Any goroutine.
type Handler struct {
	o        Options
	slots    chan struct{}
	origins  *http.CrossOriginProtection
	refusals refusals
	mux      *http.ServeMux
	stats    struct {
		noMemory, refused *metrics.Counter
		answers           map[int]*metrics.Counter
	}
}

// statuses are all that are answered.
var statuses = []int{200, 400, 401, 403, 405, 408, 413, 415, 429, 503}

// New makes a handler.
func New(o Options) *Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.MaxBody = min(o.MaxBody, o.Budget.Limit()/(2*memoryFactor)) // what could never be taken is not to be tried again
	h := &Handler{o: o, slots: make(chan struct{}, o.Requests), origins: http.NewCrossOriginProtection(), mux: http.NewServeMux()}
	h.stats.noMemory = o.Metrics.GetOrCreateCounter(`mailrace_ingress_refused_total{reason="memory"}`)
	h.stats.answers = map[int]*metrics.Counter{}
	for _, status := range statuses {
		h.stats.answers[status] = o.Metrics.NewCounter(fmt.Sprintf(`mailrace_inject_requests_total{status="%d"}`, status))
	}
	h.mux.Handle("/v1/messages", h.serve(h.native))
	h.mux.Handle("/api/inject/v1", h.serve(h.kumo))
	return h
}

// Paths are those that the handler serves.
var Paths = []string{"/v1/messages", "/api/inject/v1"}

// ServeHTTP serves Paths.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// call is a request that was admitted.
type call struct {
	*Handler
	ctx  context.Context
	w    http.ResponseWriter
	r    *http.Request
	by   *sender
	body []byte
	form form
}

// serve admits a request, reads it, and has it worked on.
func (h *Handler) serve(work func(c *call)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), h.o.Timeout)
		defer cancel()
		c := &call{Handler: h, ctx: ctx, w: w, r: r}
		if f := c.admit(); f != nil {
			c.fail(f)
			return
		}
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		default:
			c.fail(&fault{status: http.StatusTooManyRequests, text: "too many injections at a time ([admin] inject_requests), try again", retry: retrySoon})
			return
		}
		b, f := h.read(w, r)
		defer b.free()
		if f == nil && c.form != formMessage {
			f = checkText(b.b)
		}
		if f != nil {
			c.fail(f)
			return
		}
		c.body = b.b
		work(c)
	})
}

// admit judges a request before its body.
func (c *call) admit() (f *fault) {
	if c.r.Method != http.MethodPost {
		c.w.Header().Set("Allow", http.MethodPost)
		return &fault{status: http.StatusMethodNotAllowed, text: "want POST"}
	}
	if err := c.origins.Check(c.r); err != nil { // a page in the browser of somebody whose address may inject
		return &fault{status: http.StatusForbidden, text: err.Error()}
	}
	if err := c.o.Ready(); err != nil {
		return &fault{status: http.StatusServiceUnavailable, text: err.Error(), retry: retryLater}
	}
	if c.o.Budget.Full() {
		c.stats.noMemory.Inc()
		return &fault{status: http.StatusServiceUnavailable, text: ErrBusy.Error(), retry: retryLater}
	}
	control := http.NewResponseController(c.w)
	now := time.Now() // of the sockets
	if err := control.SetReadDeadline(now.Add(c.o.Timeout)); err != nil {
		c.o.Log.Debug("an HTTP client without a deadline", "error", err)
	}
	if err := control.SetWriteDeadline(now.Add(c.o.Timeout + answerTime)); err != nil {
		c.o.Log.Debug("an HTTP client without a deadline", "error", err)
	}
	if c.by, f = c.Handler.admit(c.ctx, c.r); f != nil {
		return f
	}
	c.form, f = formOf(c.r.Header.Get("Content-Type"), c.r.URL.Path == Paths[0])
	return f
}

// answerTime is how long an answer may take to be read.
const answerTime = 30 * time.Second

// fault is why nothing of a request was done.
type fault struct {
	status int
	text   string
	retry  time.Duration // when to try again; 0 = not said
}

func (c *call) fail(f *fault) {
	h := c.w.Header()
	if f.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(f.retry/time.Second)))
	}
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="mailrace", charset="UTF-8"`)
	}
	c.answer(f.status, struct {
		Error string `json:"error"`
	}{f.text})
}
