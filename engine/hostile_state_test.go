package engine

import (
	"fmt"
	"slices"
	"strings"
)

// tooLarge is content over the limit of the fort, in lines.
var tooLarge = strings.Repeat(strings.Repeat("x", 62)+"\r\n", 200_000/64+1)

// looping is a header section of a message that has been round too often.
var looping = strings.Repeat("Received: by x; Thu, 1 Jan 2026 00:00:00 +0000\r\n", 50)

// noMail is what comes of RCPT and DATA where no transaction is.
const noMail = "RCPT TO:<r@local.example>\r\nDATA\r\n"

var notNow = times(2, "503 5.5.1")

// states are failures, and what they leave of a transaction: nothing.
func states() []exchange {
	return slices.Concat([]exchange{
		{row: "B1", name: "BDAT without MAIL", stage: helloed, input: "BDAT 5 LAST\r\nhello" + noMail, replies: append([]string{"503 5.5.1"}, notNow...)},
		{row: "B1", name: "bad content", stage: rcpted, input: "BDAT 5\r\nh\nlloBDAT 1 LAST\r\nx" + noMail, replies: append([]string{"550 5.6.0", "503 5.5.1"}, notNow...)},
		{row: "B1", name: "bad content at the end", stage: rcpted, input: "BDAT 5\r\nhello" + "BDAT 1 LAST\r\n\r" + noMail, replies: append([]string{"250", "550 5.6.0"}, notNow...)},
		{row: "B1", name: "too large", stage: rcpted, input: fmt.Sprintf("BDAT %d LAST\r\n%s", len(tooLarge), tooLarge) + noMail, replies: append([]string{"552 5.3.4"}, notNow...)},
		{row: "B1", name: "too large in the second chunk", stage: rcpted, input: fmt.Sprintf("BDAT 2\r\n\r\nBDAT %d LAST\r\n%s", len(tooLarge), tooLarge) + noMail,
			replies: append([]string{"250", "552 5.3.4"}, notNow...)},
		{row: "B1", name: "refused at the end", stage: rcpted, input: fmt.Sprintf("BDAT %d LAST\r\n%s", len(looping), looping) + noMail, replies: append([]string{"554 5.4.6"}, notNow...)},
		{row: "B2", name: "accepted", stage: inData, input: "ok\r\n.\r\n" + noMail, replies: append([]string{"250"}, notNow...), kept: 1},
		{row: "B2", name: "refused at the end", stage: inData, input: looping + "\r\n.\r\n" + noMail, replies: append([]string{"554 5.4.6"}, notNow...)},
		{row: "B2", name: "too large", stage: inData, input: tooLarge + ".\r\n" + noMail, at: len(tooLarge), replies: append([]string{"552 5.3.4"}, notNow...)},
		{row: "B2", name: "no recipient", stage: mailed, input: "RCPT TO:<@>\r\nDATA\r\n" + noMail, replies: append([]string{"501 5.1.3", "554 5.5.1"}, notNow...)},
		{row: "B2", name: "MAIL refused", stage: helloed, input: "MAIL FROM:<s@sender.example> SIZE=200001\r\n" + noMail, replies: append([]string{"552 5.3.4"}, notNow...)},
		{row: "B2", name: "MAIL malformed", stage: helloed, input: "MAIL FROM:<s@sender.example> SIZE=x\r\n" + noMail, replies: append([]string{"501 5.5.4"}, notNow...)},
		{row: "B3", name: "sender", stage: helloed, input: "MAIL FROM:<ü@x>\r\nDATA\r\nVRFY ü\r\n" + noMail + "MAIL FROM:<s@sender.example>\r\nRCPT TO:<ü@local.example>\r\nRCPT TO:<r@local.example>\r\nDATA\r\n.\r\n",
			replies: []string{"553 5.6.7", "503 5.5.1", "252", "503 5.5.1", "503 5.5.1", "250", "553 5.6.7", "250", "354", "250"}, kept: 1},
		{row: "B3", name: "parameter does not stay", stage: helloed, input: "MAIL FROM:<ü@x> SMTPUTF8\r\nRSET\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<ü@local.example>\r\n",
			replies: []string{"250", "250", "250", "553 5.6.7"}},
		{row: "B9", name: "command before the first", stage: greeted, input: "NOOP\r\nEHLO client.example\r\n" + evil[:len(evil)-6], replies: []string{"250", "250", "250", "250", "354", "250"}, kept: 1},
		{row: "B10", name: "behind EHLO", stage: greeted, input: "EHLO client.example\r\nMAIL FROM:<s@sender.example>\r\nNOOP\r\n", replies: times(3, "250")},
		{row: "B10", name: "content behind DATA", stage: rcpted, input: "DATA\r\nSubject: x\r\n\r\nRSET\r\n.\r\nNOOP\r\n", replies: []string{"354", "250", "250"}, kept: 1},
		{row: "B10", name: "content behind a refused DATA", stage: mailed, input: "DATA\r\nMAIL FROM:<s@sender.example>\r\n.\r\nRSET\r\n", replies: []string{"554 5.5.1", "250", "500 5.5.", "250"}},
		{row: "B10", name: "MAIL behind the end", stage: inData, input: ".\r\n" + letterOf + ".\r\n", replies: []string{"250", "250", "250", "354", "250"}, kept: 2},
		{row: "B10", name: "a whole group", stage: helloed, input: "RSET\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<@>\r\nRCPT TO:<r@local.example>\r\nDATA\r\n.\r\nQUIT\r\nNOOP\r\n",
			replies: []string{"250", "250", "501 5.1.3", "250", "354", "250", "221"}, closes: true, kept: 1},
		{row: "B11", name: "content for nobody", stage: helloed, input: "DATA\r\n" + strings.Repeat("a line of mail\r\n", 30) + ".\r\n" + evil,
			replies: slices.Concat([]string{"503 5.5.1"}, times(19, "500 5.5."), []string{"421 4.7.0"}), closes: true},
		{row: "B11", name: "mail in the content", stage: mailed, input: "DATA\r\nSubject: x\r\n.\r\n" + noMail, replies: append([]string{"554 5.5.1", "500 5.5.", "500 5.5."}, notNow...)},
		{row: "B14", name: "resets", stage: rcpted, input: "RSET\r\n" + noMail + "EHLO x\r\nMAIL FROM:<s@sender.example>\r\nEHLO x\r\n" + noMail + "HELO x\r\nMAIL FROM:<s@sender.example>\r\nHELO x\r\nHELO x\r\n" + noMail,
			replies: slices.Concat([]string{"250"}, notNow, times(3, "250"), notNow, times(4, "250"), notNow)},
		{row: "B14", name: "RSET between chunks", stage: rcpted, input: "BDAT 5\r\nhelloRSET\r\nBDAT 5 LAST\r\nhello" + noMail, replies: append([]string{"250", "250", "503 5.5.1"}, notNow...)},
		{row: "B14", name: "EHLO between chunks", stage: rcpted, input: "BDAT 5\r\nhelloEHLO x\r\nBDAT 0 LAST\r\n" + noMail, replies: append([]string{"250", "250", "503 5.5.1"}, notNow...)},
		{row: "B14", name: "QUIT in a transaction", stage: rcpted, input: "QUIT\r\nDATA\r\n.\r\n", replies: []string{"221"}, closes: true},
		{row: "B14", name: "QUIT between chunks", stage: rcpted, input: "BDAT 5\r\nhelloQUIT\r\nBDAT 0 LAST\r\n", replies: []string{"250", "221"}, closes: true},
		{row: "B16", name: "old verbs", stage: helloed, input: "VRFY root\r\nEXPN all\r\nETRN local.example\r\nTURN\r\nATRN\r\nSEND FROM:<s@sender.example>\r\nVRFY\r\n",
			replies: []string{"252", "502 5.5.1", "502 5.5.1", "502 5.5.1", "502 5.5.1", "502 5.5.1", "501 5.5.4"}},
		{row: "B17", name: "verbs", stage: helloed, input: "XCLIENT ADDR=127.0.0.1\r\nXFORWARD NAME=x\r\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", replies: times(3, "550 5.7.0")},
		{row: "B17", name: "header first", stage: greeted, door: doorStrange, input: "PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\nEHLO x\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<r@far.example>\r\n",
			replies: []string{"550 5.7.0", "250", "250", "550 5.7.1"}},
		{row: "B17", name: "binary header", stage: greeted, door: doorStrange, input: "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x19" + "EHLO x\r\n" + evil,
			replies: []string{"500 5.5.", "500 5.5.", "500 5.5.2", "500 5.5.2"}, closes: true},
	}, chunks(), sizes())
}

