package load_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"mailrace/bench/load"
)

// script is a server that plays the n-th connection, counted from 0. The connection is closed when it returns.
type script func(n int, c *wire)

// wire is one connection of a scripted server.
type wire struct {
	net.Conn
	r *bufio.Reader
}

func (w *wire) say(lines ...string) { io.WriteString(w, strings.Join(lines, "\r\n")+"\r\n") }

// hear reads a command and returns its first four letters in capitals, or "" at the end.
func (w *wire) hear() string {
	line, err := w.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.ToUpper(line[:min(4, len(strings.TrimSpace(line)))])
}

// content reads up to the end of data.
func (w *wire) content() {
	for {
		if line, err := w.r.ReadString('\n'); err != nil || line == ".\r\n" {
			return
		}
	}
}

// dialogue answers commands until QUIT, EHLO with the lines given.
func (w *wire) dialogue(ehlo ...string) {
	for {
		switch w.hear() {
		case "":
			return
		case "EHLO":
			w.say(ehlo...)
		case "DATA":
			w.say("354 go")
			w.content()
			w.say("250 2.0.0 Ok")
		case "QUIT":
			w.say("221 bye")
			return
		default:
			w.say("250 ok")
		}
	}
}

func startScript(t *testing.T, s script) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				s(n, &wire{Conn: c, r: bufio.NewReader(c)})
			}()
		}
	}()
	return l.Addr().String()
}

// TestServersOfEveryKind: no PIPELINING, no EHLO, replies in pieces, long banners.
func TestServersOfEveryKind(t *testing.T) {
	for name, s := range map[string]script{
		"no pipelining": func(_ int, c *wire) {
			c.say("220 x")
			c.dialogue("250-x", "250 SIZE 1000000")
		},
		"no EHLO": func(_ int, c *wire) {
			c.say("220 x")
			c.dialogue("502 5.5.1 what?")
		},
		"long banner": func(_ int, c *wire) {
			c.say("220-one", "220-two", "220 three")
			c.dialogue("250-x", "250 PIPELINING")
		},
		"octet by octet": func(_ int, c *wire) {
			for _, b := range []byte("220 x\r\n") {
				c.Write([]byte{b})
			}
			c.dialogue("250-x", "250-PIPELINING", "250 8BITMIME")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, load.Options{Address: startScript(t, s), Messages: 50, Connections: 5, Recipients: 3, Sender: "a@b.example"})
			if r.Accepted != 50 || r.Broken != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestBadServers: whatever the server does, the run ends, and says why.
func TestBadServers(t *testing.T) {
	for name, test := range map[string]struct {
		s    script
		want string // in Failure
	}{
		"garbage":     {func(_ int, c *wire) { c.say("HTTP/1.1 400 Bad Request") }, "malformed"},
		"not welcome": {func(_ int, c *wire) { c.say("554 go away"); c.hear() }, "554 go away"},
		"closes":      {func(_ int, c *wire) {}, ""},
		"endless reply": {func(_ int, c *wire) {
			for {
				if _, err := io.WriteString(c, "220-more\r\n"); err != nil {
					return
				}
			}
		}, "too long"},
		"shuts down": {func(_ int, c *wire) {
			c.say("220 x")
			c.hear()
			c.say("250-x", "250 PIPELINING")
			c.hear()
			c.say("421 4.3.2 shutting down")
			c.hear()
		}, "421 4.3.2"},
		"closes in the content": {func(_ int, c *wire) {
			c.say("220 x")
			c.hear()
			c.say("250-x", "250 PIPELINING")
			for c.hear() != "DATA" {
			}
			c.say("250 ok", "250 ok", "354 go")
			c.r.ReadString('\n')
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := load.Run(t.Context(), load.Options{Address: startScript(t, test.s), Messages: 50, Connections: 3})
			if err != nil {
				t.Fatal(err)
			}
			if r.Accepted != 0 || r.Broken != 3 || r.Started != r.Lost+r.Tempfail || !strings.Contains(r.Failure, test.want) || r.Failure == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestServerThatSaysNothing is given up at the timeout.
func TestServerThatSaysNothing(t *testing.T) {
	r := run(t, load.Options{Address: startScript(t, func(_ int, c *wire) { c.hear() }), Messages: 5, Connections: 2, Timeout: 50e6})
	if r.Broken != 2 || !strings.Contains(r.Failure, "no reply") {
		t.Errorf("%+v", r)
	}
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	r, err := load.Run(t.Context(), load.Options{Address: l.Addr().String(), Messages: 5, Connections: 2})
	if !errors.Is(err, load.ErrUnreachable) || r.Broken != 2 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestServerComesBack: the first connections are refused in every way, the later ones served.
func TestServerComesBack(t *testing.T) {
	address := startScript(t, func(n int, c *wire) {
		switch n {
		case 0:
		case 1:
			c.say("421 4.3.2 not yet")
		case 2:
			c.say("garbage")
		case 3:
			c.say("220 x")
			c.hear()
		default:
			c.say("220 x")
			c.dialogue("250-x", "250 PIPELINING")
		}
	})
	r := run(t, load.Options{Address: address, Messages: 20, Connections: 2, Reconnect: true})
	if r.Accepted != 20 || r.Lost != 0 || r.Broken != 4 {
		t.Errorf("%+v", r)
	}
}

// TestServerWithoutSizeEnough: messages that the server cannot take are counted as refused, and not sent.
func TestServerWithoutSizeEnough(t *testing.T) {
	address := startScript(t, func(_ int, c *wire) {
		c.say("220 x")
		c.dialogue("250-x", "250 SIZE 1000")
	})
	r := run(t, load.Options{Address: address, Messages: 5, Connections: 2})
	if r.Permfail != 2 || r.Accepted != 0 || !strings.Contains(r.Failure, "too large") {
		t.Errorf("%+v", r)
	}
}

func ExampleProgress_Line() {
	before := load.Progress{Elapsed: 1e9, Accepted: 10_000}
	now := load.Progress{Elapsed: 2e9, Accepted: 35_000, Open: 200, Tempfail: 3}
	now.Latency.P50, now.Latency.P99 = 4e6, 9e6
	fmt.Println(now.Line(before))
	// Output: 2.0s  35,000 accepted  25,000/s  200 connections  p50 4ms  p99 9ms  3 4xx  0 5xx  0 lost
}
