package ingress

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// secure gives a door a certificate and STARTTLS.
func secure(d *Door, _ *shelf) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"app.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	d.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	d.SMTP.StartTLS, d.Pace.Handshake = true, patience
}

// under is a client that goes on under TLS. Its TCPConn is the wire.
type under struct {
	*client
	tls *tls.Conn
}

// handshake puts TLS on a connection. cut, if not 0, is the most octets that leave in one segment.
func (c *client) handshake(cut int) *under {
	c.t.Helper()
	u := &under{c, tls.Client(&slicer{c.TCPConn, cut}, &tls.Config{InsecureSkipVerify: true})}
	if err := u.tls.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.r = bufio.NewReader(u.tls)
	return u
}

func (u *under) say(line string, code int) string {
	u.t.Helper()
	if _, err := u.tls.Write([]byte(line + "\r\n")); err != nil {
		u.t.Fatal(err)
	}
	return u.expect(code)
}

// envelope begins a transaction as far as 354.
func (u *under) envelope() {
	u.t.Helper()
	u.say("EHLO client.example", 250)
	u.say("MAIL FROM:<s@sender.example>", 250)
	u.say("RCPT TO:<a@far.example>", 250)
	u.say("DATA", 354)
}

// slicer writes in slices.
type slicer struct {
	net.Conn
	cut int
}

func (s *slicer) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		end := len(p)
		if s.cut > 0 {
			end = min(end, n+s.cut)
		}
		var k int
		k, err = s.Conn.Write(p[n:end])
		n += k
	}
	return n, err
}

// TestStartTLS sends a message under TLS, with handshake and records in slices.
func TestStartTLS(t *testing.T) {
	t.Parallel()
	r := open(t, secure)
	for _, cut := range []int{0, 1, 2, 5, 100} {
		c := r.greet()
		c.say("STARTTLS", 220)
		u := c.handshake(cut)
		u.envelope()
		id := strings.Fields(u.say(hello+".", 250))[6-1]
		got := receive(t, r.accepted)
		if got.ID.String() != id || got.content != hello || got.TLSVersion != "TLS 1.3" || got.TLSCipher == "" ||
			!strings.Contains(string(got.Trace), " with ESMTPS id ") || !strings.Contains(string(got.Trace), "\r\n\ttls "+got.TLSCipher+"; ") {
			t.Errorf("%s, %q, %s, %s, %q", id, got.content, got.TLSVersion, got.TLSCipher, got.Trace)
		}
		u.say("QUIT", 221)
		u.end()
	}
	r.awaitQuiet()
	if n := r.door.Stats.Handshakes.Get(); n != 5 {
		t.Errorf("%d handshakes counted", n)
	}
}

// TestT1CommandsBehindSTARTTLS: what comes in clear behind STARTTLS ends the session, whether it comes at once or in place of a handshake.
func TestT1CommandsBehindSTARTTLS(t *testing.T) {
	t.Parallel()
	r := open(t, secure)
	const injected = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
	c := r.greet()
	c.send("STARTTLS\r\n" + injected)
	if got := c.expect(554); !strings.HasPrefix(got, "554 5.5.0 ") {
		t.Errorf("%q", got)
	}
	c.end()
	c = r.greet()
	c.say("STARTTLS", 220)
	c.send(injected)
	if reply, err := c.reply(); err == nil || strings.HasPrefix(reply, "250") {
		t.Errorf("%q, %v", reply, err)
	}
	r.awaitQuiet()
	if n := r.door.Stats.HandshakesFailed.Get(); n != 1 {
		t.Errorf("%d failed handshakes counted", n)
	}
	c = r.greet()
	c.say("STARTTLS", 220)
	u := c.handshake(0)
	u.silent() // after the handshake nothing comes unasked
	u.r.Reset(u.tls)
	u.say("MAIL FROM:<a@b>", 503)
	u.say("EHLO client.example", 250)
	u.say("STARTTLS", 503)
	u.say("MAIL FROM:<a@b>", 250)
	u.say("QUIT", 221)
	u.end()
}

// TestT7CloseNotifyInChunk: a chunk that TLS ends in the middle of is discarded, and nothing in clear goes on with it.
func TestT7CloseNotifyInChunk(t *testing.T) {
	t.Parallel()
	r := open(t, secure)
	for _, begin := range []string{"BDAT 40\r\nSubject: x\r\n", "BDAT 40 LAST\r\nSubject: x\r\n", "DATA\r\nSubject: x\r\n\r\nx\r\n."} {
		c := r.greet()
		c.say("STARTTLS", 220)
		u := c.handshake(0)
		u.say("EHLO client.example", 250)
		u.say("MAIL FROM:<s@sender.example>", 250)
		u.say("RCPT TO:<a@far.example>", 250)
		if _, err := u.tls.Write([]byte(begin)); err != nil {
			t.Fatal(err)
		}
		if err := u.tls.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("\r\n.\r\n" + strings.Repeat("Z", 40)))
		r.awaitQuiet()
	}
	if appended, _, _ := r.store.counts(); appended != 0 {
		t.Errorf("%d messages accepted", appended)
	}
}

// TestT11SlowHandshake: a handshake that does not come to its end in time ends the session, counted among the connections until then.
func TestT11SlowHandshake(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]bool{"STARTTLS": false, "TLS from the start": true} {
		r := open(t, func(d *Door, s *shelf) {
			secure(d, s)
			d.TLSFirst, d.Pace.Handshake = first, 50*time.Millisecond
		})
		var c *client
		if first {
			c = r.connect()
		} else {
			c = r.greet()
			c.say("STARTTLS", 220)
		}
		c.send("\x16\x03\x01\x02\x00\x01") // a ClientHello begins
		if reply, err := c.reply(); err == nil || reply != "" {
			t.Errorf("%s: %q", name, reply)
		}
		r.awaitQuiet()
		if s := r.door.Stats; s.HandshakesFailed.Get() != 1 || s.Timeouts.Get() != 1 {
			t.Errorf("%s: %d failed, %d timeouts", name, s.HandshakesFailed.Get(), s.Timeouts.Get())
		}
	}
}

