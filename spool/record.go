package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"mailrace/proto/message"
)

// A record is a version byte, the CRC-32C of all that follows (little-endian), and the fields of its version. Integers are uvarints but
// where a width is given; strings are a uvarint length and the octets. A record ends with its last field. Old versions stay readable: a
// change of fields is a new version, with a golden file of its own in testdata.
//
// Envelope, version 1: id:8 arrived:8 flags:1 size chunks from client helo trace count (address)*
// Envelope, version 2: the same, with (address notify:1)*, then return:1 envelopeID count (original)*
// Envelope, version 3: the same, then user tenant campaign wished:1, and where wished is 1: release:8 deadline:8 mode:1 trace:1 priority:1
// Recipient, version 1: id:8 index state:1 attempts due:8 reply
// Recipient, version 2: the same, then late:1
// Recipient, version 3: the same, then parked:1
// Recipient, version 4: the same, then noticed:1
// Recipient, version 5: the same, then doubted:1, and where doubted is 1: began:8 attempt times cause:1 action:1 peer
// In flight, version 1: (id:8 index attempt began:8 peer)*, where a peer is family:1 (0, 4 or 6), octets:family, port:2
// Claim, version 1: id:8 expires:8 key:16
// Due, version 1: nothing; the checksum is that of the key
// Mark, version 1: id:8
const (
	envelopeVersion  = 3
	recipientVersion = 5

	recordHeader = 1 + 4

	// maxReply is the most of a reply that a recipient record keeps.
	maxReply = 1 << 10
)

// errRecord is the cause of every error of decoding; two of its forms have a name.
var (
	errRecord   = errors.New("unreadable record")
	errVersion  = fmt.Errorf("%w: version", errRecord)
	errChecksum = fmt.Errorf("%w: checksum", errRecord)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// envelopeSize is the exact length of m's envelope record.
func envelopeSize(m *message.Message) int {
	n := recordHeader + 8 + 8 + 1 + uvarintLen(uint64(m.Size)) + uvarintLen(uint64(m.Chunks)) +
		stringLen(len(m.From)) + stringLen(len(m.Client)) + stringLen(len(m.Helo)) + stringLen(len(m.Trace)) +
		uvarintLen(uint64(len(m.Recipients)))
	for i := range m.Recipients {
		n += stringLen(len(m.Recipients[i].Address)) + 1
	}
	dsn := dsnOf(m)
	n += 1 + stringLen(len(dsn.EnvelopeID)) + uvarintLen(uint64(len(dsn.Originals)))
	for _, original := range dsn.Originals {
		n += stringLen(len(original))
	}
	n += stringLen(len(m.User)) + stringLen(len(m.Tenant)) + stringLen(len(m.Campaign)) + 1
	if m.Wishes != nil {
		n += wishesSize
	}
	return n
}

// wishesSize is the length of the wishes in an envelope record.
const wishesSize = 8 + 8 + 1 + 1 + 1

var noDSN message.DSN

// dsnOf is what the sender of m said about its notifications.
func dsnOf(m *message.Message) *message.DSN {
	if m.DSN == nil {
		return &noDSN
	}
	return m.DSN
}

// appendEnvelope appends m's envelope record to dst. It allocates nothing when dst has room for envelopeSize(m) more.
func appendEnvelope(dst []byte, m *message.Message) []byte {
	start := len(dst)
	dst = append(dst, envelopeVersion, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.ID))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.Arrived))
	dst = append(dst, byte(m.Flags))
	dst = binary.AppendUvarint(dst, uint64(m.Size))
	dst = binary.AppendUvarint(dst, uint64(m.Chunks))
	dst = appendString(dst, m.From)
	dst = appendString(dst, m.Client)
	dst = appendString(dst, m.Helo)
	dst = appendString(dst, m.Trace)
	dst = binary.AppendUvarint(dst, uint64(len(m.Recipients)))
	for i := range m.Recipients {
		dst = appendString(dst, m.Recipients[i].Address)
		dst = append(dst, byte(m.Recipients[i].Notify))
	}
	dsn := dsnOf(m)
	dst = append(dst, byte(dsn.Return))
	dst = appendString(dst, dsn.EnvelopeID)
	dst = binary.AppendUvarint(dst, uint64(len(dsn.Originals)))
	for _, original := range dsn.Originals {
		dst = appendString(dst, original)
	}
	dst = appendString(dst, m.User)
	dst = appendString(dst, m.Tenant)
	dst = appendString(dst, m.Campaign)
	dst = appendWishes(dst, m.Wishes)
	seal(dst[start:])
	return dst
}

func appendWishes(dst []byte, w *message.Wishes) []byte {
	if w == nil {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(w.Release))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(w.Deadline))
	return append(dst, byte(w.ByMode), bit(w.ByTrace), byte(w.Priority))
}

