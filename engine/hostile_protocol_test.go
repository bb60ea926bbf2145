package engine

import (
	"fmt"
	"strings"
)

// tlsExchanges are rows about STARTTLS that are one input with its answers.
func tlsExchanges() []exchange {
	secure := []string{"starttls", "implicit"}
	clear := []string{"clear"}
	all := []exchange{
		{row: "T5", name: "argument", on: clear, stage: helloed, input: "STARTTLS foo\r\nSTARTTLSX\r\nNOOP\r\n", replies: []string{"501 5.5.4", "500 5.5.", "250"}},
		{row: "T5", name: "argument under TLS", on: secure, stage: helloed, input: "STARTTLS foo\r\nSTARTTLSX\r\nNOOP\r\n", replies: []string{"50", "500 5.5.", "250"}},
		{row: "T6", name: "within a transaction", on: clear, stage: mailed, input: "STARTTLS\r\nRCPT TO:<r@local.example>\r\n", replies: []string{"503 5.5.1", "250"}},
		{row: "T6", name: "with a recipient", on: clear, stage: rcpted, input: "STARTTLS\r\nDATA\r\n.\r\n", replies: []string{"503 5.5.1", "354", "250"}, kept: 1},
		{row: "T6", name: "under TLS", on: secure, stage: helloed, input: "STARTTLS\r\nSTARTTLS\r\n", replies: []string{"503 5.5.1", "503 5.5.1"}},
		{row: "T6", name: "within a transaction under TLS", on: secure, stage: mailed, input: "STARTTLS\r\nRCPT TO:<r@local.example>\r\n", replies: []string{"503 5.5.1", "250"}},
	}
	for _, line := range []string{"GET / HTTP/1.1", "POST /x HTTP/1.1", "PRI * HTTP/2.0", "CONNECT x:25 HTTP/1.1"} {
		all = append(all, exchange{
			row: "T9", name: line, stage: greeted, input: line + "\r\nHost: mta.test.example\r\n\r\nEHLO client.example\r\n" + evil, replies: []string{"502 5.5.1"}, closes: true,
		})
	}
	return all
}

// controls is a line for each control character.
func controls(format string) (lines string, n int) {
	for c := byte(1); c <= 0x7f; c++ {
		if c < ' ' && c != '\n' || c == 0x7f {
			lines += fmt.Sprintf(format, c)
			n++
		}
	}
	return lines, n
}

