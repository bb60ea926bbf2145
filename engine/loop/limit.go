package loop

import (
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// limiter keeps connections within what the process may open. It must refuse early: gnet's loops end when accept(2) finds no
// descriptor.
type limiter struct {
	accepted, open int64 // most accepted connections, and most of all
	fd             int   // descriptors from here on are refused: they are handed out lowest first, so that many are in use

	nowAccepted, nowOpen            atomic.Int64
	total, refused, dialled, failed atomic.Int64
}

// Stats are counts of a group since its start.
type Stats struct {
	Accepted    int64 // connections that were accepted and not refused
	Refused     int64 // accepted connections closed because of a limit or by Listener.New
	Dialled     int64 // dials that led to a connection
	DialsFailed int64
	Open        int64 // connections open now, and dials under way
}

func (m *limiter) init(o *Options) error {
	files, err := fileLimit()
	if err != nil {
		return err
	}
	reserve := int64(o.ReserveFiles)
	if reserve <= 0 {
		reserve = max(256, files/8)
	}
	reserve = min(reserve, files/2)
	m.open = files - reserve
	m.fd = int(files - reserve/2)
	m.accepted = int64(o.MaxConnections)
	if most := m.open * 3 / 4; m.accepted <= 0 || m.accepted > most {
		if m.accepted > most {
			o.Log.Warn("fewer connections than configured: the process may not open enough files", "configured", m.accepted, "accepted", most, "files", files)
		}
		m.accepted = most
	}
	return nil
}

// fileLimit is how many files the process may open.
func fileLimit() (int64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int64(min(r.Cur, 1<<24)), nil
}

// Sockets is how many sockets beside its connections the process should open at most: a quarter of the reserve, half of which may be in use before the
// listeners rest. It is no more than most.
func Sockets(most int) (int, error) {
	files, err := fileLimit()
	return int(min(int64(most), max(8, min(max(256, files/8), files/2)/4))), err
}

// admit counts an accepted connection in, or refuses it.
func (m *limiter) admit(fd int) bool {
	if fd < m.fd && m.nowAccepted.Add(1) <= m.accepted {
		if m.acquire() {
			m.total.Add(1)
			return true
		}
		m.nowAccepted.Add(-1)
	} else if fd < m.fd {
		m.nowAccepted.Add(-1)
	}
	m.refused.Add(1)
	return false
}

// acquire counts any connection in, or refuses it.
func (m *limiter) acquire() bool {
	if m.nowOpen.Add(1) > m.open {
		m.nowOpen.Add(-1)
		return false
	}
	return true
}

// release counts a connection out.
func (m *limiter) release(accepted bool) {
	m.nowOpen.Add(-1)
	if accepted {
		m.nowAccepted.Add(-1)
	}
}

// Stats returns the counts.
func (g *Group) Stats() Stats {
	m := &g.limit
	return Stats{m.total.Load(), m.refused.Load(), m.dialled.Load(), m.failed.Load(), m.nowOpen.Load()}
}