// decodeEnvelope reads an envelope record into m, which keeps nothing of b. withTrace copies the trace header too.
func decodeEnvelope(b []byte, m *message.Message, withTrace bool) error {
	r, version, err := openEnvelope(b)
	if err != nil {
		return err
	}
	m.ID = message.ID(r.uint64())
	m.Arrived = int64(r.uint64())
	m.Flags = message.Flags(r.byte())
	m.Size = int64(r.uvarint())
	m.Chunks = int(r.uvarint())
	m.From, m.Client, m.Helo = string(r.bytes()), string(r.bytes()), string(r.bytes())
	m.Trace = nil
	if trace := r.bytes(); withTrace {
		m.Trace = append([]byte(nil), trace...)
	}
	n := r.uvarint()
	if n > uint64(len(r.b)) { // each address takes at least its length byte
		r.bad = true
	}
	if !r.bad {
		m.Recipients = make([]message.Recipient, n)
		for i := range m.Recipients {
			m.Recipients[i].Address = string(r.bytes())
			if version >= 2 {
				m.Recipients[i].Notify = message.Notify(r.byte())
				r.bad = r.bad || !m.Recipients[i].Notify.Valid()
			}
		}
	}
	m.DSN = nil
	if version >= 2 {
		m.DSN = r.dsn(len(m.Recipients))
	}
	m.User, m.Tenant, m.Campaign, m.Wishes = "", "", "", nil
	if version >= 3 {
		m.User, m.Tenant, m.Campaign = string(r.bytes()), string(r.bytes()), string(r.bytes())
		m.Wishes = r.wishes()
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("envelope: %w", err)
	}
	if m.Size < 0 || m.Chunks < 0 || len(m.Recipients) == 0 {
		return fmt.Errorf("envelope: %w: %d octets in %d chunks for %d recipients", errRecord, m.Size, m.Chunks, len(m.Recipients))
	}
	return nil
}

// openEnvelope opens an envelope record of any version.
func openEnvelope(b []byte) (r fields, version byte, err error) {
	version = envelopeVersion
	if len(b) > 0 && b[0] > 0 && b[0] < envelopeVersion {
		version = b[0]
	}
	if r, err = open(b, version); err != nil {
		err = fmt.Errorf("envelope: %w", err)
	}
	return r, version, err
}

// wishes reads what the sender asked for; nil where nothing.
func (r *fields) wishes() *message.Wishes {
	switch wished := r.byte(); {
	case wished > 1:
		r.bad = true
		return nil
	case wished == 0:
		return nil
	}
	w := message.Wishes{Release: int64(r.uint64()), Deadline: int64(r.uint64()), ByMode: message.ByMode(r.byte())}
	trace := r.byte()
	w.ByTrace, w.Priority = trace == 1, int8(r.byte())
	if w.ByMode > message.ByNotify || trace > 1 || w.Priority < -message.PriorityMax || w.Priority > message.PriorityMax {
		r.bad = true
		return nil
	}
	return &w
}

// dsn reads what a record of version 2 adds. It is nil where nothing was said.
func (r *fields) dsn(recipients int) *message.DSN {
	d := message.DSN{Return: message.Return(r.byte()), EnvelopeID: string(r.bytes())}
	n := r.uvarint()
	if d.Return > message.ReturnFull || n != 0 && n != uint64(recipients) || n > uint64(len(r.b)) {
		r.bad = true
	}
	if r.bad || d.Return == message.ReturnDefault && d.EnvelopeID == "" && n == 0 {
		return nil
	}
	for range n {
		d.Originals = append(d.Originals, string(r.bytes()))
	}
	return &d
}

// envelopeTrace is the trace header in an envelope record, a slice of b.
func envelopeTrace(b []byte) ([]byte, error) {
	r, _, err := openEnvelope(b)
	if err != nil {
		return nil, err
	}
	r.skip(8 + 8 + 1)
	r.uvarint()
	r.uvarint()
	for range 3 {
		r.bytes()
	}
	trace := r.bytes()
	if r.bad {
		return nil, fmt.Errorf("envelope: %w: cut short", errRecord)
	}
	return trace, nil
}

// updateSize is the exact length of u's recipient record.
func updateSize(u *Update) int {
	return recordHeader + 8 + uvarintLen(uint64(u.Index)) + 1 + uvarintLen(uint64(u.Attempts)) + 8 + stringLen(min(len(u.Reply), maxReply)) + 1 + 1 + 1 +
		doubtSize(u.Doubt)
}

// doubtSize is the length of a doubt in a recipient record.
func doubtSize(d *message.Doubt) int {
	if d == nil {
		return 1
	}
	return 1 + 8 + uvarintLen(uint64(d.Attempt)) + uvarintLen(uint64(d.Times)) + 1 + 1 + peerLen(d.Peer)
}

