package event

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

const (
	// flushDelay is the longest that a record waits for the writer goroutine.
	flushDelay = 100 * time.Millisecond
	// flushBytes waiting in one Writer wake the writer goroutine at once.
	flushBytes = 128 << 10
	// bufferBytes is the default of Options.Buffer.
	bufferBytes = 16 << 20
	// complainEvery keeps a disk in trouble from filling the node's log too.
	complainEvery = 10 * time.Second
)

// Options say where records go.
type Options struct {
	Path    string // file; "-" = standard output; "off" = nowhere
	MaxSize int64  // bytes after which the file is rotated; 0 = never
	Keep    int    // rotated files kept, path.1 the newest; with 0 a full file is begun anew
	Writers int    // how many there are: one per loop, and one for each other goroutine that records often
	Buffer  int    // bytes that may wait in all writers together, 0 = 16 MiB; one writer's share more is on its way to the file
	Log     *slog.Logger

	sink sink // tests put a disk here that they can stop
}

// sink takes whole lines. It is used by the writer goroutine only.
type sink interface {
	Write(lines []byte) error
	Close() error
}

var (
	recordsTotal = func() (c [types]*metrics.Counter) {
		for t := range types {
			c[t] = metrics.NewCounter(fmt.Sprintf(`mailrace_event_records_total{type=%q}`, t))
		}
		return c
	}()
	droppedTotal = metrics.NewCounter("mailrace_event_records_dropped_total")
	writtenBytes = metrics.NewCounter("mailrace_event_written_bytes_total")
	writeErrors  = metrics.NewCounter("mailrace_event_write_errors_total")
)

// Log carries records to a file. Each loop appends to the buffer of its own Writer; one goroutine takes the buffers away whole and
// writes them, at the latest flushDelay after the first record in them. When the disk does not keep up, the buffers fill to their bound
// and further records are dropped, counted, and reported in the log itself by a line of type "loss": mail never waits for its log.
type Log struct {
	log     *slog.Logger
	sink    sink // nil = records go nowhere
	writers []*Writer

	waiting chan struct{}   // a buffer is no longer empty
	full    chan struct{}   // a buffer should not wait
	syncs   chan chan error // Sync
	done    chan struct{}   // closed by Close
	ended   chan error      // what the writer goroutine ended with
	once    sync.Once
	closed  error

	// Of the writer goroutine:
	lost       int64     // dropped, not yet reported by a line
	silent     int64     // dropped, not yet complained of to the node's log
	complained time.Time // last complaint
}

// Open opens the log. Path "off" gives a log that only counts.
func Open(o Options) (*Log, error) {
	l := &Log{
		log: o.Log, sink: o.sink, writers: make([]*Writer, max(o.Writers, 1)),
		waiting: make(chan struct{}, 1), full: make(chan struct{}, 1), syncs: make(chan chan error),
		done: make(chan struct{}), ended: make(chan error, 1),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.sink == nil {
		switch o.Path {
		case "off":
		case "-":
			l.sink = stream{os.Stdout}
		default:
			f, err := openFile(o.Path, o.MaxSize, o.Keep)
			if err != nil {
				return nil, fmt.Errorf("event log: %w", err)
			}
			l.sink = f
		}
	}
	buffer := o.Buffer
	if buffer == 0 {
		buffer = bufferBytes
	}
	for i := range l.writers {
		l.writers[i] = &Writer{log: l, limit: max(buffer/len(l.writers), lineMax)}
	}
	if l.sink == nil {
		l.ended <- nil
	} else {
		go l.run()
	}
	return l, nil
}

// Writer returns the i-th writer, 0 <= i < Options.Writers.
func (l *Log) Writer(i int) *Writer { return l.writers[i] }

// Sync returns when everything recorded before the call has been handed to the operating system, or could not be. Not on a loop.
func (l *Log) Sync() error {
	if l.sink == nil {
		return nil
	}
	answer := make(chan error, 1)
	select {
	case l.syncs <- answer:
		return <-answer
	case <-l.done:
		return errors.New("event log is closed")
	}
}

// Close writes what waits and closes the file. Records made after it are lost.
func (l *Log) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.closed = <-l.ended
	})
	return l.closed
}

// Writer is where one loop records. Any goroutine may use it, but those that share one contend for a lock.
type Writer struct {
	log   *Log
	limit int

	mu      sync.Mutex // held by the writer goroutine for the exchange of two slices only
	buf     []byte
	dropped int64
	_       [64]byte // writers of different loops share no cache line
}

// Record adds a record to the log. It copies what it needs, does no I/O and never blocks.
func (w *Writer) Record(r *Record) {
	recordsTotal[r.Type].Inc()
	l := w.log
	if l.sink == nil {
		return
	}
	w.mu.Lock()
	before := len(w.buf)
	if before+lineMax > w.limit && before > 0 {
		w.dropped++
		w.mu.Unlock()
		droppedTotal.Inc()
		return
	}
	w.buf = r.Append(w.buf)
	after := len(w.buf)
	w.mu.Unlock()
	if before == 0 {
		signal(l.waiting)
	}
	if before < flushBytes && after >= flushBytes {
		signal(l.full)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
