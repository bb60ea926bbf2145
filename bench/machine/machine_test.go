package machine

import (
	"strings"
	"testing"
)

func TestThisMachine(t *testing.T) {
	r := Begin().End()
	if r.Cores < 1 || r.Memory < 1<<20 || r.Kernel == "" || r.Began.IsZero() || r.String() == "" || r.Quiet() == "" {
		t.Errorf("%+v", r)
	}
	if r.Busy < 0 || r.Busy > 1 || r.Steal < 0 || r.Steal > 1 {
		t.Errorf("%+v", r)
	}
}

func TestTicks(t *testing.T) {
	for page, want := range map[string]ticks{
		"cpu  10 1 5 100 7 2 3 9 4 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n": {all: 137, busy: 21, steal: 9, wait: 7},
		"cpu  10 1 5 100 7 2 3 x 4 0\n":                           {},
		"cpu  10 1 5\n":                                           {},
		"":                                                        {},
	} {
		if got := readTicks([]byte(page)); got != want {
			t.Errorf("%q: %+v, want %+v", page, got, want)
		}
	}
	if got := readLoad([]byte("1.25 2.00 3.00 1/200 4\n")); got != 1.25 {
		t.Error(got)
	}
}

func TestNotes(t *testing.T) {
	quiet := Report{Cores: 2, Steal: 0.01, Load: [2]float64{0.9, 3}}
	if notes := quiet.Notes(); notes != nil {
		t.Error(notes)
	}
	noisy := Report{Cores: 2, Steal: 0.05, Load: [2]float64{4, 3}}
	notes := strings.Join(noisy.Notes(), "\n")
	for _, want := range []string{"5.0% of the CPU time", "4.0 on 2 cores"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not in %s", want, notes)
		}
	}
}
