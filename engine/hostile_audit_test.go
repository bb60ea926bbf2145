package engine_test

import (
	"go/ast"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// catalogue are the rows of hostile input and where each is tested: whether TestHostile has it, on every carrier and split at every octet, and
// which tests there are beside it, by folder.
var catalogue = []struct {
	row, name string
	hostile   bool
	tests     string
}{
	{"S1", "end of data: LF . LF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S2", "end of data: LF . CR", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S3", "end of data: CR . LF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S4", "end of data: CR . CR", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S5", "end of data: LF . CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S6", "end of data: CR . CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S7", "end of data: CRLF . LF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S8", "end of data: CRLF . CR", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S9", "end of data: CRLF NUL . CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S10", "end of data: CRLF . NUL CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S11", "end of data: CRLF . CR CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S12", "end of data: CR CRLF . CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S13", "end of data: CR CRLF . CR CRLF", true, "proto/smtp.TestSmuggling proto/smtp.TestMendingSmuggling"},
	{"S14", "pipelining behind the end of data", true, "proto/smtp.TestS14PipeliningAfterEndOfData"},
	{"T1", "commands behind STARTTLS", true, "engine/ingress.TestT1CommandsBehindSTARTTLS proto/smtp.TestT1BehindSTARTTLS engine/loop.TestTLSClearTextT1"},
	{"T2", "responses behind STARTTLS", false, "engine.TestT2ResponseInjection"},
	{"T3", "what is kept across STARTTLS", true, "proto/smtp.TestT3NothingIsKept"},
	{"T4", "session fixation", true, "proto/smtp.FuzzStartTLS"},
	{"T5", "parameters of STARTTLS", true, "proto/smtp.TestT5Parameters"},
	{"T6", "STARTTLS out of place", true, "proto/smtp.TestT6OutOfPlace"},
	{"T7", "TLS ends within a chunk", true, "engine/ingress.TestT7CloseNotifyInChunk engine/loop.TestTLSCloseNotifyT7"},
	{"T8", "clear text where TLS is required", false, "engine.TestT8OutboundTLS engine.TestRequireTLS engine.TestRequireTLSByMX"},
	{"T9", "other protocols", true, "engine.TestT9OtherProtocols"},
	{"T10", "tickets of another listener", false, "engine.TestT10TicketOfAnotherListener engine/loop.TestTLSTicketsT10"},
	{"T11", "slow or huge handshake", false, "engine.TestT11HandshakeThatStops engine/ingress.TestT11SlowHandshake engine/loop.TestTLSSlowHandshakeT11"},
	{"I1", "control characters in paths and parameters", true, "proto/smtp.TestI1ControlCharactersInArguments"},
	{"I2", "line ends in what a client writes", false, "proto/smtp.TestI2CommandWriter"},
	{"I3", "narrowed runes", true, "proto/smtp.TestI3NarrowedRunes"},
	{"I4", "line ends in xtext", true, "proto/smtp.TestI4InjectionThroughXtext"},
	{"I5", "NUL in xtext, and its round trip", true, "proto/smtp.TestI5Xtext"},
	{"I6", "shell in a local-part", true, "proto/smtp.TestI6ShellCharactersInLocalPart"},
	{"I7", "replies that inject", false, "proto/smtp.TestReplyParser engine.TestTroublesomePeer"},
	{"I8", "replies without text, of two codes", false, "proto/smtp.TestReplyParser"},
	{"I9", "headers injected into reports", false, "proto/dsn.TestGolden proto/dsn.TestRefuses"},
	{"I10", "terminals and formats in logs", true, "engine/event.TestLine engine.TestI10LogsAreClean"},
	{"I11", "names that close a comment", true, "proto/smtp.TestI11HelloThatClosesAComment engine/ingress.TestTraceHeader"},
	{"I12", "names used as keys", true, ""},
	{"I13", "paths in queue IDs", false, "proto/message.TestIDText engine/admin.TestAnswers"},
	{"I14", "NUL", true, "proto/smtp.TestI14NUL"},
	{"I15", "8-bit to hosts that cannot take it", false, "proto/smtp.TestI15NothingThatTheServerCannotTake engine.TestMissingExtension"},
	{"B1", "DATA behind a failed BDAT", true, "proto/smtp.TestB1FailedBDATThenData"},
	{"B2", "RCPT and DATA behind a failure", true, "proto/smtp.TestB2EveryFailureResets"},
	{"B3", "address without SMTPUTF8", true, "proto/smtp.TestB3AddressNeedsSMTPUTF8"},
	{"B4", "flood of chunks", true, "proto/smtp.TestB4ChunkFlood"},
	{"B5", "octets of a chunk", true, "proto/smtp.TestB5OctetsAreConsumedExactly"},
	{"B6", "sizes of chunks", true, "proto/smtp.TestB6ChunkSizes"},
	{"B7", "DATA and BDAT mixed", true, "proto/smtp.TestB7Mixing"},
	{"B8", "BDAT for nobody", true, "proto/smtp.TestB8ChunkForNobody"},
	{"B9", "early talker", true, "proto/smtp.TestB9EarlyTalker engine/ingress.TestB9EarlyTalker"},
	{"B10", "pipelining across sync points", true, "engine/ingress.TestB10HastyClients"},
	{"B11", "content behind a refused DATA", true, "proto/smtp.TestB11ContentAfterRefusedData"},
	{"B12", "oversized", true, "proto/smtp.TestB12Oversized proto/header.TestLimitsB12 engine/ingress.TestHeaderLimitsB12"},
	{"B13", "too large", true, "proto/smtp.TestB13TooLarge"},
	{"B14", "reset within a transaction", true, "proto/smtp.TestB14ResetInMidTransaction"},
	{"B15", "disconnect at every octet", true, "engine.TestB15InjectionCutOff proto/smtp.TestB15DisconnectAtEveryByte engine/ingress.TestDisconnectAtEveryByte"},
	{"B16", "old verbs", true, "proto/smtp.TestB16OldVerbs"},
	{"B17", "XCLIENT, XFORWARD, PROXY", true, "engine/ingress.TestB17NoProxy engine/ingress.TestB17XClientOfStrangers engine/ingress.TestA7SlowProxy"},
	{"A1", "open relay", true, "engine/ingress.TestRelayDenied"},
	{"A2", "addresses within addresses", true, "engine/ingress.TestA2StrangersRelayNowhere"},
	{"A3", "backscatter", true, "engine.TestNullSenderGetsNoReport engine.TestReportThatBounces engine.TestNotify engine.TestListedRecipientsA3 engine.TestProbedRecipientsA3"},
	{"A4", "loops", true, "engine/ingress.TestHops"},
	{"A5", "NOTIFY, ENVID, ORCPT misused", true, "proto/smtp.TestA5Notify"},
	{"A6", "brute force", true, "engine/ingress.TestA6BruteForce engine/ingress.TestA6Delay engine/ingress.TestA6ThreeTries engine/auth.TestA6BoundedHashes"},
	{"A7", "slow loris", false, "engine.TestA7SlowLorisOnEveryCarrier engine/ingress.TestA7SlowLoris engine/ingress.TestA7SlowProxy"},
	{"A8", "floods", true, "engine.TestA8FloodsOnEveryCarrier engine/ingress.TestA8EnvelopesAreCounted engine/ingress.TestA8ConnectionFlood engine/ingress.TestA8FloodCostsNoMemory"},
	{"A9", "client that never reads", false, "engine.TestA9NeverReadsOnEveryCarrier engine/ingress.TestA9ClientThatNeverReads engine/ingress.TestA9ClientThatReadsLate"},
	{"A10", "no room", false, "engine.TestA10DiskFull engine.TestA10InodesFull engine.TestA10NoRoomOnEveryCarrier engine/ingress.TestA10SlowStoreClosesNobody engine/ingress.TestFullStoreRefusesMail engine/ingress.TestStoreFails engine/ingress.TestMemoryFullRefusesMail spool.TestMetamorphic"},
	{"A11", "hash flooding", true, ""},
	{"A12", "address parsers", true, "engine.TestA12NoForeignAddressParser proto/header.TestAddressesA12"},
	{"A13", "nested MIME", true, "engine.TestA12NoForeignAddressParser"},
	{"A14", "enumeration", true, "engine/ingress.TestTarpitA14 engine/ingress.TestVrfyA14"},
	{"A15", "poisoned knowledge of recipients", false, "engine.TestContentSaysNothingA15"},
	{"D1", "null MX", false, "engine.TestD1NullSender router/mx.TestD1NullMX"},
	{"D2", "null MX beside others", false, "router/mx.TestD2NullMXBesideOthers"},
	{"D3", "implicit MX", false, "router/mx.TestD3ImplicitMX"},
	{"D4", "verdicts, and none", false, "router/mx.TestD4NoVerdict router/mx.TestD4Verdicts"},
	{"D5", "aliases of hosts", false, "router/mx.TestD5AliasesOfHosts"},
	{"D6", "aliases of domains", false, "router/mx.TestD6AliasesOfDomains"},
	{"D7", "names that are none", false, "router/mx.TestD7NamesThatAreNone"},
	{"D8", "addresses that are not public", false, "router/mx.TestD8AddressesThatAreNotPublic router/mx.TestD8Public"},
	{"D9", "this node among the exchangers", false, "router/mx.TestD9ThisNode"},
	{"D10", "hundreds of exchangers", false, "router/mx.TestD10ManyExchangers"},
	{"D11", "truncated replies", false, "router/mx.TestD11TruncatedGoesToTCP"},
	{"D12", "forged replies", false, "router/mx.TestD12ForgedReplies router/mx.TestD12WrongSource router/mx.TestD12IdsAndPorts router/mx.TestD12ForeignRecords router/mx.TestD12UntrustedAD"},
	{"D13", "malformed replies", false, "router/mx.TestD13MalformedReplies router/mx.TestD13ShortTLSA router/mx.FuzzReply"},
	{"D14", "lifetimes", false, "router/mx.TestD14Lifetimes router/mx.TestNeverStale router/mx.TestLookupsAreShared"},
	{"D15", "names in questions", false, "router/mx.TestD15Names"},
	{"D16", "rebinding", false, "router/mx.TestD16Rebinding engine.TestD16DialsWhatPassed"},
	{"D17", "MTA-STS of strangers", false, "engine.TestD17PoliciesOfStrangers engine/policy.TestD17Fetch proto/mtasts.FuzzPolicy"},
	{"D18", "DANE without DNSSEC", false, "router/mx.TestD18Associations router/mx.TestD18NoTrust router/mx.TestD18Exchangers router/mx.TestD18Usable engine.TestTLSPolicies engine/egress.TestD18Records"},
}

// later are rows that wait for what they are about: milters.
var later = []string{"B18"}

// rowsNamed notes the rows of the exchanges and ordeals in a file: composite literals whose row is a string, or whose first string is one.
func rowsNamed(f *ast.File, rows map[string]bool) {
	isRow := regexp.MustCompile(`^"[STIBAD][0-9]+"$`)
	ast.Inspect(f, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && isRow.MatchString(l.Value) {
			rows[strings.Trim(l.Value, `"`)] = true
		}
		return true
	})
}

// TestA12NoForeignAddressParser: addresses and MIME of strangers are not read by net/mail and its kin, whose time and memory nobody bounds.
// engine/inject writes MIME, for programs that are known, and reads nothing but the names of media types, in 255 octets.
func TestA12NoForeignAddressParser(t *testing.T) {
	for _, s := range sources(t, moduleRoot(t)) {
		for _, spec := range s.ast.Imports {
			imported := strings.Trim(spec.Path.Value, `"`)
			if s.dir == "engine/inject" && imported == "mime" {
				continue
			}
			if !s.test && slices.Contains([]string{"net/mail", "net/textproto", "mime", "mime/multipart"}, imported) {
				t.Errorf("%s imports %s", s.file, imported)
			}
		}
	}
}

// TestEveryHostileRowHasATest: every row has exchanges or ordeals in TestHostile, or a test that is there, and no row is forgotten.
func TestEveryHostileRowHasATest(t *testing.T) {
	sections := map[byte]int{'S': 14, 'T': 11, 'I': 15, 'B': 18, 'A': 15, 'D': 18}
	files := sources(t, moduleRoot(t))
	tests, suite := testsIn(files), map[string]bool{}
	for _, s := range files {
		if s.test && s.dir == "engine" && strings.Contains(s.file, "/hostile_") && !strings.HasSuffix(s.file, "_audit_test.go") {
			rowsNamed(s.ast, suite)
		}
	}
	for _, c := range catalogue {
		for _, name := range strings.Fields(c.tests) {
			if !tests[name] {
				t.Errorf("%s, %s: there is no %s", c.row, c.name, name)
			}
		}
		if suite[c.row] != c.hostile || !c.hostile && c.tests == "" {
			t.Errorf("%s, %s: in TestHostile %v, other tests %q", c.row, c.name, suite[c.row], c.tests)
		}
		delete(suite, c.row)
		sections[c.row[0]]--
	}
	for _, row := range later {
		sections[row[0]]--
	}
	for section, left := range sections {
		if left != 0 {
			t.Errorf("section %c: %d rows are missing", section, left)
		}
	}
	for row := range suite {
		t.Errorf("TestHostile has a row %s that the catalogue does not know", row)
	}
}

// testsIn are the names of all tests, each behind its folder.
func testsIn(files []*source) map[string]bool {
	tests := map[string]bool{}
	for _, s := range files {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				tests[s.dir+"."+f.Name.Name] = true
			}
		}
	}
	return tests
}