// TestDrainUnderTLS: sessions in the middle of a handshake end, those under TLS get their 421.
func TestDrainUnderTLS(t *testing.T) {
	t.Parallel()
	r := open(t, secure)
	idle := r.greet()
	idle.say("STARTTLS", 220)
	u := idle.handshake(0)
	u.say("EHLO client.example", 250)
	shaking := r.greet()
	shaking.say("STARTTLS", 220)
	r.group.Loops()[0].Post(func() { r.door.Drain(r.group.Loops()[0]) })
	u.expect(421)
	u.end()
	shaking.end()
	r.awaitQuiet()
}

// TestPausedUnderTLS: a client that sends its next messages while one is with the store gets all its replies.
func TestPausedUnderTLS(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) { secure(d, s); hold(d, s) })
	c := r.greet()
	c.say("STARTTLS", 220)
	u := c.handshake(0)
	u.envelope()
	const next = "MAIL FROM:<s@sender.example>\r\nRCPT TO:<a@far.example>\r\nDATA\r\n"
	if _, err := u.tls.Write([]byte(hello + ".\r\n" + next)); err != nil {
		t.Fatal(err)
	}
	op := receive(t, r.store.held)
	if _, err := u.tls.Write([]byte("QUIT\r\n")); err != nil { // content of the next message, as it happens
		t.Fatal(err)
	}
	if err := u.tls.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	r.store.complete(op, nil)
	for _, code := range []int{250, 250, 250, 354} {
		u.expect(code)
	}
	u.end()
	r.awaitQuiet()
}

// prefixed sends something ahead of the first octets, in one segment with them.
type prefixed struct {
	net.Conn
	prefix string
}

func (c *prefixed) Write(p []byte) (int, error) {
	n := len(c.prefix)
	p, c.prefix = append([]byte(c.prefix), p...), ""
	k, err := c.Conn.Write(p)
	return max(0, k-n), err
}

// TestTLSFirst: behind the header of a proxy TLS begins at once, and the greeting and its delay come under TLS.
func TestTLSFirst(t *testing.T) {
	t.Parallel()
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 465\r\n"
	r := open(t, func(d *Door, s *shelf) {
		secure(d, s)
		d.TLSFirst, d.ProxyFrom = true, d.RelayFrom
		d.RelayFrom, d.RelayDomains = nil, NewDomains([]string{"far.example"})
		d.GreetDelay = 200 * time.Millisecond
	})
	begin := func() *under {
		c := r.connect()
		u := &under{c, tls.Client(&prefixed{c.TCPConn, header}, &tls.Config{InsecureSkipVerify: true})}
		c.r = bufio.NewReader(u.tls)
		if err := u.tls.Handshake(); err != nil {
			t.Fatal(err)
		}
		return u
	}
	u := begin()
	u.expect(220)
	u.envelope()
	u.say(hello+".", 250)
	if got := receive(t, r.accepted); got.Client != "192.0.2.1" || got.TLSVersion != "TLS 1.3" {
		t.Errorf("from %s, %s", got.Client, got.TLSVersion)
	}
	u.say("QUIT", 221)
	u.end()
	hasty := begin()
	hasty.say("EHLO client.example", 554)
	hasty.end()
	clear := r.connect() // nothing is said in clear, whatever comes
	clear.send(header + "EHLO client.example\r\n")
	if reply, err := clear.reply(); err == nil || strings.HasPrefix(reply, "2") || strings.HasPrefix(reply, "5") {
		t.Errorf("%q, %v", reply, err)
	}
	r.group.Loops()[0].Post(func() { r.door.Drain(r.group.Loops()[0]) })
	late := r.connect()
	late.send(header)
	if reply, err := late.reply(); err == nil || reply != "" {
		t.Errorf("%q, %v", reply, err)
	}
	r.awaitQuiet()
}

// TestCertificateOfASpeaker: a client that proves its name may relay, but not for others that it speaks for by XCLIENT.
func TestCertificateOfASpeaker(t *testing.T) {
	t.Parallel()
	r := open(t, func(d *Door, s *shelf) {
		secure(d, s)
		own := &d.TLS.Certificates[0]
		leaf, err := x509.ParseCertificate(own.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		d.TLS.ClientAuth, d.TLS.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
		d.TLS.ClientCAs.AddCert(leaf)
		d.XClientFrom, d.RelayFrom, d.RelayCertificates = d.RelayFrom, nil, NewDomains([]string{"app.example"})
	})
	for _, hearsay := range []bool{false, true} {
		c := r.greet()
		want := 250
		if hearsay {
			c.say("XCLIENT ADDR=192.0.2.7", 220)
			c.say("EHLO client.example", 250)
			want = 550
		}
		c.say("STARTTLS", 220)
		u := &under{c, tls.Client(c.TCPConn, &tls.Config{InsecureSkipVerify: true, Certificates: r.door.TLS.Certificates})}
		if err := u.tls.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.r = bufio.NewReader(u.tls)
		u.say("EHLO client.example", 250)
		u.say("MAIL FROM:<s@sender.example>", 250)
		u.say("RCPT TO:<a@far.example>", want)
		u.say("QUIT", 221)
		u.end()
	}
	r.awaitQuiet()
}
