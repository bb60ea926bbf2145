// Package admin is the HTTP service of a node: metrics, health, a look into the queue, and the way that mail would go. It knows the node by the functions it is given.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"mailrace/engine/explain"
	"mailrace/proto/message"
)

const (
	// drainTimeout is how long Close waits for requests under way.
	drainTimeout = 5 * time.Second
	// headerBytes bounds the header of a request.
	headerBytes = 16 << 10
	// scans is how many looks into the queue run at a time: each reads the disk.
	scans = 2
)

// Options are what the service serves.
type Options struct {
	Address string // host:port
	// Names are those by which the service may be called, in lower case, besides IP addresses, localhost and the name in Address.
	Names []string
	// ProxyFrom are proxies, whose connections may begin with a PROXY header that tells the address of the client.
	ProxyFrom []netip.Prefix
	// Ready says why the node should get no traffic, or nil. Any goroutine.
	Ready func() error
	// Scan calls fn with each message of a consistent snapshot of the queue until fn returns false. Any goroutine; may block.
	Scan func(fn func(*message.Message) bool) error
	// Decide carries out what an operator decides about messages with recipients that wait for it; ids nil = all. Any goroutine; may block.
	// nil = nobody decides here.
	Decide func(ctx context.Context, ids []message.ID, action message.DoubtAction) (Decision, error)
	// Explain tells which way mail for an address would go. Any goroutine; may block. nil = nobody tells.
	Explain func(ctx context.Context, address string) (*explain.Report, error)
	// Inject serves InjectPaths, within limits of its own.
	Inject      http.Handler
	InjectPaths []string
	Log         *slog.Logger
}

// Server is the running service.
type Server struct {
	ready    func() error
	scan     func(fn func(*message.Message) bool) error
	decider  func(context.Context, []message.ID, message.DoubtAction) (Decision, error)
	scanning chan struct{}
	names    []string

	explainer  func(context.Context, string) (*explain.Report, error)
	explaining chan struct{}

	listener net.Listener
	http     *http.Server
	log      *slog.Logger
	ended    chan error
	close    func() error
}

// Listen starts the service and returns when it listens.
func Listen(o Options) (*Server, error) {
	s := &Server{
		ready: o.Ready, scan: o.Scan, decider: o.Decide, log: o.Log, scanning: make(chan struct{}, scans), ended: make(chan error, 1),
		explainer: o.Explain, explaining: make(chan struct{}, explanations),
	}
	var err error
	if s.listener, err = net.Listen("tcp", o.Address); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	if name, _, err := net.SplitHostPort(o.Address); err == nil {
		s.names = append(slices.Clone(o.Names), strings.ToLower(name), "localhost")
	}
	s.listener = behindProxies(s.listener, o.ProxyFrom)
	s.http = &http.Server{
		Handler:           s.handler(&o),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.close = sync.OnceValue(s.shutdown)
	go func() { s.ended <- s.http.Serve(s.listener) }()
	return s, nil
}

// Addr is where the service listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close stops listening, lets requests under way end within drainTimeout, and returns when all is closed. Further calls do nothing.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	if e := <-s.ended; !errors.Is(e, http.ErrServerClosed) {
		err = e
	}
	return err
}

func (s *Server) handler(o *Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /v1/queue", s.queue)
	mux.HandleFunc("GET /v1/queue/in-doubt", s.inDoubt)
	if o.Explain != nil {
		mux.HandleFunc("GET /v1/explain", s.explain)
	}
	all := http.NewServeMux()
	if o.Decide != nil {
		all.HandleFunc("POST /v1/queue/in-doubt", s.decide)
	}
	all.Handle("/", http.MaxBytesHandler(mux, headerBytes))
	for _, path := range o.InjectPaths {
		all.Handle(path, o.Inject)
	}
	return s.guard(all)
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "/metrics\n/healthz\n/readyz\nPOST /v1/messages\nPOST /api/inject/v1\n/v1/queue?limit=100&domain=example.com&state=deferred\n/v1/queue/in-doubt\n/v1/explain?address=user@example.com\n")
}

// metrics answers with the figures of the node and of its process, as Prometheus text.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	metrics.WritePrometheus(w, true)
}

// healthz: the process lives and answers.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }

// readyz: the node takes mail.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

// queue lists messages of the queue: parameters of Filter.
func (s *Server) queue(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		s.fail(w, http.StatusBadRequest, err)
		return
	}
	s.list(w, r, f)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, f Filter) {
	if !s.enter(r.Context()) {
		return
	}
	defer s.leave()
	list, err := List(f, func(fn func(*message.Message) bool) error {
		return s.scan(func(m *message.Message) bool { return r.Context().Err() == nil && fn(m) })
	})
	if err != nil {
		s.log.Error("the queue cannot be listed", "err", err)
		s.fail(w, http.StatusInternalServerError, err)
		return
	}
	s.answer(w, http.StatusOK, list)
}

func (s *Server) fail(w http.ResponseWriter, status int, err error) {
	s.answer(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.log.Debug("an HTTP client went away", "err", err)
	}
}
