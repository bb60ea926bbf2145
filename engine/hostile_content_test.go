package engine

import (
	"fmt"
	"slices"
	"strings"
)

// exchanges are all that TestHostile has.
func exchanges() []exchange {
	return slices.Concat(smuggling(), tlsExchanges(), injections(), states(), abuses(), logins())
}

// falseEnds are what some mail system takes for the end of data, and the reply.
var falseEnds = []struct{ row, octets, reply string }{
	{"S1", "\n.\n", "550 5.5.2"},
	{"S2", "\n.\r", "550 5.5.2"},
	{"S3", "\r.\n", "550 5.5.2"},
	{"S4", "\r.\r", "550 5.5.2"},
	{"S5", "\n.\r\n", "550 5.5.2"},
	{"S6", "\r.\r\n", "550 5.5.2"},
	{"S7", "\r\n.\n", "550 5.5.2"},
	{"S8", "\r\n.\r", "550 5.5.2"},
	{"S9", "\r\n\x00.\r\n", "550 5.6.0"},
	{"S10", "\r\n.\x00\r\n", "550 5.6.0"},
	{"S11", "\r\n.\r\r\n", "550 5.5.2"},
	{"S12", "\r\r\n.\r\n", "550 5.5.2"},
	{"S13", "\r\r\n.\r\r\n", "550 5.5.2"},
}

// smuggling are the false ends with a second message behind them, wherever they stand: one refusal, and the end. In a chunk they are content,
// which is refused for what it holds, and consumed to its last octet.
func smuggling() (all []exchange) {
	filler := strings.Repeat(strings.Repeat("x", 62)+"\r\n", 1023) + strings.Repeat("x", 63) // up to the last octet but one of 64 KiB
	for _, s := range falseEnds {
		for _, place := range []struct{ name, before string }{
			{"at the begin", ""},
			{"in the header", "Subject: x"},
			{"in the body", "Subject: x\r\n\r\ntext"},
			{"behind a dot", "text\r\n.."},
			{"in a line of 998", strings.Repeat("x", 998)},
			{"behind a line of 998", strings.Repeat("x", 998) + "\r\nx"},
			{"at the edge of the buffer", filler},
			{"behind the edge of the buffer", filler + "x"},
		} {
			all = append(all, exchange{row: s.row, name: place.name, stage: inData, input: place.before + s.octets + evil, at: len(place.before), replies: []string{s.reply}, closes: true})
		}
		content := "Subject: x\r\n\r\ntext" + s.octets + evil
		all = append(all, exchange{
			row: s.row, name: "in a chunk", stage: rcpted, input: fmt.Sprintf("BDAT %d LAST\r\n%sNOOP\r\n", len(content), content),
			replies: []string{"550 5.6.0", "250"},
		})
		binary := "From: a@b.example\r\n\r\ntext" + s.octets + evil
		all = append(all, mended(s.row, s.octets), exchange{
			row: s.row, name: "in a binary chunk", stage: helloed, replies: times(5, "250"), kept: 1,
			input: fmt.Sprintf("MAIL FROM:<s@sender.example> BODY=BINARYMIME\r\nRCPT TO:<r@local.example>\r\nBDAT %d\r\n%sBDAT 0 LAST\r\nNOOP\r\n", len(binary), binary),
		})
	}
	return append(all,
		exchange{
			row: "S14", name: "messages behind the end", stage: inData, input: "one\r\n.\r\n" + letterOf + ".two\r\n.\r\n" + letterOf + ".\r\n",
			replies: []string{"250", "250", "250", "354", "250", "250", "250", "354", "250"}, kept: 3,
		},
		exchange{
			row: "S14", name: "chunks behind chunks", stage: rcpted, input: "BDAT 3 LAST\r\n.\r\n" + strings.TrimSuffix(letterOf, "DATA\r\n") + "BDAT 5\r\n\r\n.\r\nBDAT 0 LAST\r\nNOOP\r\n",
			replies: []string{"250", "250", "250", "250", "250", "250"}, kept: 2,
		},
		exchange{
			row: "S14", name: "errors behind the end", stage: inData, input: ".\r\nDATA\r\nRCPT TO:<r@local.example>\r\n",
			replies: []string{"250", "503 5.5.1", "503 5.5.1"}, kept: 1,
		},
	)
}

// mended is a false end where newlines are mended: it is content, as all that follows to the true end. The sequence that holds a true end is
// refused, and NUL is as ever.
func mended(row, octets string) exchange {
	x := exchange{
		row: row, name: "where newlines are mended", door: doorMend, stage: inData, input: "From: a@b.example\r\n\r\ntext" + octets + strings.TrimSuffix(evil, ".\r\nQUIT\r\n") + ".\r\n",
		replies: []string{"250"}, kept: 1,
	}
	switch {
	case strings.Contains(octets, "\x00"):
		x.replies, x.closes, x.kept = []string{"550 5.6.0"}, true, 0
	case strings.Contains(octets, "\r\n.\r\n"): // the true end, but not to everybody who mends
		x.replies, x.closes, x.kept = []string{"550 5.5.2"}, true, 0
	}
	return x
}
