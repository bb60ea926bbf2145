package engine

import (
	"encoding/base64"
	"slices"
	"strings"
)

// What clients say to log in.
var (
	rightPlain = plain("", "alice", "right")
	wrongPlain = plain("", "alice", "wrong")
	// aliceRight are the two responses of LOGIN.
	aliceRight = "YWxpY2U=\r\ncmlnaHQ=\r\n"
)

// plain is AUTH PLAIN with an initial response. RFC 4616
func plain(authorize, name, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte(authorize+"\x00"+name+"\x00"+password)) + "\r\n"
}

// logins are rows about users.
func logins() []exchange {
	secure := []string{"starttls", "implicit"}
	clear := []string{"clear"}
	letter := strings.Replace(letterOf, "r@local.example", "r@far.example", 1)
	all := []exchange{
		{row: "T4", name: "not in clear", door: doorUser, on: clear, stage: helloed, input: rightPlain + "AUTH LOGIN\r\nAUTH SCRAM-SHA-256\r\nMAIL FROM:<s@sender.example>\r\nRCPT TO:<r@far.example>\r\n",
			replies: []string{"538 5.7.11", "538 5.7.11", "538 5.7.11", "250", "550 5.7.1"}},
		{row: "T4", name: "where it is allowed in clear", door: doorOpen, on: clear, stage: helloed, input: rightPlain + letter + "From: a@b.example\r\n\r\n.\r\n",
			replies: []string{"235", "250", "250", "354", "250"}, kept: 1},
		{row: "A6", name: "who knows the password", door: doorUser, on: secure, stage: helloed, input: rightPlain + letter + "From: a@b.example\r\n\r\n.\r\n",
			replies: []string{"235", "250", "250", "354", "250"}, kept: 1},
		{row: "A6", name: "three guesses", door: doorUser, on: secure, stage: helloed, input: strings.Repeat(wrongPlain, 5) + rightPlain,
			replies: append(times(3, "535 5.7.8"), "421 4.7.0"), closes: true},
		{row: "A6", name: "guesses by all ways", door: doorUser, on: secure, stage: helloed, input: plain("", "nobody", "right") + "AUTH LOGIN\r\nYWxpY2U=\r\nd3Jvbmc=\r\n" + plain("", "", "") + letter,
			replies: []string{"535 5.7.8 Authentication credentials invalid", "334", "334", "535 5.7.8 Authentication credentials invalid", "535 5.7.8", "421 4.7.0"}, closes: true},
		{row: "A6", name: "another identity", door: doorUser, on: secure, stage: helloed, input: plain("root", "alice", "right") + "NOOP\r\n", replies: []string{"535 5.7.8", "250"}},
		{row: "A6", name: "bad base64", door: doorUser, on: secure, stage: helloed, input: "AUTH PLAIN !\r\nAUTH PLAIN AHVz\rZXI=\r\nAUTH PLAIN AA==x\r\nAUTH PLAIN A\x00==\r\nAUTH XYZZY\r\nAUTH\r\nNOOP\r\n",
			replies: []string{"501 5.5.2", "501 5.5", "501 5.5.2", "500 5.5.2", "504 5.5.4", "501 5.5.4", "250"}},
		{row: "A6", name: "too long", door: doorUser, on: secure, stage: helloed, input: "AUTH PLAIN " + strings.Repeat("A", 12_300) + "\r\nNOOP\r\n", at: 12_288, replies: []string{"500 5.5.6", "250"}},
		{row: "A6", name: "too long a response", door: doorUser, on: secure, stage: helloed, input: "AUTH PLAIN\r\n" + strings.Repeat("A", 20_000) + "\r\nNOOP\r\n", at: 12_300, replies: []string{"334", "500 5.5.6", "250"}},
		{row: "A6", name: "response that ends badly", door: doorUser, on: secure, stage: helloed, input: "AUTH LOGIN\r\nYWxpY2U=\n" + evil, replies: []string{"334", "500 5.5.2"}, closes: true},
		{row: "B10", name: "commands behind AUTH", door: doorUser, on: secure, stage: helloed, input: "AUTH LOGIN\r\n" + aliceRight + letter + "From: a@b.example\r\n\r\n.\r\nAUTH LOGIN\r\n",
			replies: []string{"334", "334", "235", "250", "250", "354", "250", "503 5.5.1"}, kept: 1},
		{row: "B10", name: "a command for a response", door: doorUser, on: secure, stage: helloed, input: "AUTH PLAIN\r\nMAIL FROM:<s@sender.example>\r\nNOOP\r\n", replies: []string{"334", "501 5.5.2", "250"}},
		{row: "I4", name: "AUTH of MAIL", door: doorUser, on: secure, stage: helloed,
			input:   rightPlain + "MAIL FROM:<s@sender.example> AUTH=a+0Ab\r\nMAIL FROM:<s@sender.example> AUTH=a+0D+0AX:+20y\r\nMAIL FROM:<s@sender.example> AUTH=a+0\r\nRCPT TO:<r@local.example>\r\n",
			replies: []string{"235", "501 5.5.4", "501 5.5.4", "501 5.5.4", "503 5.5.1"}},
		{row: "B2", name: "AUTH in a transaction", door: doorUser, on: secure, stage: helloed,
			input:   rightPlain + "MAIL FROM:<s@sender.example>\r\nRCPT TO:<r@far.example>\r\nRSET\r\n" + noMail + "MAIL FROM:<s@sender.example>\r\n" + rightPlain,
			replies: slices.Concat([]string{"235", "250", "250", "250"}, notNow, []string{"250", "503 5.5.1"})},
	}
	return all
}
