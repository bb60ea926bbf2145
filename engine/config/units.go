package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// parseSize reads "1GiB", "10 MB", "512" as bytes.
func parseSize(s string) (int64, error) {
	digits := len(s) - len(strings.TrimLeft(s, "0123456789"))
	unit := strings.ToLower(strings.TrimLeft(s[digits:], " "))
	scale, ok := sizeUnits[unit]
	if digits == 0 || !ok {
		if _, short := sizeUnits[unit+"ib"]; digits > 0 && len(unit) == 1 && short {
			up := strings.ToUpper(unit)
			return 0, fmt.Errorf("%s is ambiguous: want %q (decimal) or %q (binary)", quote(s), s[:digits]+up+"B", s[:digits]+up+"iB")
		}
		return 0, fmt.Errorf(`%s is not a size: want a whole number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB, as in "10MB"`, quote(s))
	}
	n, err := strconv.ParseInt(s[:digits], 10, 64)
	if err != nil || n > math.MaxInt64/scale {
		return 0, fmt.Errorf("%s is too large: want less than 8388608TiB", quote(s))
	}
	return n * scale, nil
}

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// parseDuration reads "5m", "5d", "1h30m" and the like; every number is whole and carries a unit.
func parseDuration(s string) (time.Duration, error) {
	var total time.Duration
	for rest := s; ; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		tail := rest[digits:]
		letters := len(tail) - len(strings.TrimLeft(tail, "abcdefghijklmnopqrstuvwxyz"))
		if digits > 0 && tail == "" {
			return 0, fmt.Errorf("%s has no unit: want %q, %q or the like", quote(s), s+"s", s+"m")
		}
		unit, ok := durationUnits[tail[:letters]]
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if digits == 0 || !ok {
			return 0, fmt.Errorf(`%s is not a duration: want whole numbers with ms, s, m, h, d or w, as in "90s" or "1h30m"`, quote(s))
		}
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return 0, fmt.Errorf("%s is too long: want less than 292 years", quote(s))
		}
		total += time.Duration(n) * unit
		if rest = tail[letters:]; rest == "" {
			return total, nil
		}
	}
}

// formatDuration is the shortest form that parseDuration reads.
func formatDuration(d time.Duration) string {
	for _, u := range []string{"w", "d", "h", "m", "s"} {
		if unit := durationUnits[u]; d >= unit && d%unit == 0 {
			return strconv.FormatInt(int64(d/unit), 10) + u
		}
	}
	if d%time.Millisecond == 0 {
		return strconv.FormatInt(int64(d/time.Millisecond), 10) + "ms"
	}
	return d.String()
}

// formatSize is the shortest exact form that parseSize reads.
func formatSize(n int64) string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"} {
		if scale := sizeUnits[strings.ToLower(u)]; n >= scale && n%scale == 0 {
			return strconv.FormatInt(n/scale, 10) + u
		}
	}
	return strconv.FormatInt(n, 10)
}
