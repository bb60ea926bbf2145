package ingress

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Quota is what one client address, or one network, may do. 0 means no limit.
type Quota struct {
	Connections    int // open at once
	ConnectionRate int // new ones in an interval
	Messages       int // transactions begun in an interval
	Recipients     int // accepted in an interval; sessions side by side may go over it by what each has under way
	Errors         int // protocol errors and refused commands in an interval; beyond it no connection is taken
	AuthFailures   int // failed authentications in an interval; beyond it none is tried
}

// ClientLimits are the quotas of strangers. A client is an IPv4 address or the /64 of an IPv6 address, which is what one customer has; a
// network is a /24 of IPv4 or a /48 of IPv6.
type ClientLimits struct {
	Client, Network Quota
	Interval        time.Duration
}

const (
	clientWays   = 8  // entries of a bucket
	clientShards = 64 // locks of the table
	clientsMin   = 1 << 16
)

// Clients counts what strangers do, by client and by network. One serves all doors and all loops of a node: it is asked once for a
// connection, once for a message and once for a bunch of errors, under one of 64 locks, and never by clients that are exempt.
//
// Its memory is fixed: an 8-way table under a hash with a secret seed. A newcomer takes the place of the entry of its bucket that has no open
// connection and was quiet for the longest, so that a flood of addresses makes it forget rates, never grow. There is room for four times the
// connections that can be open, so that a bucket full of clients with open connections is rare; who meets one is let in uncounted.
type Clients struct {
	limits  ClientLimits
	seed    maphash.Seed
	start   time.Time
	buckets []clientBucket
	locks   [clientShards]struct {
		sync.Mutex
		_ [56]byte // one cache line each
	}
}

// clientKey is a masked address with the number of its bits; IPv4 stands in the high half.
type clientKey struct {
	prefix uint64
	kind   uint8 // 0 = no entry
}

const (
	keyIPv4 = 1 + iota
	keyIPv4Network
	keyIPv6
	keyIPv6Network
)

// clientEntry is one client or network. Counts of the running and of the last interval make a sliding one.
type clientEntry struct {
	key      clientKey
	open     uint32
	interval uint32 // number of the running one, since the table's start
	now      tally
	before   tally
}

// tally is what was done in an interval.
type tally struct{ connections, messages, recipients, errors, failures uint32 }

// NewClients makes a table for as many connections as can be open.
func NewClients(limits ClientLimits, connections int, now time.Time) *Clients {
	n := 1
	for n*clientWays < max(clientsMin, 4*connections) {
		n *= 2
	}
	return &Clients{limits: limits, seed: maphash.MakeSeed(), start: now, buckets: make([]clientBucket, n)}
}

// clientKeys are the keys of an address and of its network.
func clientKeys(a netip.Addr) (client, network clientKey) {
	a = a.Unmap()
	if a.Is4() {
		b := a.As4()
		v := uint64(binary.BigEndian.Uint32(b[:]))
		return clientKey{v, keyIPv4}, clientKey{v &^ 0xff, keyIPv4Network}
	}
	b := a.As16()
	v := binary.BigEndian.Uint64(b[:8])
	return clientKey{v, keyIPv6}, clientKey{v &^ 0xffff, keyIPv6Network}
}

// visit is a connection's place in the table. The zero visit belongs to a client that is exempt, and counts nothing.
type visit struct {
	client, network clientKey
	inClient        bool // the entry counts this connection as open
	inNetwork       bool
}

// verdict is why a client is refused; admitted is that it is not.
type verdict uint8

const (
	admitted verdict = iota
	tooManyConnections
	tooManyNew
	tooManyMessages
	tooManyRecipients
	tooManyErrors
	tooManyAuthFailures
	userConnections // of a user, not of a stranger: see auth.Limits
	userMessages
	userRecipients
	verdicts // how many there are
)

func (v verdict) String() string {
	return [...]string{"admitted", "connections", "connection_rate", "messages", "recipients", "errors", "auth_failures",
		"user_connections", "user_messages", "user_recipients"}[v]
}

// enter counts a new connection. leave must be called at its end if it was admitted. A connection that is refused is not counted, so that a
// client that tries again and again gets in as soon as there is room.
func (t *Clients) enter(a netip.Addr, now time.Time) (visit, verdict) {
	v := visit{}
	v.client, v.network = clientKeys(a)
	var why verdict
	if v.inClient, why = t.open(v.client, &t.limits.Client, now); why != admitted {
		return visit{}, why
	}
	if v.inNetwork, why = t.open(v.network, &t.limits.Network, now); why != admitted {
		v.inNetwork = false
		t.leave(v)
		return visit{}, why
	}
	return v, admitted
}

func (t *Clients) open(key clientKey, q *Quota, now time.Time) (counted bool, why verdict) {
	if *q == (Quota{}) {
		return false, admitted
	}
	at, part := t.time(now)
	bucket, lock := t.bucket(key)
	lock.Lock()
	defer lock.Unlock()
	e := bucket.take(key, at)
	if e == nil {
		return false, admitted
	}
	switch {
	case q.Connections > 0 && int(e.open) >= q.Connections:
		return false, tooManyConnections
	case over(q.ConnectionRate, e.now.connections, e.before.connections, part):
		return false, tooManyNew
	case over(q.Errors, e.now.errors, e.before.errors, part):
		return false, tooManyErrors
	}
	e.open++
	e.now.connections++
	return true, admitted
}

