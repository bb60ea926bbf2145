package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailrace/bench/sink"
	"mailrace/engine/admin"
)

// doubtful starts a node whose deliveries hang at the end of data, gives it messages, kills it when all of them are in flight, and starts it anew
// with a sink that takes everything, and something to do about doubts.
func doubtful(t *testing.T, action string, messages int) (n *node, dir string, ids []string, far *sink.Sink) {
	t.Helper()
	dir = t.TempDir()
	routes := ""
	for i := range messages { // each a host of its own: one that does not answer gets no second connection
		hanging := receiver(t, sink.Options{Delay: sink.Delays{sink.Dot: time.Hour}})
		routes += fmt.Sprintf("[[route]]\ndomains = [\"far%d.example\"]\nto = \"smtp://%s\"\n", i, hanging.Addr())
	}
	n = serve(t, configOf(dir, "127.0.0.1:0", "discard", routes))
	for i := range messages {
		c := dialSMTP(t, n.smtp)
		c.say("EHLO client.example", 250)
		c.say("MAIL FROM:<s@sender.example>", 250)
		c.say(fmt.Sprintf("RCPT TO:<r@far%d.example>", i), 250)
		c.say("DATA", 354)
		words := strings.Fields(c.say("Subject: doubt\r\n\r\nHello\r\n.", 250))
		ids = append(ids, words[len(words)-1])
	}
	await(t, "all messages to be in flight", func() (bool, string) {
		got := n.metric("mailrace_spool_in_flight")
		return got == fmt.Sprint(messages), got
	})
	n.kill()
	far = receiver(t, sink.Options{})
	return serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), "[queue]\nin_doubt = \""+action+"\"\n")), dir, ids, far
}

// metric is the value of a metric of the node.
func (n *node) metric(name string) string {
	resp, err := http.Get("http://" + n.admin + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		return err.Error()
	}
	for line := range strings.Lines(text.String()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return "no " + name
}

// mailrace runs the program, which must end as it is said.
func (n *node) mailrace(fails bool, args ...string) string {
	n.t.Helper()
	bin, err := program()
	if err != nil {
		n.t.Fatal(err)
	}
	out, err := exec.Command(bin, append(args, "--admin", n.admin)...).CombinedOutput()
	if (err != nil) != fails {
		n.t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return string(out)
}

// doubts asks the node what is in doubt.
func (n *node) doubts() (q admin.Queue) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.mailrace(false, "queue", "in-doubt", "--json")), &q); err != nil {
		n.t.Fatal(err)
	}
	return q
}

// awaitDoubts waits until so many messages are in doubt.
func (n *node) awaitDoubts(want int) (q admin.Queue) {
	n.t.Helper()
	await(n.t, "messages in doubt", func() (bool, string) {
		q = n.doubts()
		return len(q.Messages) == want, fmt.Sprintf("%+v", q)
	})
	return q
}

// TestDoubtsWait kills a node with five messages in flight. They wait, and an operator has one delivered and gives the others up.
func TestDoubtsWait(t *testing.T) {
	n, dir, ids, far := doubtful(t, "wait", 5)
	list := n.awaitDoubts(5)
	for _, m := range list.Messages {
		r := m.Recipients[0]
		if d := r.Doubt; d == nil || d.Cause != "crash" || d.Action != "wait" || d.Times != 1 || d.Attempt != 1 || d.Peer == "" || d.Began.IsZero() || !r.Due.IsZero() {
			t.Errorf("%+v, %+v", r, r.Doubt)
		}
	}
	if text := n.mailrace(false, "queue", "in-doubt"); strings.Count(text, "r@far") != 5 {
		t.Errorf("%s", text)
	}
	await(t, "the count of doubts", func() (bool, string) {
		got := n.metric("mailrace_queue_in_doubt_recipients")
		return got == "5", got
	})
	n.kill() // what waits stays in doubt, and is not counted once more
	n = serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+far.Addr(), "[queue]\nin_doubt = \"wait\"\n"))
	if list := n.awaitDoubts(5); list.Messages[0].Recipients[0].Doubt.Times != 1 {
		t.Errorf("in doubt are %+v", list)
	}
	if got := far.Report().Messages; got != 0 {
		t.Errorf("%d messages arrived while they waited", got)
	}

	n.mailrace(true, "queue", "in-doubt", "retry")
	n.mailrace(true, "queue", "in-doubt", "retry", "--all", ids[0])
	n.mailrace(true, "queue", "in-doubt", "retry", "0000000000001")
	if text := n.mailrace(false, "queue", "in-doubt", "retry", ids[1]); !strings.Contains(text, "1 recipients of 1 messages") {
		t.Errorf("%s", text)
	}
	await(t, "the message to arrive", func() (bool, string) {
		got := far.Report().Messages
		return got == 1 && len(n.doubts().Messages) == 4, fmt.Sprint(got)
	})
	n.mailrace(false, "queue", "in-doubt", "give-up", "--all")
	n.awaitEmpty()
	if got := far.Report().Messages; got != 1+4 {
		t.Errorf("%d messages arrived, want the one and 4 notifications", got)
	}
	if got := n.metric("mailrace_queue_in_doubt_recipients"); got != "0" {
		t.Errorf("%s recipients are in doubt at last", got)
	}
	n.stop()
	checkEvents(t, dir, map[string]int{`"type":"in-doubt"`: 5 + 5, `"action":"give-up"`: 4, `"type":"bounce"`: 4, "it is not known whether": 4})
	if left, _ := filepath.Glob(filepath.Join(dir, "mailrace-*")); len(left) > 0 {
		t.Errorf("%v are left of a node that ended in order", left)
	}
}

// TestDoubtsGiveUp: without an operator, senders are told.
func TestDoubtsGiveUp(t *testing.T) {
	n, dir, _, far := doubtful(t, "give-up", 3)
	n.awaitEmpty()
	if got := far.Report().Messages; got != 3 {
		t.Errorf("%d messages arrived, want 3 notifications", got)
	}
	n.stop()
	checkEvents(t, dir, map[string]int{`"type":"in-doubt"`: 3, `"type":"bounce"`: 3, `"sender":"","recipient":"s@sender.example"`: 3 * 2})
}

// checkEvents counts what stands in the lines of the event log.
func checkEvents(t *testing.T, dir string, want map[string]int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for part, count := range want {
		got := 0
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, part) {
				got++
			}
		}
		if got != count {
			t.Errorf("%d lines have %s, want %d\n%s", got, part, count, text)
		}
	}
}
