package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"mailrace/bench/sink"
)

// TestNotificationsInPython has notifications read by the email package of Python: those of a node with each form of content and
// parameters, and one of every form that there is (those that proto/dsn compares with).
func TestNotificationsInPython(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filepath.Join(dir, "store")
	home := receiver(t, sink.Options{Store: store})
	refuses := receiver(t, sink.Options{Permfail: sink.Shares{sink.Rcpt: 1}})
	template := filepath.Join(dir, "text.txt")
	if err := os.WriteFile(template, []byte("Unzustellbar für {{range .Recipients}}{{.Address}} {{end}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n := serve(t, configOf(dir, "127.0.0.1:0", "smtp://"+refuses.Addr(), `
[[route]]
domains = ["sender.example", "wide.example", "de.example"]
to = "smtp://`+home.Addr()+`"
[[dsn.template]]
domains = ["de.example"]
subject = "Zurück: {{.Kind}}"
text = "`+template+`"
language = "de"
`))
	d := dialSMTP(t, n.smtp)
	d.say("EHLO client.example", 250)
	const header = "From: s@sender.example\r\nMessage-ID: <1@sender.example>\r\nSubject: "
	letters := []struct{ mail, rcpts, content string }{
		{"<s@sender.example> RET=FULL ENVID=a+2B1", "<a@far.example> NOTIFY=FAILURE ORCPT=rfc822;old@far.example,<b@far.example>", header + "plain\r\n\r\n.body\r\n"},
		{"<s@sender.example>", "<a@far.example>", header + "plain\r\n\r\nbody\r\n"},
		{"<s@sender.example> RET=FULL BODY=8BITMIME", "<a@far.example>", header + "8-bit\r\n\r\nbödy\r\n"},
		{"<s@sender.example> RET=HDRS BODY=8BITMIME", "<a@far.example>", header + "\xfcbel\r\n\r\nbody\r\n"},
		{"<s@sender.example> RET=FULL SMTPUTF8 BODY=8BITMIME", "<ö@far.example>", header + "übel\r\n\r\nbödy\r\n"},
		{"<s@sender.example> RET=HDRS SMTPUTF8 BODY=8BITMIME", "<ö@far.example>", header + "übel\r\n\r\nbödy\r\n"},
		{"<ü@wide.example> RET=FULL SMTPUTF8 BODY=8BITMIME", "<ö@far.example>", header + "übel\r\n\r\nbödy\r\n"},
		{"<s@de.example>", "<a@far.example>", header + "plain\r\n\r\nbody\r\n"},
	}
	for _, l := range letters {
		d.say("MAIL FROM:"+l.mail, 250)
		for rcpt := range strings.SplitSeq(l.rcpts, ",") {
			d.say("RCPT TO:"+rcpt, 250)
		}
		d.say("DATA", 354)
		d.send(strings.ReplaceAll(l.content, "\r\n.", "\r\n..") + ".\r\n")
		d.expect(250)
	}
	d.say("QUIT", 221)
	n.awaitEmpty()
	n.stop()
	if got := stored(t, store); len(got) != len(letters) {
		t.Errorf("%d notifications of %d messages", len(got), len(letters))
	}
	arrived, err := filepath.Glob(filepath.Join(store, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	forms, err := filepath.Glob("../../proto/dsn/testdata/*.eml")
	if err != nil || len(forms) < 8 {
		t.Fatalf("%v, %v", forms, err)
	}
	out, err := exec.Command("python3", append([]string{"-c", pythonReport}, append(arrived, forms...)...)...).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// pythonReport reads notifications as RFC 6522 and RFC 3464 say, and fails at any defect.
const pythonReport = `
import email, email.policy, email.utils, quopri, sys

def fields(data):
    "the groups of fields of a report for machines"
    groups = [g for g in data.decode("utf-8").replace("\r\n", "\n").replace("\n\t", " ").split("\n\n") if g]
    return [dict(line.split(": ", 1) for line in g.split("\n") if line) for g in groups]

policy = email.policy.SMTPUTF8.clone(raise_on_defect=True)
for name in sys.argv[1:]:
    data = open(name, "rb").read()
    if not data.startswith((b"Date: ", b"Received: ")):
        sys.exit(name + " does not begin as a message")
    assert all(len(line) <= 998 for line in data.split(b"\r\n")), name
    assert b"\n" not in data.replace(b"\r\n", b"") and b"\r" not in data.replace(b"\r\n", b""), name
    m = email.message_from_bytes(data, policy=policy)
    assert m.get_content_type() == "multipart/report" and m["Auto-Submitted"] == "auto-replied" and m["Date"].datetime, name
    assert m["Subject"] and m["Message-ID"] and len(m["To"].addresses) == 1 and len(m["From"].addresses) == 1, name
    text, report, returned = m.get_payload()
    assert text.get_content_type() == "text/plain" and len(text.get_content()) > 20, name
    # This parser takes messages apart: take the part as it came.
    boundary = m.get_boundary().encode()
    parts = data.split(b"--" + boundary + b"\r\n")[1:]
    assert len(parts) == 3 and data.endswith(b"--" + boundary + b"--\r\n"), name
    def body(i):
        head, content = parts[i].split(b"\r\n\r\n", 1)
        how = [l.split(b": ")[1] for l in head.split(b"\r\n") if l.startswith(b"Content-Transfer-Encoding")]
        content = content.rsplit(b"\r\n--" + boundary, 1)[0] if i == 2 else content[:-2]
        if how == [b"quoted-printable"]:
            return quopri.decodestring(content)
        assert how in ([], [b"8bit"]) and (how or content.isascii()), (name, how)
        return content
    glob = "global-" if m.get_param("report-type").startswith("global-") else ""
    assert report.get_content_type() == "message/" + m.get_param("report-type") == "message/" + glob + "delivery-status", name
    message, *recipients = fields(body(1))
    assert message["Reporting-MTA"].startswith("dns; ") and email.utils.parsedate_to_datetime(message["Arrival-Date"]), name
    assert recipients, name
    for r in recipients:
        kind, address = r["Final-Recipient"].split("; ")
        assert kind == ("rfc822" if address.isascii() and "\\x{" not in address else "utf-8"), (name, r)
        assert r["Action"] in ("failed", "delayed", "relayed", "delivered") and r["Status"].count(".") == 2, (name, r)
        assert r["Status"][0] == {"failed": "5", "delayed": "4"}.get(r["Action"], "2") or "4." in r["Status"], (name, r)
        if r["Action"] == "delayed" and "Will-Retry-Until" in r:
            assert email.utils.parsedate_to_datetime(r["Will-Retry-Until"]), name
    kind = returned.get_content_type()
    assert kind in ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"), (name, kind)
    original = email.message_from_bytes(body(2), policy=email.policy.SMTPUTF8)
    assert original["Message-ID"] is None or original["Message-ID"] == m["References"], name
    assert original["Subject"], name
print(len(sys.argv) - 1, "read")
`
