package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// memoKey identifies a secret, and cannot be led back to it.
type memoKey = [sha256.Size]byte

// memo keeps answers that took long for a while, and has each question asked once, however many wait for its answer. Any goroutine may use it.
type memo[V any] struct {
	max int // answers kept

	mu      sync.Mutex
	kept    map[memoKey]kept[V]
	flights map[memoKey][]func(V, error)
}

type kept[V any] struct {
	value V
	until time.Time
}

func newMemo[V any](most int) *memo[V] {
	return &memo[V]{max: most, kept: map[memoKey]kept[V]{}, flights: map[memoKey][]func(V, error){}}
}

// get returns an answer that is kept.
func (m *memo[V]) get(key memoKey, now time.Time) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.kept[key]
	if !ok || !now.Before(k.until) {
		return v, false
	}
	return k.value, true
}

// join waits for the answer to a question. The first to do so has to find it, and call settle.
func (m *memo[V]) join(key memoKey, done func(V, error)) (first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, under := m.flights[key]
	m.flights[key] = append(m.flights[key], done)
	return !under
}

// settle answers all who wait. A good answer is kept until a time.
func (m *memo[V]) settle(key memoKey, v V, err error, now, until time.Time) {
	m.mu.Lock()
	waiting := m.flights[key]
	delete(m.flights, key)
	if err == nil && now.Before(until) {
		m.keep(key, kept[V]{v, until}, now)
	}
	m.mu.Unlock()
	for _, done := range waiting {
		done(v, err)
	}
}

// fewLooks is how many entries of a full table are looked at to make room: a flood must not make each step cost the whole table.
const fewLooks = 8

// keep makes room if need be, by a look at a few: what has expired goes, or else any.
func (m *memo[V]) keep(key memoKey, k kept[V], now time.Time) {
	looked := 0
	for old, is := range m.kept {
		if len(m.kept) < m.max {
			break
		}
		if looked++; looked >= fewLooks || !now.Before(is.until) {
			delete(m.kept, old)
		}
	}
	m.kept[key] = k
}

// clear forgets what is kept.
func (m *memo[V]) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.kept)
}
