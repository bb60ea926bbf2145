package dialog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// server is what one session found out about the server before the dialogs: what it offers, and whether the recipient is welcome.
type server struct {
	opts     *Options
	offers   map[string][]string // keyword → arguments, in capitals
	values   map[string]string   // of variables
	refusal  string              // the reply to MAIL or RCPT, if that was no good one
	greeting string
}

// sizeMax is the largest SIZE limit that a dialog goes beyond.
const sizeMax = 64 << 20

// dial opens a connection, with TLS where that is asked for. behind reports that greeting and STARTTLS lie behind it.
func (s *server) dial(ctx context.Context, mode Mode) (w *wire, behind bool, err error) {
	o := s.opts
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", o.Address)
	if err != nil {
		return nil, false, err
	}
	switch o.TLS {
	case "starttls":
		if err = startTLS(conn, o); err != nil {
			break
		}
		behind = true
		fallthrough
	case "implicit":
		c := tls.Client(conn, o.Config)
		if err = c.HandshakeContext(ctx); err == nil {
			conn = c
		}
	}
	if err != nil {
		conn.Close()
		return nil, false, fmt.Errorf("tls: %w", err)
	}
	return newWire(conn, mode, o.Timeout), behind, nil
}

// startTLS leads up to the handshake. RFC 3207 §4.
func startTLS(conn net.Conn, o *Options) error {
	if err := conn.SetDeadline(time.Now().Add(o.Timeout)); err != nil {
		return err
	}
	defer conn.SetDeadline(time.Time{})
	var heard []byte
	for _, talk := range []struct{ say, code string }{{"", "220"}, {"EHLO " + o.Hello + "\r\n", "250"}, {"STARTTLS\r\n", "220"}} {
		if _, err := conn.Write([]byte(talk.say)); err != nil {
			return err
		}
		for {
			r, n, err := cutReply(heard)
			if err != nil {
				return err
			}
			if n > 0 && r.code != talk.code {
				return errors.New(r.text())
			}
			if heard = heard[n:]; n > 0 {
				break
			}
			b := make([]byte, 4<<10)
			if n, err = conn.Read(b); err != nil {
				return err
			}
			heard = append(heard, b[:n]...)
		}
	}
	if len(heard) > 0 {
		return fmt.Errorf("more in clear behind the reply to STARTTLS: %s", quote(heard))
	}
	return nil
}

// ask learns what the server offers.
func ask(ctx context.Context, o *Options) (*server, error) {
	s := &server{opts: o, offers: make(map[string][]string), values: o.values()}
	w, behind, err := s.dial(ctx, Whole)
	if err != nil {
		return nil, err
	}
	defer w.conn.Close()
	say := func(text string) (reply, error) {
		if err := w.send([]byte(text)); err != nil {
			return reply{}, err
		}
		r, n, err := w.look(o.Timeout)
		w.take(n)
		return r, err
	}
	if !behind {
		r, err := say("")
		if err = wanted(r, err); err != nil {
			return nil, fmt.Errorf("greeting: %w", err)
		}
		s.greeting = r.text()
	}
	r, err := say("EHLO " + o.Hello + "\r\n")
	if err != nil {
		return nil, fmt.Errorf("EHLO: %w", err)
	}
	if r.code == "250" {
		s.learn(r)
	} else if err := wanted(say("HELO " + o.Hello + "\r\n")); err != nil {
		return nil, fmt.Errorf("HELO: %w", err)
	}
	for _, command := range []string{"MAIL FROM:<" + o.From + ">\r\n", "RCPT TO:<" + o.To + ">\r\n"} {
		r, err := say(command)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimSpace(command), err)
		}
		if r.code[0] != '2' {
			s.refusal = r.text()
			break
		}
	}
	w.send([]byte("QUIT\r\n"))
	return s, nil
}

// wanted makes an error of a reply that is no good one.
func wanted(r reply, err error) error {
	if err == nil && r.code[0] != '2' {
		return errors.New(r.text())
	}
	return err
}

// learn keeps the keywords of a reply to EHLO. RFC 5321 §4.1.1.1.
func (s *server) learn(r reply) {
	for _, line := range r.lines[1:] {
		words := strings.Fields(strings.ToUpper(line[min(4, len(line)):]))
		if len(words) > 0 {
			s.offers[words[0]] = append(s.offers[words[0]], words[1:]...)
		}
	}
	if size := s.offers["SIZE"]; len(size) > 0 {
		// 0 is no fixed limit. RFC 1870 §3.
		if n, err := strconv.Atoi(size[0]); err == nil && n > 0 && n <= sizeMax {
			s.values["oversize"] = strconv.Itoa(n + 1)
			s.values["overlines"] = strconv.Itoa(n/64 + 1)
		}
	}
}

// misses says why d cannot be run, or "".
func (s *server) misses(d *Dialog) string {
	for _, item := range d.needs {
		if !s.has(item) {
			return item + " is not offered"
		}
	}
	for _, item := range d.lacks {
		if s.has(item) {
			return item + " is offered"
		}
	}
	switch {
	case d.start > stageMail && s.refusal != "":
		return "the recipient is refused: " + s.refusal
	case d.start == stageConnect && s.opts.TLS == "starttls":
		return "STARTTLS comes first"
	}
	return ""
}

// has reports whether a keyword, or a keyword with an argument, is offered.
func (s *server) has(item string) bool {
	words := strings.Fields(item)
	arguments, ok := s.offers[words[0]]
	return ok && (len(words) == 1 || slices.Contains(arguments, words[1]))
}