func appendDoubt(dst []byte, d *message.Doubt) []byte {
	if d == nil {
		return append(dst, 0)
	}
	dst = binary.LittleEndian.AppendUint64(append(dst, 1), uint64(d.Began))
	dst = binary.AppendUvarint(dst, uint64(d.Attempt))
	dst = binary.AppendUvarint(dst, uint64(d.Times))
	return appendPeer(append(dst, byte(d.Cause), byte(d.Action)), d.Peer)
}

// doubt reads the doubt about a recipient; nil where there is none.
func (r *fields) doubt() *message.Doubt {
	switch doubted := r.byte(); {
	case doubted > 1:
		r.bad = true
		return nil
	case doubted == 0:
		return nil
	}
	d := message.Doubt{Began: int64(r.uint64())}
	attempt, times := r.uvarint(), r.uvarint()
	d.Attempt, d.Times = uint16(attempt), uint16(times)
	d.Cause, d.Action = message.DoubtCause(r.byte()), message.DoubtAction(r.byte())
	d.Peer = r.peer()
	if attempt > 1<<16-1 || times > 1<<16-1 || !d.Valid() {
		r.bad = true
		return nil
	}
	return &d
}

// appendUpdate appends u's recipient record to dst.
func appendUpdate(dst []byte, u *Update) []byte {
	start := len(dst)
	dst = append(dst, recipientVersion, 0, 0, 0, 0)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(u.ID))
	dst = binary.AppendUvarint(dst, uint64(u.Index))
	dst = append(dst, byte(u.State))
	dst = binary.AppendUvarint(dst, uint64(u.Attempts))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(u.Due))
	dst = appendString(dst, u.Reply[:min(len(u.Reply), maxReply)])
	dst = append(dst, bit(u.Late), bit(u.Parked), u.Noticed)
	dst = appendDoubt(dst, u.Doubt)
	seal(dst[start:])
	return dst
}

// decodeUpdate reads a recipient record of any version.
func decodeUpdate(b []byte) (u Update, err error) {
	version := byte(recipientVersion)
	if len(b) > 0 && b[0] > 0 && b[0] < recipientVersion {
		version = b[0]
	}
	r, err := open(b, version)
	if err != nil {
		return u, fmt.Errorf("recipient: %w", err)
	}
	u.ID = message.ID(r.uint64())
	u.Index = int(r.uvarint())
	u.State = message.State(r.byte())
	attempts := r.uvarint()
	u.Attempts = uint16(attempts)
	u.Due = int64(r.uint64())
	u.Reply = string(r.bytes())
	late, parked := byte(0), byte(0)
	if version >= 2 {
		late = r.byte()
	}
	if version >= 3 {
		parked = r.byte()
	}
	if version >= 4 {
		u.Noticed = r.byte()
	}
	u.Late, u.Parked = late == 1, parked == 1
	if version >= 5 {
		u.Doubt = r.doubt()
	}
	if err := r.end(); err != nil {
		return u, fmt.Errorf("recipient: %w", err)
	}
	if u.Index < 0 || u.State > message.Expired || attempts > 1<<16-1 || late > 1 || parked > 1 {
		return u, fmt.Errorf("recipient: %w: index %d, state %d, %d attempts", errRecord, u.Index, uint8(u.State), attempts)
	}
	return u, nil
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// seal writes the checksum of a finished record.
func seal(record []byte) {
	binary.LittleEndian.PutUint32(record[1:], crc32.Checksum(record[recordHeader:], castagnoli))
}

// open checks the version and the checksum of a record and returns a reader of its fields.
func open(b []byte, version byte) (fields, error) {
	if len(b) < recordHeader {
		return fields{}, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	if b[0] != version {
		return fields{}, fmt.Errorf("%w %d, this program reads %d", errVersion, b[0], version)
	}
	if want, got := binary.LittleEndian.Uint32(b[1:]), crc32.Checksum(b[recordHeader:], castagnoli); want != got {
		return fields{}, fmt.Errorf("%w %08x, want %08x", errChecksum, got, want)
	}
	return fields{b: b[recordHeader:]}, nil
}

// fields reads the fields of a record in order. The first one that does not fit sets bad, and all behind it are zero.
type fields struct {
	b   []byte
	bad bool
}

func (r *fields) skip(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *fields) byte() byte {
	if p := r.skip(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *fields) uint64() uint64 {
	if p := r.skip(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (r *fields) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// bytes is a string field, as a slice of the record.
func (r *fields) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	return r.skip(int(n))
}

// end says whether the fields were all there and nothing is behind them.
func (r *fields) end() error {
	switch {
	case r.bad:
		return fmt.Errorf("%w: cut short", errRecord)
	case len(r.b) > 0:
		return fmt.Errorf("%w: %d bytes too many", errRecord, len(r.b))
	}
	return nil
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// stringLen is the length of a string field of n octets.
func stringLen(n int) int { return uvarintLen(uint64(n)) + n }

// uvarintLen is the length of v as a uvarint: 7 bits a byte.
func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
