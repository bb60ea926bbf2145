package egress

import (
	"slices"
	"testing"

	"mailrace/router"
)

// TestAccepted: what this node does not put on the wire stands before what the peer refused, wherever the recipients stand.
func TestAccepted(t *testing.T) {
	for _, test := range []struct{ rejected, want []int }{
		{nil, []int{0, 1, 2, 3, 4}},
		{[]int{0, 4}, []int{1, 2, 3}},
		{[]int{3, 0, 1}, []int{2, 4}},
		{[]int{4, 3, 2, 1, 0}, nil},
	} {
		d := &delivery{tx: &router.Transaction{Recipients: []int{10, 11, 12, 13, 14}}}
		for _, place := range test.rejected {
			d.rejected = append(d.rejected, rejection{place: place})
		}
		if got := slices.Collect(d.accepted()); !slices.Equal(got, test.want) {
			t.Errorf("%v were refused: %v remain, want %v", test.rejected, got, test.want)
		}
	}
	d := &delivery{tx: &router.Transaction{Recipients: make([]int, 100)}}
	if n := testing.AllocsPerRun(100, func() {
		for range d.accepted() {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