// clientRows are the rows of what servers may do to a client: those that a table of the test network must have (no tests), and those that whole nodes
// meet in tests of their own.
var clientRows = map[string]string{
	"T2": "engine.TestT2ResponseInjection", "T3": "engine.TestT3NothingOfTheClearCounts", "T6": "engine.TestT6OfferedAgain", "T7": "engine.TestT7ClearBehindTheEndOfTLS",
	"T8": "engine.TestT8OutboundTLS engine.TestTLSPolicies engine.TestRequireTLS engine.TestRequireTLSByMX", "T11": "engine.TestStalledHandshake",
	"I7": "engine.TestTroublesomePeer", "I8": "engine.TestTroublesomePeer", "I15": "engine.TestMissingExtension",
	"D1": "", "D2": "", "D3": "", "D4": "", "D5": "", "D6": "", "D7": "", "D8": "", "D9": "", "D10": "", "D11": "", "D12": "", "D13": "", "D15": "",
	"D14": "engine.TestLifetimesOfAnswers", "D16": "engine.TestD16DialsWhatPassed", "D17": "engine.TestD17PoliciesOfStrangers engine.TestTLSPolicies", "D18": "engine.TestTLSPolicies",
}

// TestEveryClientRowHasATest: every row of what name servers and mail hosts may do to us is had with a whole node.
func TestEveryClientRowHasATest(t *testing.T) {
	files := sources(t, moduleRoot(t))
	tests, network := testsIn(files), map[string]bool{}
	for _, s := range files {
		if s.test && s.dir == "engine" && strings.Contains(s.file, "/network_") {
			rowsNamed(s.ast, network)
		}
	}
	for row, names := range clientRows {
		for _, name := range strings.Fields(names) {
			if !tests[name] {
				t.Errorf("%s: there is no %s", row, name)
			}
		}
		if names == "" && !network[row] {
			t.Errorf("no table of the network has %s", row)
		}
	}
	for _, c := range catalogue {
		if _, ok := clientRows[c.row]; c.row[0] == 'D' && !ok {
			t.Errorf("%s, %s: no whole node meets it", c.row, c.name)
		}
	}
}