// chunks are BDAT in every wrong form: its octets are consumed exactly, and are never commands.
func chunks() (all []exchange) {
	const inside = "RSET\r\nQUIT\r\n"
	all = []exchange{
		{row: "B4", name: "BDAT 1", stage: rcpted, input: strings.Repeat("BDAT 1\r\nx", 2000), replies: append(times(1000, "250"), "421 4.7.0"), closes: true},
		{row: "B4", name: "BDAT 0", stage: rcpted, input: strings.Repeat("BDAT 0\r\n", 2000), replies: append(times(1000, "250"), "421 4.7.0"), closes: true},
		{row: "B5", name: "commands in a chunk", stage: rcpted, input: "BDAT 12\r\n" + inside + "BDAT 12 LAST\r\n" + inside + "NOOP\r\n", replies: times(3, "250"), kept: 1},
		{row: "B5", name: "lone dot", stage: rcpted, input: "BDAT 3\r\n.\r\nBDAT 5 LAST\r\n\r\n.\r\n", replies: times(2, "250"), kept: 1},
		{row: "B5", name: "dot at the end", stage: rcpted, input: "BDAT 1\r\n.BDAT 2\r\n\r\nBDAT 1 LAST\r\n.NOOP\r\n", replies: times(4, "250"), kept: 1},
		{row: "B5", name: "a line end in two chunks", stage: rcpted, input: "BDAT 2\r\nx\rBDAT 1 LAST\r\n\nNOOP\r\n", replies: times(3, "250"), kept: 1},
		{row: "B5", name: "refused chunk", stage: rcpted, input: "BDAT 14 LAST\r\n\n" + inside + "xNOOP\r\n", replies: []string{"550 5.6.0", "250"}},
		{row: "B6", name: "0 LAST", stage: rcpted, input: "BDAT 0 LAST\r\nNOOP\r\n", replies: times(2, "250"), kept: 1},
		{row: "B6", name: "over the limit", stage: rcpted, input: fmt.Sprintf("BDAT 200001 LAST\r\n%sNOOP\r\n", strings.Repeat(inside, 20_000)[:200_001]), replies: []string{"552 5.3.4", "250"}},
		{row: "B7", name: "DATA behind BDAT", stage: rcpted, input: "BDAT 2\r\n\r\nDATA\r\nRCPT TO:<r@local.example>\r\nMAIL FROM:<s@sender.example>\r\nBDAT 0 LAST\r\n",
			replies: []string{"250", "503 5.5.1", "503 5.5.1", "503 5.5.1", "250"}, kept: 1},
		{row: "B7", name: "LAST twice", stage: rcpted, input: "BDAT 2 LAST\r\n\r\nBDAT 12 LAST\r\n" + inside + "BDAT 0 LAST\r\n", replies: []string{"250", "503 5.5.1", "503 5.5.1"}, kept: 1},
		{row: "B8", name: "no transaction", stage: greeted, input: "BDAT 12\r\n" + inside + "NOOP\r\n", replies: []string{"503 5.5.1", "250"}},
		{row: "B8", name: "no recipient", stage: mailed, input: "BDAT 12 LAST\r\n" + inside + "NOOP\r\n", replies: []string{"554 5.5.1", "250"}},
		{row: "B8", name: "no recipient that is wanted", stage: mailed, input: "RCPT TO:<@>\r\nBDAT 12\r\n" + inside + "BDAT 12 LAST\r\n" + inside + noMail,
			replies: append([]string{"501 5.1.3", "554 5.5.1", "503 5.5.1"}, notNow...)},
	}
	for _, size := range []string{"-1", "1e9 LAST", "+5", "0x5", "LAST", "5 FIRST", "0 LAST x", "", "5\x00", "99999999999999999999999 LAST", "\x0b5"} {
		all = append(all, exchange{row: "B6", name: "size " + size, stage: rcpted, input: "BDAT " + size + "\r\n" + evil, replies: []string{"501 5.5.4"}, closes: true})
	}
	for _, size := range []string{"18446744073709551615", "9223372036854775808 LAST", "9223372036854775807", "99999999999999999999"} {
		all = append(all, exchange{row: "B6", name: "size " + size, stage: rcpted, input: "BDAT " + size + "\r\n" + evil, replies: []string{"552 5.3.4"}, closes: true})
	}
	return all
}

