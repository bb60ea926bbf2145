package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestOpenSSLChecks asks OpenSSL what can be had of a node, after STARTTLS and on a port that begins with TLS. A test of the engine asks for every
// suite and group by number.
func TestOpenSSLChecks(t *testing.T) {
	dir := t.TempDir()
	chain, key := certificate(t, dir)
	n := serve(t, configOf(dir, "127.0.0.1:0", "discard", fmt.Sprintf("[tls]\ncertificates = [{ chain = %q, key = %q }]\n"+
		"[[listener]]\naddress = \"127.0.0.1:0\"\nmode = \"submissions\"\nrelay_from = [\"127.0.0.0/8\"]\n", chain, key)))
	for _, c := range []struct {
		name, args string
		input      string
		want       []string // in what OpenSSL says
		never      []string
	}{
		{"TLS 1.0", "-tls1 -cipher ALL:@SECLEVEL=0", "", []string{"alert protocol version"}, []string{"Cipher is ECDHE"}},
		{"TLS 1.1", "-tls1_1 -cipher ALL:@SECLEVEL=0", "", []string{"alert protocol version"}, []string{"Cipher is ECDHE"}},
		{"CBC, RC4, 3DES, NULL, anonymous and RSA key exchange", "-tls1_2 -cipher CBC:RC4:3DES:eNULL:aNULL:kRSA:!AESGCM:!AESCCM:!CHACHA20:@SECLEVEL=0", "",
			[]string{"alert handshake failure"}, nil},
		{"DHE", "-tls1_2 -cipher kDHE:@SECLEVEL=0", "", []string{"alert handshake failure"}, nil},
		{"curves of old", "-tls1_2 -groups secp224r1:sect283k1:brainpoolP256r1 -cipher ALL:@SECLEVEL=0", "", []string{"alert handshake failure"}, nil},
		{"TLS 1.2", "-tls1_2", "QUIT\r\n", []string{"Protocol  : TLSv1.2", "Cipher    : ECDHE-", "Compression: NONE", "Secure Renegotiation IS supported",
			"Extended master secret: yes", "Verify return code: 0 (ok)", "221 2.0.0"}, nil},
		{"TLS 1.3", "-tls1_3", "QUIT\r\n", []string{"New, TLSv1.3, Cipher is TLS_", "Server Temp Key: X25519", "Verification: OK", "221 2.0.0"}, nil},
		{"ALPN", "-alpn h2,smtp", "QUIT\r\n", []string{"ALPN protocol: smtp"}, nil},
		{"ALPN of others", "-alpn h2,http/1.1", "", []string{"alert no application protocol"}, nil},
		{"early data", "-tls1_3", "NOOP\r\nQUIT\r\n", []string{"Max Early Data: 0", "221 2.0.0"}, []string{"Early data was accepted"}},
		{"renegotiation by the client", "-tls1_2", "R\nNOOP\r\n", []string{"RENEGOTIATING"}, []string{"250 2.0.0"}},
	} {
		for way, address := range map[string]string{"STARTTLS": n.smtp, "TLS from the start": n.others[0]} {
			t.Run(c.name+"/"+way, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				args := append([]string{"s_client", "-connect", address, "-CAfile", chain}, strings.Fields(c.args)...)
				if way == "STARTTLS" {
					args = append(args, "-starttls", "smtp")
				}
				if strings.HasSuffix(c.input, "QUIT\r\n") {
					args = append(args, "-ign_eof") // R is a letter then, and the end is the server's
				}
				cmd := exec.CommandContext(ctx, "openssl", args...)
				cmd.Stdin = strings.NewReader(c.input)
				out, _ := cmd.CombinedOutput()
				for _, want := range c.want {
					if !strings.Contains(string(out), want) {
						t.Errorf("%q is not in\n%s", want, out)
					}
				}
				for _, never := range c.never {
					if strings.Contains(string(out), never) {
						t.Errorf("%q is in\n%s", never, out)
					}
				}
			})
		}
	}
	n.stop()
}
