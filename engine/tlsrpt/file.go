package tlsrpt

import (
	"encoding/json"
	"fmt"
	"slices"

	"mailrace/engine/keep"
)

const (
	fileForm = 1
	fileMax  = 8 * bytesMost
)

// stored is what stands in the file.
type stored struct {
	Form int `json:"form"`
	state
}

// save replaces the file as a whole.
func (r *Reports) save() {
	r.saved = r.opts.Now()
	if r.opts.File == "" {
		r.dirty = false
		return
	}
	content, err := json.Marshal(stored{fileForm, r.state})
	if err == nil {
		err = keep.Write(r.opts.FS, r.opts.File, content)
	}
	if err != nil {
		r.opts.Log.Error("the counts for TLS reports cannot be kept for the next start", "file", r.opts.File, "error", err)
	}
	r.dirty = err != nil
}

// read takes what the file holds, within the bounds of what is counted.
func (r *Reports) read() error {
	if r.opts.File == "" {
		return nil
	}
	content, err := keep.Read(r.opts.FS, r.opts.File, fileMax)
	if content == nil || err != nil {
		return err
	}
	var f stored
	if err := json.Unmarshal(content, &f); err != nil {
		return err
	}
	if f.Form != fileForm {
		return fmt.Errorf("form %d is not known", f.Form)
	}
	r.state.begin(f.Day) // roll sees to days that are over, or still to come
	for domain, t := range f.Today {
		if t != nil && len(t.Results) <= policiesMost && r.state.take(t, weigh(content, len(f.Today)+len(f.Waiting))) {
			r.state.Today[domain] = t
		}
	}
	f.Waiting = slices.DeleteFunc(f.Waiting, func(p *pending) bool { return p == nil || len(p.Results) > policiesMost })
	for _, p := range f.Waiting {
		t := tally{}
		if r.state.take(&t, weigh(content, len(f.Today)+len(f.Waiting))) {
			p.bytes = t.bytes
			r.state.Waiting = append(r.state.Waiting, p)
		}
	}
	return nil
}

// weigh is what one of n entries of a file takes, on average.
func weigh(content []byte, n int) int { return len(content) / max(n, 1) }