// sizes are what is over a limit.
func sizes() []exchange {
	return []exchange{
		{row: "B12", name: "line", stage: helloed, input: strings.Repeat("x", 100_000) + "\r\nMAIL FROM:<" + strings.Repeat("x", 3000) + "@sender.example>\r\nNOOP\r\n",
			replies: []string{"500 5.5.6", "500 5.5.6", "250"}},
		{row: "B12", name: "command at the end of a line", stage: helloed, input: strings.Repeat("x", 5000) + "\rRSET\r\n" + strings.Repeat("x", 2046) + "\rRSET\r\nNOOP\r\n",
			replies: []string{"500 5.5.6", "500 5.5.6", "250"}},
		{row: "B12", name: "line that ends badly", stage: helloed, input: strings.Repeat("x", 5000) + "\n" + evil, replies: []string{"500 5.5.2"}, closes: true},
		{row: "B12", name: "lines of text", stage: inData, input: strings.Repeat("x", 1001) + "\r\n" + strings.Repeat("x", 100_000) + "\r\n.\r\nNOOP\r\n", replies: []string{"250", "250"}, kept: 1},
		{row: "B12", name: "parts", stage: inData,
			input: "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" + strings.Repeat("--x\r\n\r\n\r\n", 19_000) + "--x--\r\n.\r\nNOOP\r\n", replies: []string{"250", "250"}, kept: 1},
		{row: "B12", name: "header", stage: inData, input: strings.Repeat("X-Filler: "+strings.Repeat("x", 400)+"\r\n", 260) + "\r\n.\r\n" + noMail, replies: append([]string{"552 5.3.4"}, notNow...)},
		{row: "B12", name: "header in one line", stage: inData, input: "X-Long: " + strings.Repeat("x", 103_000) + "\r\n\r\n.\r\n" + noMail, replies: append([]string{"552 5.3.4"}, notNow...)},
		{row: "B12", name: "fields", stage: inData, input: strings.Repeat("a:\r\n", 20_000) + "\r\n.\r\n" + noMail, replies: append([]string{"55"}, notNow...)},
		{row: "B5", name: "header in a chunk", stage: rcpted, input: "BDAT 120000\r\n" + strings.Repeat("RSET:\r\nQUIT:\r\n", 10_000)[:120_000] + "BDAT 6 LAST\r\nNOOP\r\n" + noMail,
			replies: append([]string{"250", "55"}, notNow...)},
		{row: "B13", name: "announced", stage: helloed, input: "MAIL FROM:<s@sender.example> SIZE=200001\r\nMAIL FROM:<s@sender.example> SIZE=99999999999999999999\r\n" + noMail,
			replies: append(times(2, "552 5.3.4"), notNow...)},
		{row: "B13", name: "streamed", stage: inData, input: tooLarge + strings.TrimSuffix(evil, ".\r\nQUIT\r\n") + ".\r\nNOOP\r\n", replies: []string{"552 5.3.4", "250"}},
		{row: "B13", name: "smuggled behind too much", stage: inData, input: tooLarge + "\n.\r\n" + evil, at: len(tooLarge), replies: []string{"550 5.5.2"}, closes: true},
		{row: "B13", name: "announced too small", stage: helloed, input: "MAIL FROM:<s@sender.example> SIZE=10\r\nRCPT TO:<r@local.example>\r\nDATA\r\n" + tooLarge + ".\r\n" + noMail,
			replies: append([]string{"250", "250", "354", "552 5.3.4"}, notNow...)},
	}
}
