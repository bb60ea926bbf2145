package engine

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	octets "encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
)

// clientHello is what a client of the test says, good or bad: crypto/tls would not say the worst of it.
type clientHello struct {
	version  uint16   // of the hello
	versions []uint16 // of supported_versions; none = the extension is missing
	suites   []uint16
	groups   []uint16
	schemes  []uint16 // signature algorithms
	methods  []byte   // compression; null if nil
}

// everyday is what is in a hello where a test says nothing else.
var everyday = clientHello{version: tls.VersionTLS12, groups: []uint16{29, 23, 24, 25},
	schemes: []uint16{0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601}}

// record is the hello as a record. RFC 5246 §7.4.1.2
func (h clientHello) record() []byte {
	u16 := octets.BigEndian.AppendUint16
	list := func(values []uint16) (b []byte) {
		for _, v := range values {
			b = u16(b, v)
		}
		return b
	}
	vector := func(b []byte) []byte { return append(u16(nil, uint16(len(b))), b...) }
	var extensions []byte
	extension := func(kind uint16, body []byte) { extensions = append(u16(extensions, kind), vector(body)...) }
	extension(10, vector(list(h.groups)))
	extension(11, []byte{1, 0})
	if len(h.schemes) > 0 {
		extension(13, vector(list(h.schemes)))
	}
	if len(h.versions) > 0 {
		extension(43, append([]byte{byte(2 * len(h.versions))}, list(h.versions)...))
		extension(51, vector(nil)) // no key share: the server asks for one
	}
	methods := h.methods
	if methods == nil {
		methods = []byte{0}
	}
	body := append(u16(nil, h.version), bytes.Repeat([]byte{7}, 32)...)
	body = append(append(body, 0), vector(list(h.suites))...)
	body = append(append(append(body, byte(len(methods))), methods...), vector(extensions)...)
	message := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1}, vector(message)...)
}

// serverHello is how a server goes on until it is the client's turn, or an alert.
type serverHello struct {
	version     uint16
	random      []byte
	suite       uint16
	compression byte
	alert       byte // 0 = none
}

// say says a hello to a listener that begins with TLS.
func (h clientHello) say(t *testing.T, address string) (s serverHello) {
	t.Helper()
	c := connect(t, address)
	defer c.Close()
	if _, err := c.Write(h.record()); err != nil {
		t.Fatal(err)
	}
	for {
		kind, body := readRecord(t, c.r)
		switch {
		case kind == 21:
			s.alert = body[1]
			return s
		case kind == 22 && body[0] == 2:
			s.version, s.random = octets.BigEndian.Uint16(body[4:]), body[6:38]
			rest := body[39+int(body[38]):]
			s.suite, s.compression = octets.BigEndian.Uint16(rest), rest[2]
		}
		if kind != 22 || len(h.versions) > 0 || body[0] == 14 { // ServerHelloDone; TLS 1.3 goes on encrypted
			return s
		}
	}
}

