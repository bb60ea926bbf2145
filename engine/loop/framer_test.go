package loop

import (
	"bytes"
	"testing"
)

// borders takes wire bytes apart the plain way: it returns the offset of each border that lies in p.
func borders(p []byte) (ends []int) {
	for at := 0; len(p)-at >= recordHeader; {
		at += recordHeader + int(p[at+3])<<8 + int(p[at+4])
		if at > len(p) {
			break
		}
		ends = append(ends, at)
	}
	return ends
}

// FuzzFramer gives the framer wire bytes in pieces, with little or much room: it takes all of them, never bytes of two records at once, and is at a
// border where the plain way finds one.
func FuzzFramer(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x04abcd\x17\x03\x03\x00\x01z"), uint8(3), uint8(2))
	f.Add([]byte("\x17\x03\x03\x00\x00\x17\x03\x03\x00\x00\x15\x03\x03\xff\xff"), uint8(1), uint8(255)) // empty records, and one that is too large
	f.Add(append([]byte("\x17\x03\x03\x40\x00"), bytes.Repeat([]byte{'x'}, 1<<14)...), uint8(200), uint8(5))
	f.Fuzz(func(t *testing.T, wire []byte, piece, room uint8) {
		border := map[int]bool{0: true}
		for _, at := range borders(wire) {
			border[at] = true
		}
		var frame framer
		for taken := 0; taken < len(wire); {
			in := wire[taken:min(len(wire), taken+int(piece)+1)]
			for len(in) > 0 {
				n := frame.next(in, int(room)+1)
				if n < 1 || n > len(in) || n > int(room)+1 {
					t.Fatalf("took %d of %d bytes, room for %d", n, len(in), int(room)+1)
				}
				for at := taken + 1; at < taken+n; at++ {
					if border[at] {
						t.Fatalf("bytes of two records at once: %d to %d, border at %d", taken, taken+n, at)
					}
				}
				taken, in = taken+n, in[n:]
				if frame.atBorder() != border[taken] {
					t.Fatalf("at %d: border %v, want %v", taken, frame.atBorder(), border[taken])
				}
			}
		}
	})
}
