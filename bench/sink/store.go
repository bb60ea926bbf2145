package sink

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// storedMessage is a message on its way into the store directory: <number>.eml is its content octet for octet, <number>.json its envelope.
// The .eml file appears last and whole. A nil one stores nothing.
type storedMessage struct {
	path     string // without suffix
	file     *os.File
	envelope Envelope
	err      error // the first write that failed
}

// Envelope is the form of the .json files in the store directory.
type Envelope struct {
	Client     string   `json:"client"` // address and port
	Hello      string   `json:"hello"`
	From       string   `json:"from"`
	Recipients []string `json:"recipients"`
}

// openFile opens the file that beginFile named, if any.
func (x *session) openFile() error {
	if x.file == nil {
		return nil
	}
	f, err := os.Create(x.file.path + ".tmp")
	if err != nil {
		return err
	}
	x.file.file = f
	return nil
}

// beginFile notes the envelope of a transaction whose MAIL is at hand.
func (x *session) beginFile() {
	if x.sink.opts.Store == "" {
		return
	}
	x.file = &storedMessage{
		path:     filepath.Join(x.sink.opts.Store, fmt.Sprintf("%09d", x.sink.stored.Add(1))),
		envelope: Envelope{Client: x.conn.Remote().String(), Hello: x.hello, From: string(x.sender)},
	}
}

func (m *storedMessage) recipient(path []byte) {
	if m != nil {
		m.envelope.Recipients = append(m.envelope.Recipients, string(path))
	}
}

func (m *storedMessage) write(p []byte) {
	if m != nil && m.err == nil {
		_, m.err = m.file.Write(p)
	}
}

func (m *storedMessage) commit() error {
	if m == nil {
		return nil
	}
	envelope, err := json.Marshal(m.envelope)
	if err = errors.Join(m.err, err, m.file.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(m.path+".json", append(envelope, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(m.path+".tmp", m.path+".eml")
}

func (m *storedMessage) abort() {
	if m != nil && m.file != nil {
		m.file.Close()
		os.Remove(m.file.Name())
	}
}