// injections are octets on their way to files, headers and logs.
func injections() []exchange {
	all := []exchange{
		{row: "I1", name: "header in a path", stage: mailed, input: "RCPT TO:<a\rX: y@local.example>\r\nDATA\r\n", replies: []string{"501 5.5.4", "554 5.5.1"}},
		{row: "I1", name: "quoted", stage: mailed, input: "RCPT TO:<\"a\rb\"@local.example>\r\nRCPT TO:<\"a\\\x01\"@local.example>\r\nRCPT TO:<a@local.example\x1b>\r\n",
			replies: times(3, "501 5.5.4")},
		{row: "I1", name: "parameter", stage: helloed, input: "MAIL FROM:<s@sender.example> SIZE=1\x0b\r\nMAIL FROM:<s@sender.example>\rSIZE=1\r\nMAIL FROM:<s@sender.example> ENVID=a\x7f\r\nDATA\r\n",
			replies: append(times(3, "501 5.5.4"), "503 5.5.1")},
		{row: "I3", name: "narrowed", stage: mailed, input: "RCPT TO:<a\u760d\u760aX@local.example>\r\nRCPT TO:<\xff@local.example>\r\nRCPT TO:<a\xc0\x8a@local.example>\r\nRCPT TO:<a\xed\xa0\x80@local.example>\r\n",
			replies: []string{"553 5.6.7", "501 5.1.3", "501 5.1.3", "501 5.1.3"}},
		{row: "I3", name: "narrowed sender", stage: helloed, input: "MAIL FROM:<a\u760d\u760aX@sender.example>\r\nMAIL FROM:<\xe7\x98@sender.example> SMTPUTF8\r\nDATA\r\n",
			replies: []string{"553 5.6.7", "501 5.1.7", "503 5.5.1"}},
		{row: "I3", name: "with the parameter", stage: helloed,
			input:   "MAIL FROM:<a\u760d\u760aX@sender.example> SMTPUTF8\r\nRCPT TO:<\u760d\u760a@local.example>\r\nDATA\r\n.\r\n",
			replies: []string{"250", "250", "354", "250"}, kept: 1},
		{row: "I4", name: "ORCPT", stage: mailed, input: "RCPT TO:<r@local.example> ORCPT=rfc822;a+0AX\r\nRCPT TO:<r@local.example> ORCPT=rfc822;a+0D+0AX:+20y\r\nDATA\r\n",
			replies: []string{"501 5.5.4", "501 5.5.4", "554 5.5.1"}},
		{row: "I4", name: "ENVID", stage: helloed, input: "MAIL FROM:<s@sender.example> ENVID=a+0D+0Ab\r\nMAIL FROM:<s@sender.example> ENVID=a+0ab\r\nRCPT TO:<r@local.example>\r\n",
			replies: []string{"501 5.5.4", "501 5.5.4", "503 5.5.1"}},
		{row: "I5", name: "NUL in ENVID", stage: helloed, input: "MAIL FROM:<s@sender.example> ENVID=a+00\r\nMAIL FROM:<s@sender.example> ENVID=a+\r\nMAIL FROM:<s@sender.example> ENVID=a=b\r\nMAIL FROM:<s@sender.example> ENVID=a+2B\r\n",
			replies: []string{"501 5.5.4", "501 5.5.4", "501 5.5.4", "250"}},
		{row: "I5", name: "NUL in ORCPT", stage: mailed, input: "RCPT TO:<r@local.example> ORCPT=rfc822;a+00\r\nRCPT TO:<r@local.example> ORCPT=rfc822;a+0\r\nRCPT TO:<r@local.example> ORCPT=rfc822;a+2Bb\r\n",
			replies: []string{"501 5.5.4", "501 5.5.4", "250"}},
		{row: "I6", name: "sender", stage: helloed, input: "MAIL FROM:<;cmd;>\r\nMAIL FROM:<;cmd;@sender.example>\r\nMAIL FROM:<`id`|$(id)>\r\nRCPT TO:<r@local.example>\r\n",
			replies: []string{"501 5.1.7", "501 5.1.7", "501 5.1.7", "503 5.5.1"}},
		{row: "I6", name: "recipient", stage: mailed, input: "RCPT TO:<;cmd;>\r\nRCPT TO:<;cmd;@local.example>\r\nRCPT TO:<a(b)@local.example>\r\nDATA\r\n",
			replies: []string{"501 5.1.3", "501 5.1.3", "501 5.1.3", "554 5.5.1"}},
		{row: "I10", name: "formats", stage: greeted, input: "EHLO %s%n%x\r\nMAIL FROM:<%s%n@sender.example>\r\nRCPT TO:<%d%p@local.example>\r\nDATA\r\nMessage-ID: <%s%n@x>\r\n\r\n%n\r\n.\r\nNOOP %s\r\n%s%n\r\n",
			replies: []string{"250", "250", "250", "354", "250", "250", "500 5.5."}, kept: 1},
		{row: "I10", name: "terminal", stage: greeted, input: "EHLO a\x1b[2Jb\r\nEHLO a\x07b\r\nVRFY \x1b]0;x\x07\r\n", replies: times(3, "501 5.5.4")},
		{row: "I10", name: "10 KB", stage: greeted, input: "EHLO " + strings.Repeat("%s", 5<<10) + "\r\nNOOP\r\n", replies: []string{"500 5.5.6", "250"}},
		{row: "I11", name: "closed comment", stage: greeted, input: "EHLO a) by x; (\r\n" + letterOf + ".\r\n", replies: []string{"250", "250", "250", "354", "250"}, kept: 1},
		{row: "I12", name: "keys", stage: helloed,
			input: "MAIL FROM:<'/a/b@sender.example>\r\nRCPT TO:<o'neil;--@local.example>\r\nRCPT TO:<\"a/../\\\"b\"@local.example>\r\nRCPT TO:<'/*@local.example>\r\nRCPT TO:<*|&@local.example>\r\n" +
				"DATA\r\n.\r\n", replies: []string{"250", "501 5.1.3", "250", "250", "250", "354", "250"}, kept: 1},
		{row: "I14", name: "command", stage: helloed, input: "NOOP\x00\r\n\x00\r\nMAIL FROM:<a\x00@sender.example>\r\nEHLO a\x00\r\nMAIL FROM:<s@sender.example>\x00\r\n",
			replies: times(5, "500 5.5.2")},
		{row: "I14", name: "recipient", stage: mailed, input: "RCPT TO:<r\x00@local.example>\r\nDATA\r\n", replies: []string{"500 5.5.2", "554 5.5.1"}},
		{row: "I14", name: "header", stage: inData, input: "Subject: \x00\r\n\r\n.\r\n" + evil, replies: []string{"550 5.6.0"}, closes: true},
		{row: "I14", name: "body", stage: inData, input: "Subject: x\r\n\r\nte\x00xt\r\n.\r\n" + evil, replies: []string{"550 5.6.0"}, closes: true},
		{row: "I14", name: "binary content", stage: helloed,
			input:   "MAIL FROM:<s@sender.example> BODY=BINARYMIME\r\nRCPT TO:<r@local.example>\r\nDATA\r\nBDAT 27 LAST\r\nFrom: a@b.example\r\n\r\n\x00\n\r\x00\r\nNOOP\r\n",
			replies: []string{"250", "250", "503 5.5.1", "250", "250"}, kept: 1},
		{row: "I14", name: "binary header", stage: helloed,
			input:   "MAIL FROM:<s@sender.example> BODY=BINARYMIME\r\nRCPT TO:<r@local.example>\r\nBDAT 25 LAST\r\nFrom: a@b.example\x00\r\n\r\nx\r\nNOOP\r\n",
			replies: []string{"250", "250", "550 5.6.0", "250"}},
		{row: "I14", name: "chunk", stage: rcpted, input: "BDAT 12 LAST\r\nSubject: \x00\r\nNOOP\r\n", replies: []string{"550 5.6.0", "250"}},
	}
	for _, c := range []struct {
		name, format, reply string
		stage               stage
	}{
		{"all in a recipient", "RCPT TO:<a%cb@local.example>\r\n", "501 5.5.4", mailed}, {"all in a sender", "MAIL FROM:<a%cb@sender.example>\r\n", "501 5.5.4", helloed},
	} {
		lines, n := controls(c.format)
		for lines != "" { // fewer at a time than end the session
			part := min(n, 15)
			end := 0
			for range part {
				end += strings.Index(lines[end:], "\r\n") + 2
			}
			all = append(all, exchange{row: "I1", name: c.name, stage: c.stage, input: lines[:end], replies: times(part, c.reply)})
			lines, n = lines[end:], n-part
		}
	}
	return all
}