// leave ends a connection.
func (t *Clients) leave(v visit) {
	if v.inClient {
		t.close(v.client)
	}
	if v.inNetwork {
		t.close(v.network)
	}
}

func (t *Clients) close(key clientKey) {
	bucket, lock := t.bucket(key)
	lock.Lock()
	defer lock.Unlock()
	if e := bucket.find(key); e != nil && e.open > 0 {
		e.open--
	}
}

// unlimited is the allowance of recipients where there is no quota.
const unlimited = 1 << 30

// message asks for another message and counts it. It returns how many recipients the message may have.
func (t *Clients) message(v visit, now time.Time) (recipients int, why verdict) {
	if recipients, why = t.begin(v.client, &t.limits.Client, now); why != admitted {
		return 0, why
	}
	more, why := t.begin(v.network, &t.limits.Network, now)
	return min(recipients, more), why
}

func (t *Clients) begin(key clientKey, q *Quota, now time.Time) (recipients int, why verdict) {
	if q.Messages == 0 && q.Recipients == 0 {
		return unlimited, admitted
	}
	at, part := t.time(now)
	bucket, lock := t.bucket(key)
	lock.Lock()
	defer lock.Unlock()
	e := bucket.take(key, at)
	if e == nil {
		return unlimited, admitted
	}
	if over(q.Messages, e.now.messages, e.before.messages, part) {
		return 0, tooManyMessages
	}
	recipients = unlimited
	if q.Recipients > 0 {
		if recipients = q.Recipients - slide(e.now.recipients, e.before.recipients, part); recipients <= 0 {
			return 0, tooManyRecipients
		}
	}
	e.now.messages++
	return recipients, admitted
}

// add counts recipients that were accepted, and errors.
func (t *Clients) add(v visit, recipients, errors int, now time.Time) {
	if t.limits.Client != (Quota{}) {
		t.addTo(v.client, recipients, errors, now)
	}
	if t.limits.Network != (Quota{}) {
		t.addTo(v.network, recipients, errors, now)
	}
}

func (t *Clients) addTo(key clientKey, recipients, errors int, now time.Time) {
	at, _ := t.time(now)
	bucket, lock := t.bucket(key)
	lock.Lock()
	defer lock.Unlock()
	if e := bucket.take(key, at); e != nil {
		e.now.recipients += uint32(recipients)
		e.now.errors += uint32(errors)
	}
}

// mayAuthenticate says whether a client may try to authenticate.
func (t *Clients) mayAuthenticate(v visit, now time.Time) bool {
	return t.fewFailures(v.client, &t.limits.Client, now) && t.fewFailures(v.network, &t.limits.Network, now)
}

func (t *Clients) fewFailures(key clientKey, q *Quota, now time.Time) bool {
	if q.AuthFailures == 0 {
		return true
	}
	at, part := t.time(now)
	bucket, lock := t.bucket(key)
	lock.Lock()
	defer lock.Unlock()
	e := bucket.take(key, at)
	return e == nil || !over(q.AuthFailures, e.now.failures, e.before.failures, part)
}

// failed counts a failed authentication.
func (t *Clients) failed(v visit, now time.Time) {
	at, _ := t.time(now)
	for _, key := range []clientKey{v.client, v.network} {
		bucket, lock := t.bucket(key)
		lock.Lock()
		if e := bucket.take(key, at); e != nil {
			e.now.failures++
		}
		lock.Unlock()
	}
}

// time is the number of the running interval, and what part of the last one still lies within an interval from now, in 1/256.
func (t *Clients) time(now time.Time) (interval uint32, part int) {
	d := max(now.Sub(t.start), 0)
	return uint32(d/t.limits.Interval) + 1, 256 - int(d%t.limits.Interval*256/t.limits.Interval)
}

// slide estimates the count of an interval that ends now.
func slide(now, before uint32, part int) int { return int(now) + int(before)*part/256 }

func over(limit int, now, before uint32, part int) bool {
	return limit > 0 && slide(now, before, part) >= limit
}

// clientBucket is where a key can be.
type clientBucket [clientWays]clientEntry

// bucket finds the place of a key, and its lock.
func (t *Clients) bucket(key clientKey) (*clientBucket, *sync.Mutex) {
	i := maphash.Comparable(t.seed, key) & uint64(len(t.buckets)-1)
	return &t.buckets[i], &t.locks[i%clientShards].Mutex
}

func (b *clientBucket) find(key clientKey) *clientEntry {
	for i := range b {
		if b[i].key == key {
			return &b[i]
		}
	}
	return nil
}

// take finds or makes the entry of a key and moves it on to the running interval; nil if all places belong to clients with open connections.
func (b *clientBucket) take(key clientKey, interval uint32) *clientEntry {
	e := b.find(key)
	if e == nil {
		for i := range b {
			if b[i].open == 0 && (e == nil || b[i].interval < e.interval) {
				e = &b[i]
			}
		}
		if e == nil {
			return nil
		}
		*e = clientEntry{key: key, interval: interval}
	}
	if interval <= e.interval { // another loop's clock may be ahead
		return e
	}
	if e.before = (tally{}); interval == e.interval+1 {
		e.before = e.now
	}
	e.now, e.interval = tally{}, interval
	return e
}
