package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// proxyV2 is a header of version 2 of the PROXY protocol, with a command, a family, and a block.
func proxyV2(command, family byte, block string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family, byte(len(block) >> 8), byte(len(block))}) + block
}

// block4 is 192.0.2.7:1234 to 10.0.0.1:25.
const block4 = "\xc0\x00\x02\x07\x0a\x00\x00\x01\x04\xd2\x00\x19"

// proxies: the address in the header of a proxy counts, however the header is cut; what is no header, or too long, ends the connection without a
// word.
func proxies(f *fort, carrier string) error {
	for header, relays := range map[string]string{
		"PROXY TCP4 192.0.2.7 10.0.0.1 1234 25\r\n": "250", "PROXY TCP4 198.51.100.7 10.0.0.1 1234 25\r\n": "550 5.7.1", "PROXY UNKNOWN\r\n": "550 5.7.1",
		proxyV2(0x21, 0x11, block4): "250", proxyV2(0x21, 0x11, block4+"\x04\x00\x03xyz"): "250", proxyV2(0x20, 0x00, ""): "550 5.7.1",
	} {
		for cut := 1; cut <= len(header); cut++ {
			if err := f.proxied(carrier, header, cut, relays); err != nil {
				return fmt.Errorf("%q, cut behind %d octets: %w", header, cut, err)
			}
		}
	}
	for _, header := range []string{
		"EHLO client.example\r\n", "\r\nPROXY TCP4 192.0.2.7 10.0.0.1 1234 25\r\n", "PROXY TCP4 192.0.2.7 10.0.0.1 1234 25\n", "proxy TCP4 192.0.2.7 10.0.0.1 1234 25\r\n",
		"PROXY TCP4 192.0.2.7 10.0.0.1 1234 99999\r\n", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
		proxyV2(0x31, 0x11, block4), proxyV2(0x21, 0x12, block4), proxyV2(0x21, 0x11, block4[:11]), proxyV2(0x21, 0x11, block4+strings.Repeat("x", 4000))[:300],
	} {
		for cut := 1; cut < min(len(header), 120); cut++ {
			c, _, err := f.dial(carrier, doorProxy)
			if err != nil {
				return err
			}
			c.pour(header+"EHLO client.example\r\n"+evil, []int{cut})
			if err := c.ended(); err != nil {
				return fmt.Errorf("%q, cut behind %d octets: %w", header, cut, err)
			}
			c.tcp.Close()
		}
	}
	return nil
}

// proxied has a session behind a header that comes in two.
func (f *fort) proxied(carrier, header string, cut int, relays string) error {
	c, door, err := f.dial(carrier, doorProxy)
	if err != nil {
		return err
	}
	defer c.tcp.Close()
	c.pour(header, []int{cut})
	if err := errors.Join(c.begin(carrier, door), c.advance(mailed)); err != nil {
		return err
	}
	if err := c.talk("RCPT TO:<r@far.example>\r\n", relays, "PROXY TCP4 192.0.2.7 10.0.0.1 1234 25\r\n", "550 5.7.0"); err != nil {
		return err
	}
	return c.leave()
}

// disconnectUser cuts an exchange of AUTH off behind every octet. A user has few connections: one that leaked would be missing.
func disconnectUser(f *fort, carrier string) error {
	input := "EHLO client.example\r\n" + plain("", "alice", "wrong") + "AUTH LOGIN\r\n" + aliceRight + "MAIL FROM:<s@sender.example>\r\nRCPT TO:<r@far.example>\r\nDATA\r\nunfinished"
	for cut := range len(input) + 1 {
		for _, reset := range []bool{false, true} {
			c, err := f.call(carrier, doorOpen)
			if err != nil {
				return err
			}
			c.pour(input[:cut], nil)
			if reset {
				f.settle()
				err = errors.Join(c.tcp.SetLinger(0), c.tcp.Close())
			} else {
				err = c.tcp.CloseWrite()
			}
			if err != nil {
				return fmt.Errorf("behind %d octets: %w", cut, err)
			}
			said, _ := io.ReadAll(c.r)
			if c.tcp.Close(); strings.Contains(string(said), "421 ") {
				return fmt.Errorf("behind %d octets: %q", cut, said)
			}
		}
	}
	return nil
}