func readRecord(t *testing.T, r io.Reader) (kind byte, body []byte) {
	t.Helper()
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	body = make([]byte, octets.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	return head[0], body
}

// allSuites are the numbers of all cipher suites there could be, without the two that are signals.
func allSuites() (all []uint16) {
	for n := range 1 << 16 {
		if n != 0x00ff && n != 0x5600 {
			all = append(all, uint16(n))
		}
	}
	return all
}

// offered asks for one suite after the other until the server has no more, as testssl does. What a record holds is asked at a time.
func offered(t *testing.T, address string, h clientHello) (found []uint16) {
	t.Helper()
	all := allSuites()
	for part := range slices.Chunk(all, 7000) {
		for {
			h.suites = part
			s := h.say(t, address)
			if s.alert != 0 {
				if s.alert != 40 {
					t.Fatalf("alert %d, want handshake_failure", s.alert)
				}
				break
			}
			if s.compression != 0 || s.version != tls.VersionTLS12 {
				t.Errorf("%+v", s)
			}
			found = append(found, s.suite)
			part = slices.DeleteFunc(slices.Clone(part), func(n uint16) bool { return n == s.suite })
		}
	}
	slices.Sort(found)
	return found
}

// issueRSA is issue with a key of RSA.
func issueRSA(t *testing.T, dir, name string) config.Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pair := config.Certificate{Chain: filepath.Join(dir, "rsa.pem"), Key: filepath.Join(dir, "rsa.key")}
	for file, block := range map[string]*pem.Block{pair.Chain: {Type: "CERTIFICATE", Bytes: der},
		pair.Key: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pair
}

// TestTLSOffer asks the server, octet by octet what crypto/tls would never say, for each cipher suite, version, group and method there could be. What it
// takes is a short table: forward secrecy and authenticated encryption only. No NULL, anonymous, export, RC4, 3DES or CBC.
func TestTLSOffer(t *testing.T) {
	t.Parallel()
	for kind, test := range map[string]struct {
		pair func(*testing.T) config.Certificate
		want []uint16
	}{
		"ECDSA": {func(t *testing.T) config.Certificate { return issue(t, t.TempDir(), "mta.test.example") }, []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256}},
		"RSA": {func(t *testing.T) config.Certificate { return issueRSA(t, t.TempDir(), "mta.test.example") }, []uint16{
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := secured(t)
			c.TLS.Certificates = []config.Certificate{test.pair(t)}
			r := start(t, c)
			at := r.Addr(2).String()

			got := offered(t, at, everyday)
			for _, suite := range got {
				t.Logf("TLS 1.2  %s", tls.CipherSuiteName(suite))
			}
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("TLS 1.2: %s, want %s", names(got), names(test.want))
			}
			h := everyday
			h.suites = test.want
			if s := h.say(t, at); !bytes.Equal(s.random[24:], []byte("DOWNGRD\x01")) {
				t.Errorf("no downgrade sentinel at TLS 1.2: %q", s.random[24:]) // RFC 8446 §4.1.3
			}
			h.methods = []byte{1, 0} // DEFLATE: CRIME
			if s := h.say(t, at); s.alert == 0 && s.compression != 0 {
				t.Error("compression")
			}
			h = everyday
			h.suites, h.schemes = test.want, []uint16{0x0201, 0x0203, 0x0101} // SHA-1 and MD5
			if s := h.say(t, at); s.alert == 0 {
				t.Error("a signature with SHA-1 or MD5")
			}
			checkVersions(t, at)
			checkGroups(t, at, test.want)
		})
	}
}

// checkVersions has a try with each version. 70 is protocol_version.
func checkVersions(t *testing.T, at string) {
	t.Helper()
	for version, want := range map[uint16]byte{0x0300: 70, tls.VersionTLS10: 70, tls.VersionTLS11: 70, tls.VersionTLS12: 0} {
		h := everyday
		h.version, h.suites = version, []uint16{0xc02b, 0xc02f, 0xc009, 0xc013, 0x002f, 0x000a}
		if s := h.say(t, at); s.alert != want {
			t.Errorf("version %#x: alert %d, want %d", version, s.alert, want)
		}
	}
	h := everyday // TLS 1.3 takes its own suites only
	h.versions, h.suites = []uint16{tls.VersionTLS13}, allSuites()[:7000]
	if s := h.say(t, at); s.alert != 0 || s.suite>>8 != 0x13 {
		t.Errorf("TLS 1.3: %+v", s)
	}
	h.suites = []uint16{0x1304, 0x1305, 0xc02b, 0xc02f} // CCM, and those of TLS 1.2
	if s := h.say(t, at); s.alert != 40 {
		t.Errorf("TLS 1.3 without a suite of its own: %+v", s)
	}
}

// checkGroups tries each group for the key exchange: the NIST curves from 256 bits on and X25519 are taken, and no finite field is.
func checkGroups(t *testing.T, at string, suites []uint16) {
	t.Helper()
	var got []uint16
	for _, group := range append(seq(1, 41), seq(256, 260)...) {
		h := everyday
		h.suites, h.groups = suites, []uint16{group}
		if s := h.say(t, at); s.alert == 0 {
			got = append(got, group)
		}
	}
	if want := []uint16{23, 24, 25, 29}; !slices.Equal(got, want) {
		t.Errorf("groups %v, want %v", got, want)
	}
}

func seq(from, to uint16) (s []uint16) {
	for n := from; n <= to; n++ {
		s = append(s, n)
	}
	return s
}

func names(suites []uint16) string {
	var s []string
	for _, n := range suites {
		s = append(s, fmt.Sprintf("%s (%#04x)", tls.CipherSuiteName(n), n))
	}
	return strings.Join(s, ", ")
}

// TestTLSPreference: clients of today get a key exchange that holds against quantum computers, TLS 1.3, and ALPN.
func TestTLSPreference(t *testing.T) {
	t.Parallel()
	r := start(t, secured(t))
	cfg := insecure("")
	cfg.NextProtos = []string{"smtp"}
	_, conn := r.dialTLS(2, cfg)
	if s := conn.ConnectionState(); s.CurveID != tls.X25519MLKEM768 || s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "smtp" {
		t.Errorf("%v, %s, %q", s.CurveID, tls.VersionName(s.Version), s.NegotiatedProtocol)
	}
}
