package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/proto/message"
)

// TestWishesSurviveARestart takes what clients ask for the delivery, and binary content, and finds it in the spool and in the event log.
func TestWishesSurviveARestart(t *testing.T) {
	t.Parallel()
	f := listen(t, func(p *peer) { p.gone() }) // never greets: the messages stay
	c := secured(t)
	c.Routes = []config.Route{f.route("*")}
	c.Queue.HoldMax, c.Queue.DeliverByMin = time.Hour, time.Minute
	r := start(t, c)
	d, _ := r.dialTLS(1, insecure("mta.test.example"))
	offer := d.say("EHLO client.example", 250)
	for _, line := range []string{"LIMITS RCPTMAX=1000", "FUTURERELEASE 3600 2", "DELIVERBY 60", "MT-PRIORITY", "BINARYMIME", "REQUIRETLS"} {
		if !strings.Contains(offer, "250-"+line) {
			t.Errorf("no %s in %q", line, offer)
		}
	}
	wishes := map[string]message.Wishes{
		d.mail("MAIL FROM:<s@sender.example> HOLDFOR=600 BY=3600;RT MT-PRIORITY=7", hello, "a@far.example"): {
			Release: int64(10 * time.Minute), Deadline: int64(time.Hour), ByMode: message.ByReturn, ByTrace: true, Priority: 7,
		},
		d.mail("MAIL FROM:<s@sender.example> BY=-5;N MT-PRIORITY=-9", hello, "a@far.example"): {
			Deadline: int64(-5 * time.Second), ByMode: message.ByNotify, Priority: -9,
		},
	}
	flags := map[string]message.Flags{d.mail("MAIL FROM:<s@sender.example> REQUIRETLS", hello, "a@far.example"): message.RequireTLS}
	const binary = "Date: x\r\nFrom: s@sender.example\r\nMessage-ID: <x@sender.example>\r\n\r\n\x00\xff\n.\r"
	d.say("MAIL FROM:<s@sender.example> BODY=BINARYMIME REQUIRETLS", 250)
	d.say("RCPT TO:<a@far.example>", 250)
	d.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(binary), binary))
	flags[queued(t, d.expect(250))] = message.Binary | message.RequireTLS | message.Body8Bit
	receptions := r.records("reception")
	r.stop()
	for _, m := range inSpool(t, c) {
		got := message.Wishes{}
		if m.Wishes != nil {
			if got = *m.Wishes; got.Release != 0 {
				got.Release -= m.Arrived
			}
			if got.ByMode != message.ByNone {
				got.Deadline -= m.Arrived
			}
		}
		if id := m.ID.String(); got != wishes[id] || m.Flags&^message.LeadingDots != flags[id] {
			t.Errorf("%+v, flags %b, want %+v, %b", got, m.Flags, wishes[id], flags[id])
		}
		delete(wishes, m.ID.String())
		delete(flags, m.ID.String())
		if m.Flags&message.Binary != 0 && m.Size != int64(len(binary)) {
			t.Errorf("%d octets of binary content, want %d", m.Size, len(binary))
		}
	}
	if len(wishes)+len(flags) > 0 {
		t.Errorf("not in the spool: %v, %v", wishes, flags)
	}
	if e := receptions[0]; e.Release == "" || e.Deadline == "" || e.Priority != 7 {
		t.Errorf("record %+v", e)
	}
	if e := receptions[2]; e.Release != "" || e.Deadline != "" || e.Priority != 0 {
		t.Errorf("record %+v", e)
	}
}

// TestBinaryMIMEIsAChoice is not taken where the listener does not say so.
func TestBinaryMIMEIsAChoice(t *testing.T) {
	t.Parallel()
	r := start(t, settings(t, config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToDiscard}}))
	d := r.dial()
	if offer := d.say("EHLO client.example", 250); strings.Contains(offer, "BINARYMIME") || strings.Contains(offer, "FUTURERELEASE") {
		t.Errorf("%q", offer)
	}
	d.say("MAIL FROM:<s@sender.example> BODY=BINARYMIME", 555)
	d.say("MAIL FROM:<s@sender.example> HOLDFOR=1", 555)
	d.say("MAIL FROM:<s@sender.example> BY=1;R", 250)
}
