package engine

import (
	"slices"
	"strings"
)

// abuses are what strangers try.
func abuses() []exchange {
	all := []exchange{
		{row: "A1", name: "stranger", door: doorStrange, stage: mailed, input: "RCPT TO:<r@far.example>\r\nRCPT TO:<r@[127.0.0.1]>\r\nRCPT TO:<r@[192.0.2.1]>\r\nRCPT TO:<r@local.example.far.example>\r\nDATA\r\n",
			replies: append(times(4, "550 5.7.1"), "554 5.5.1")},
		{row: "A1", name: "our own domain", door: doorStrange, stage: mailed, input: "RCPT TO:<r@LOCAL.example>\r\nRCPT TO:<postmaster>\r\nDATA\r\n.\r\n", replies: []string{"250", "250", "354", "250"}, kept: 1},
		{row: "A2", name: "foreign address in a local part", door: doorStrange, stage: mailed,
			input:   "RCPT TO:<u%far.example@local.example>\r\nRCPT TO:<far.example!u@local.example>\r\nRCPT TO:<\"u@far.example\"@local.example>\r\nDATA\r\n",
			replies: append(times(3, "550 5.7.1"), "554 5.5.1")},
		{row: "A2", name: "source route", door: doorStrange, stage: mailed,
			input:   "RCPT TO:<@local.example:u@far.example>\r\nRCPT TO:<@a.example,@local.example:u@far.example>\r\nRCPT TO:<u@far.example@local.example>\r\nRCPT TO:<u@[127.0.0.1]>\r\nRCPT TO:<u@local.example:far.example>\r\n",
			replies: []string{"550 5.7.1", "550 5.7.1", "501 5.1.3", "550 5.7.1", "501 5.1.3"}},
		{row: "A3", name: "null sender", door: doorStrange, stage: helloed, input: "MAIL FROM:<>\r\nRCPT TO:<r@far.example>\r\nRCPT TO:<r@local.example>\r\nDATA\r\nFrom: a@b.example\r\n\r\n.\r\n",
			replies: []string{"250", "550 5.7.1", "250", "354", "250"}, kept: 1},
		{row: "A3", name: "unknown user", door: doorStrange, stage: mailed, input: "RCPT TO:<nobody@listed.example>\r\nRCPT TO:<known+x@listed.example>\r\nRCPT TO:<known@listed.example>\r\nDATA\r\n.\r\n",
			replies: []string{"550 5.1.1", "550 5.1.1", "250", "354", "250"}, kept: 1},
		{row: "A14", name: "the same for everybody", door: doorStrange, stage: helloed, input: "VRFY known@listed.example\r\nVRFY nobody@listed.example\r\nVRFY r@far.example\r\nVRFY postmaster\r\nEXPN known\r\n",
			replies: append(times(4, "252 2.1.5 Cannot VRFY user"), "502 5.5.1")},
		{row: "A14", name: "a list of names", door: doorStrange, stage: mailed, input: many("RCPT TO:<", "x@listed.example>\r\n", 25), replies: append(times(20, "550 5.1.1"), "421 4.7.0"), closes: true},
		{row: "A4", name: "50 hops", stage: inData, input: looping + "\r\n.\r\n", replies: []string{"554 5.4.6"}},
		{row: "A4", name: "hops in other letters", stage: inData, input: strings.ReplaceAll(looping, "Received:", "rEcEiVeD:") + "Received:x\r\n\r\n.\r\n", replies: []string{"554 5.4.6"}},
		{row: "A4", name: "hops in the body", stage: inData, input: "Subject: x\r\n\r\n" + looping + ".\r\n", replies: []string{"250"}, kept: 1},
		{row: "A5", name: "NOTIFY", stage: mailed,
			input: "RCPT TO:<r@local.example> NOTIFY=NEVER,DELAY\r\nRCPT TO:<r@local.example> NOTIFY=DELAY,NEVER\r\nRCPT TO:<r@local.example> NOTIFY=\r\nRCPT TO:<r@local.example> NOTIFY=SUCCESS,\r\n" +
				"RCPT TO:<r@local.example> NOTIFY=FAILURE NOTIFY=FAILURE\r\nRCPT TO:<r@local.example> NOTIFY=NEVER\r\n", replies: append(times(5, "501 5.5.4"), "250")},
		{row: "A5", name: "ENVID", stage: helloed, input: "MAIL FROM:<s@sender.example> ENVID=" + strings.Repeat("x", 101) + "\r\nMAIL FROM:<s@sender.example> ENVID=\r\nMAIL FROM:<s@sender.example> RET=ALL\r\n",
			replies: times(3, "501 5.5.4")},
		{row: "A5", name: "ORCPT", stage: mailed, input: "RCPT TO:<r@local.example> ORCPT=r@far.example\r\nRCPT TO:<r@local.example> ORCPT=;r\r\nRCPT TO:<r@local.example> ORCPT=rfc822;" +
			strings.Repeat("x", 600) + "\r\n", replies: times(3, "501 5.5.4")},
		{row: "A8", name: "recipients", stage: mailed, input: strings.Repeat("RCPT TO:<r@local.example>\r\n", 1100) + "DATA\r\n.\r\n",
			replies: slices.Concat(times(1000, "250"), times(100, "452 4.5.3"), []string{"354", "250"}), kept: 1},
		{row: "A8", name: "recipients without end", stage: mailed, input: strings.Repeat("RCPT TO:<r@local.example>\r\n", 3000),
			replies: slices.Concat(times(1000, "250"), times(1020, "452 4.5.3"), []string{"421 4.7.0"}), closes: true},
		{row: "A11", name: "one domain after another", stage: mailed, input: many("RCPT TO:<r@", "local.example>\r\n", 900) + "DATA\r\n.\r\n",
			replies: slices.Concat(times(900, "250"), []string{"354", "250"}), kept: 1},
		{row: "A12", name: "addresses", stage: mailed, input: "RCPT TO:<a@[" + strings.Repeat("1.", 900) + "]>\r\nRCPT TO:<\"" + strings.Repeat("\\\"", 900) + "\"@x>\r\nRCPT TO:<" + strings.Repeat("(", 900) + "a@x>\r\nRCPT TO:<" +
			strings.Repeat("@a,", 600) + ":a@local.example>\r\n", replies: times(4, "501 5.1.3")},
		{row: "A12", name: "header values", stage: inData, input: "From: " + strings.Repeat("(", 60_000) + "\r\nTo: a@[" + strings.Repeat("1.", 15_000) + "]\r\n\r\n.\r\nNOOP\r\n", replies: []string{"250", "250"}, kept: 1},
		{row: "A13", name: "nested parts", stage: inData, input: nested(1500) + ".\r\nNOOP\r\n", replies: []string{"250", "250"}, kept: 1},
	}
	return all
}

// many is a line for each of n labels.
func many(before, behind string, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(before + strings.Repeat("x", 1+i%60) + "." + behind)
	}
	return b.String()
}

// nested is a message within a message, and so on.
func nested(depth int) string {
	return strings.Repeat("Content-Type: message/rfc822\r\n\r\n", depth) + strings.Repeat("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", depth)
}
