// Package smtp is the wire protocol (RFC 5321 with PIPELINING, SIZE, 8BITMIME, SMTPUTF8, CHUNKING, BINARYMIME, DSN, ENHANCEDSTATUSCODES, STARTTLS,
// AUTH, REQUIRETLS, LIMITS, FUTURERELEASE, DELIVERBY and MT-PRIORITY) as machines that take bytes and give events. They know no sockets, start no
// goroutines and read no clock; timeouts, policy and storage are the caller's.
//
//	                bytes in                         events out
//	connection ──► Server.Feed ──► Hello Mail Rcpt Data ── questions: Accept, AcceptQueued or Refuse, now or later
//	    ▲              │            Content ───────────── spans of the caller's buffer, dots removed
//	    └── Pending ◄──┘            EndOfData ─────────── the last question of a transaction
//	                                Reset Quit Close
//
//	connection ──► Client.Feed ──► ClientReady, ClientMail, ClientRcpt, ClientStart, ClientDone …
//	    ▲              │            Begin, EndContent, Reset, Quit queue commands
//	    └── Pending ◄──┘
//
// Both are pull-style: Feed works on the caller's buffer, says how much of it is used up, and keeps no copy. What it leaves is an unfinished
// line (at most MaxLine octets for the Server, MaxReplyLine for the Client, two octets inside content), which the caller presents again with
// more bytes behind it. Feeding a dialogue in any split of its bytes gives the same events and the same output. In steady state neither
// machine allocates.
//
// There is one of everything that attackers like to see twice: one Decoder for the end of data, one address grammar (ParsePath), one
// writer of commands (Client.Begin), one way out of a transaction (transaction.reset).
//
// A machine belongs to one goroutine at a time. Slices that it returns point into the caller's buffer or its own and hold until the next
// Feed.
package smtp
