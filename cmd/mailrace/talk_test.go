package main

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"
)

// talk is a plain client for tests.
type talk struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dialSMTP(t *testing.T, address string) *talk {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	d := &talk{t: t, conn: conn, r: bufio.NewReader(conn)}
	d.expect(220)
	return d
}

// say sends a line and returns the reply, which must have the code.
func (d *talk) say(line string, code int) string {
	d.t.Helper()
	d.send(line + "\r\n")
	return d.expect(code)
}

func (d *talk) send(text string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(text)); err != nil {
		d.t.Fatal(err)
	}
}

// expect reads a reply.
func (d *talk) expect(code int) string {
	d.t.Helper()
	var reply strings.Builder
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("after %q: %v", reply.String(), err)
		}
		reply.WriteString(line)
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if got := reply.String(); len(got) < 3 || got[:3] != digits(code) {
		d.t.Fatalf("want %d, got %q", code, got)
	}
	return reply.String()
}

func digits(code int) string {
	return string([]byte{byte('0' + code/100), byte('0' + code/10%10), byte('0' + code%10)})
}
