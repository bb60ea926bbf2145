package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

// Tree returns the usage of processes and all that descend from them. CPU time includes that of descendants that have ended, as far as somebody waited for
// them: the kernel then adds it to that of who waited (getrusage(2), RUSAGE_CHILDREN). Where a process ignores SIGCHLD its children are nobody's, and what they
// used is missing; a Meter can have it. A process that is moved to another parent, since its own ended, is missing, too, unless it is one of the roots. RSSPeak
// is the sum of the peaks, which need not have been at the same time.
func Tree(roots ...int) (Usage, error) {
	var sum Usage
	parents, err := parents()
	if err != nil {
		return sum, err
	}
	for _, root := range roots {
		if _, ok := parents[root]; !ok {
			return sum, fmt.Errorf("usage of process %d: there is no such process", root)
		}
	}
	for pid := range parents {
		if !descends(pid, roots, parents) {
			continue
		}
		u, err := Read(pid)
		if err != nil && slices.Contains(roots, pid) {
			return sum, err
		}
		if err != nil {
			continue // it has ended since
		}
		u.CPU = max(u.CPU, ran(pid))
		sum.CPU, sum.RSS, sum.RSSPeak, sum.Written = sum.CPU+u.CPU+u.waited, sum.RSS+u.RSS, sum.RSSPeak+u.RSSPeak, sum.Written+u.Written
	}
	return sum, nil
}

// ran is the CPU time of a process of one thread, to the nanosecond: hundreds of processes that are read in steps of 10 ms lack seconds. 0 where there are
// more threads, of which some may have ended, or the kernel does not tell.
func ran(pid int) time.Duration {
	if threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)); err != nil || len(threads) != 1 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	fields := bytes.Fields(b)
	if err != nil || len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return time.Duration(n)
}

// descends says that a process is one of the roots or descends from one.
func descends(pid int, roots []int, parents map[int]int) bool {
	for range len(parents) { // a parent that was read late could lead in a circle
		if slices.Contains(roots, pid) {
			return true
		}
		parent, ok := parents[pid]
		if !ok {
			return false
		}
		pid = parent
	}
	return false
}

// parents are all processes that are there now, with the ids of their parents.
func parents() (map[int]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("processes: %w", err)
	}
	all := map[int]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if fields, err := statFields(pid); err == nil {
			all[pid], _ = strconv.Atoi(string(fields[1]))
		}
	}
	return all, nil
}

// errStat is returned for a stat line that is not one.
var errStat = errors.New("not a stat line")

// statFields are the fields of /proc/<pid>/stat behind the name, which stands in parentheses and may hold anything: the first is the third of proc(5), the
// state.
func statFields(pid int) ([][]byte, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return nil, fmt.Errorf("usage of process %d: %q: %w", pid, stat, errStat)
	}
	return fields, nil
}

// ticks sums fields that are times in the kernel's unit.
func ticks(fields [][]byte) (sum time.Duration, err error) {
	for _, f := range fields {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * time.Second / userHertz
	}
	return sum, nil
}
