package inject

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"
)

// memoryFactor is how much memory a request may take while it is worked on, in octets of its body: the body itself and what is decoded of it.
const memoryFactor = 3

// form is what a request holds.
type form uint8

const (
	formJSON form = iota
	formLines
	formMessage
)

// formOf reads the type of the content.
func formOf(contentType string, message bool) (form, *fault) {
	kind, params, err := parseType(contentType)
	switch charset := strings.ToLower(params["charset"]); {
	case err == nil && charset != "" && charset != "utf-8" && charset != "us-ascii":
	case kind == "application/json":
		return formJSON, nil
	case kind == "application/x-ndjson" || kind == "application/ndjson" || kind == "application/jsonl":
		return formLines, nil
	case kind == "message/rfc822" && message:
		return formMessage, nil
	}
	want := "application/json or application/x-ndjson"
	if message {
		want = "application/json, application/x-ndjson or message/rfc822"
	}
	return 0, &fault{status: http.StatusUnsupportedMediaType, text: fmt.Sprintf("Content-Type %s: want %s, in UTF-8", excerpt(contentType), want)}
}

// body is the content of a request, in memory that is counted.
type body struct {
	b     []byte
	h     *Handler
	taken int64
}

// grow takes memory for so many octets.
func (b *body) grow(octets int) bool {
	more := int64(octets)*memoryFactor - b.taken
	if !b.h.o.Budget.Take(more) {
		return false
	}
	b.taken += more
	next := make([]byte, len(b.b), octets)
	copy(next, b.b)
	b.b = next
	return true
}

// free gives the memory back.
func (b *body) free() {
	b.h.o.Budget.Give(b.taken)
	b.b, b.taken = nil, 0
}

// read reads the body of a request, unpacked, within the limits of size and time. free must be called in any case.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (b *body, f *fault) {
	b = &body{h: h}
	limit := h.o.MaxBody
	tooLarge := &fault{status: http.StatusRequestEntityTooLarge, text: fmt.Sprintf("the body is larger than %d octets ([admin] inject_size, and at most a sixth of [engine] memory): send smaller batches", limit)}
	if r.ContentLength > limit {
		return b, tooLarge
	}
	var from io.Reader = http.MaxBytesReader(w, r.Body, limit)
	switch encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(from)
		if err != nil {
			return b, readFault(err, tooLarge)
		}
		from = z
	default:
		w.Header().Set("Accept-Encoding", "gzip")
		return b, &fault{status: http.StatusUnsupportedMediaType, text: fmt.Sprintf("Content-Encoding %s: want gzip, or none", excerpt(encoding))}
	}
	size := 16 << 10
	if r.ContentLength > 0 {
		size = int(r.ContentLength) + 1 // to see the end without growing
	}
	for {
		if len(b.b) == cap(b.b) && !b.grow(int(min(int64(max(size, 2*len(b.b))), limit+1))) {
			h.stats.noMemory.Inc()
			return b, &fault{status: http.StatusServiceUnavailable, text: ErrBusy.Error(), retry: retryLater}
		}
		n, err := from.Read(b.b[len(b.b):cap(b.b)])
		b.b = b.b[:len(b.b)+n]
		if int64(len(b.b)) > limit {
			return b, tooLarge
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return b, readFault(err, tooLarge)
		}
	}
	return b, nil
}

// readFault is the answer to a body that does not come, or cannot be unpacked.
func readFault(err error, tooLarge *fault) *fault {
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &fault{status: http.StatusRequestTimeout, text: "the body did not come in time ([admin] inject_timeout)"}
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return &fault{status: http.StatusBadRequest, text: "the body is not gzip, as Content-Encoding says"}
	}
	return &fault{status: http.StatusBadRequest, text: fmt.Sprintf("the body cannot be read: %v", err)}
}

// checkText refuses what is no UTF-8: a decoder of JSON would put other characters in place.
func checkText(b []byte) *fault {
	if utf8.Valid(b) {
		return nil
	}
	return &fault{status: http.StatusBadRequest, text: "the body is not UTF-8: send other encodings as base64"}
}
