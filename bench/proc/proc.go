// Package proc reads from /proc what a process costs: CPU time, memory and what it writes. Linux only.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// userHertz is the unit of the times in /proc/<pid>/stat: 1/100 s on every Linux architecture that Go runs on (proc(5), USER_HZ).
const userHertz = 100

// BusyLimit is the share of a core from which on a generator or a sink, whose loops have a core each at most, may be what limits the figures.
const BusyLimit = 0.85

// Usage is what a process has used until now.
type Usage struct {
	CPU     time.Duration `json:"cpu_ns"`         // user and system time, all threads; steps of 10 ms when read of another process
	RSS     int64         `json:"rss_bytes"`      // resident now
	RSSPeak int64         `json:"rss_peak_bytes"` // the most it ever was
	Written int64         `json:"written_bytes"`  // to disks, what still waits in the page cache included; 0 where the kernel does not tell

	waited time.Duration // CPU time of children that have ended and were waited for, and of theirs
}

// Read returns the usage of the process with that id.
func Read(pid int) (Usage, error) {
	var u Usage
	fields, err := statFields(pid)
	if err != nil {
		return u, err
	}
	if u.CPU, err = ticks(fields[11:13]); err == nil { // utime and stime, fields 14 and 15 of proc(5)
		u.waited, err = ticks(fields[13:15]) // cutime and cstime
	}
	if err != nil {
		return u, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, fmt.Errorf("usage of process %d: %w", pid, err)
	}
	u.RSS, u.RSSPeak = kilobytes(status, "VmRSS:"), kilobytes(status, "VmHWM:")
	if io, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil { // some kernels do not have it, and that of another user is not for us
		u.Written = number(io, "write_bytes:")
	}
	return u, nil
}

// kilobytes finds a line such as "VmRSS:   1234 kB" and returns it in bytes, or 0.
func kilobytes(status []byte, name string) int64 { return number(status, name) << 10 }

// number finds a line that begins with the name and returns the number behind it, or 0.
func number(page []byte, name string) int64 {
	for line := range bytes.Lines(page) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			if fields := bytes.Fields(rest); len(fields) > 0 {
				n, _ := strconv.ParseInt(string(fields[0]), 10, 64)
				return n
			}
		}
	}
	return 0
}

// Self returns the usage of this process, its CPU time to the microsecond.
func Self() Usage {
	u, _ := Read(os.Getpid())
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		u.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	return u
}

// BusyRow is a line of a report for people: the share of a core that each loop of a process took, and whether that may be the limit.
func BusyRow(share float64) []string {
	row := []string{"share of a core", fmt.Sprintf("%.0f%%", 100*share)}
	if share > BusyLimit {
		row[1] += ": may be the limit"
	}
	return row
}
