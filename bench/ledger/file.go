package ledger

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
)

// fileMagic begins a file of tallies; gob records follow.
const fileMagic = "mailrace ledger 1\n"

type tallyRecord struct {
	Run        uint64
	Recipients int
	Cells      uint64
	Doubled    uint64
	Altered    uint64
	Beyond     uint64
	Reordered  uint64
	Pages      int // pageRecords that follow
}

type pageRecord struct {
	Number uint64
	Cells  []byte
}

// Save writes tallies into the file, replacing it at once when all is written.
func Save(path string, ts ...*Tally) error {
	f, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("save ledger: %w", err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	w.WriteString(fileMagic)
	enc := gob.NewEncoder(w)
	for _, t := range ts {
		if err := t.encode(enc); err != nil {
			return fmt.Errorf("save ledger: %w", err)
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("save ledger: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("save ledger: %w", err)
	}
	return nil
}

func (t *Tally) encode(enc *gob.Encoder) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := enc.Encode(tallyRecord{Run: uint64(t.run), Recipients: t.recipients, Cells: t.cells, Doubled: t.doubled,
		Altered: t.altered, Beyond: t.beyond, Reordered: t.reordered, Pages: len(t.pages)})
	for n, p := range t.pages {
		if err == nil {
			err = enc.Encode(pageRecord{Number: n, Cells: p[:]})
		}
	}
	return err
}

// Load reads the tallies that Save wrote.
func Load(path string) ([]*Tally, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load ledger: %w", err)
	}
	defer f.Close()
	r := bufio.NewReader(f)
	magic := make([]byte, len(fileMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != fileMagic {
		return nil, fmt.Errorf("load ledger: %s is none", path)
	}
	dec := gob.NewDecoder(r)
	var ts []*Tally
	for {
		t, err := decode(dec)
		if err == io.EOF {
			return ts, nil
		}
		if err != nil {
			return nil, fmt.Errorf("load ledger %s: %w", path, err)
		}
		ts = append(ts, t)
	}
}

func decode(dec *gob.Decoder) (*Tally, error) {
	var rec tallyRecord
	if err := dec.Decode(&rec); err != nil {
		return nil, err
	}
	t := NewTally(RunID(rec.Run), rec.Recipients)
	t.cells, t.doubled, t.altered, t.beyond, t.reordered = rec.Cells, rec.Doubled, rec.Altered, rec.Beyond, rec.Reordered
	for range rec.Pages {
		var pr pageRecord
		if err := dec.Decode(&pr); err != nil {
			return nil, fmt.Errorf("page: %w", err)
		}
		if len(pr.Cells) != pageCells {
			return nil, fmt.Errorf("page of %d cells, want %d", len(pr.Cells), pageCells)
		}
		p := new(page)
		copy(p[:], pr.Cells)
		t.pages[pr.Number] = p
	}
	return t, nil
}
