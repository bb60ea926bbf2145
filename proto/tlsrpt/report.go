package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Types of policies. RFC 8460 §4.4
const (
	TLSA     = "tlsa"
	STS      = "sts"
	NoPolicy = "no-policy-found"
)

// Types of failures. RFC 8460 §4.3
const (
	NoSTARTTLS      = "starttls-not-supported"
	HostMismatch    = "certificate-host-mismatch"
	Expired         = "certificate-expired"
	NotTrusted      = "certificate-not-trusted"
	Invalid         = "validation-failure"
	TLSAInvalid     = "tlsa-invalid"
	DNSSECInvalid   = "dnssec-invalid"
	STSFetchError   = "sts-policy-fetch-error"
	STSInvalid      = "sts-policy-invalid"
	STSWebPKIFailed = "sts-webpki-invalid"
)

// MediaType is that of a report as it is sent: JSON that is packed by gzip. RFC 8460 §6.5
const MediaType = "application/tlsrpt+gzip"

// Report is what a domain is told of a day. RFC 8460 §4.4
type Report struct {
	Organization string   `json:"organization-name"`
	Range        Range    `json:"date-range"`
	Contact      string   `json:"contact-info"`
	ID           string   `json:"report-id"`
	Policies     []Result `json:"policies"`
}

// Range is the time that a report is about, both ends included, to the second.
type Range struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// Result is what came of one policy.
type Result struct {
	Policy  Policy    `json:"policy"`
	Summary Summary   `json:"summary"`
	Details []Failure `json:"failure-details,omitempty"`
}

// Policy is what was known of a domain.
type Policy struct {
	Type   string   `json:"policy-type"`
	Lines  []string `json:"policy-string,omitempty"` // of STS the fields of the policy, of TLSA the records
	Domain string   `json:"policy-domain"`
	MX     []string `json:"mx-host,omitempty"` // of STS the hosts that the policy names, else those that were met
}

// Summary counts sessions.
type Summary struct {
	Successful int64 `json:"total-successful-session-count"`
	Failed     int64 `json:"total-failure-session-count"`
}

// Failure is one way in which sessions failed.
type Failure struct {
	Type     string `json:"result-type"`
	Source   string `json:"sending-mta-ip,omitempty"`
	Host     string `json:"receiving-mx-hostname,omitempty"`
	Peer     string `json:"receiving-ip,omitempty"`
	Sessions int64  `json:"failed-session-count"`
	Reason   string `json:"failure-reason-code,omitempty"`
}

// Pack is the report as it is sent.
func (r *Report) Pack() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

// FileName is how the report of a sender is called. RFC 8460 §5.1
func (r *Report) FileName(submitter, domain string) string {
	return fmt.Sprintf("%s!%s!%d!%d.json.gz", submitter, domain, r.Range.Start.Unix(), r.Range.End.Unix())
}

// Letter is a report as a message. RFC 8460 §5.3
type Letter struct {
	Submitter string // domain that reports
	Domain    string // that it is about
	From, To  string // addresses
	Date      time.Time
	Report    *Report
	Packed    []byte // Report.Pack
}

// base64Line is how many octets a line of an attachment holds.
const base64Line = 57

// Content is the message in wire form. It goes out whatever TLS of the domain is like, which may be what it tells of: RFC 8689 §5
func (l *Letter) Content() []byte {
	const edge = "tls-report"
	name := l.Report.FileName(l.Submitter, l.Domain)
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: <%s>", l.From)
	line("To: <%s>", l.To)
	line("Date: %s", l.Date.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	line("Message-ID: <%s.%d@%s>", l.Report.ID, l.Date.Unix(), l.Submitter)
	line("Subject: Report Domain: %s Submitter: %s\r\n Report-ID: <%s@%s>", l.Domain, l.Submitter, l.Report.ID, l.Submitter)
	line("TLS-Report-Domain: %s", l.Domain)
	line("TLS-Report-Submitter: %s", l.Submitter)
	line("TLS-Required: No")
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"%s\"", edge)
	line("")
	line("--%s\r\nContent-Type: text/plain; charset=us-ascii\r\n", edge)
	line("This is a report about the TLS of mail from %s to %s,", l.Submitter, l.Domain)
	line("of %s, as RFC 8460 has it. For people: %s", l.Report.Range.Start.Format("2 January 2006"), l.From)
	line("")
	for i := range l.Report.Policies {
		p := &l.Report.Policies[i]
		line("%s: %d sessions were as they should be, %d failed.", p.Policy.Type, p.Summary.Successful, p.Summary.Failed)
	}
	line("\r\n--%s\r\nContent-Type: %s\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n filename=\"%s\"\r\n", edge, MediaType, name)
	for rest := l.Packed; len(rest) > 0; rest = rest[min(base64Line, len(rest)):] {
		line("%s", base64.StdEncoding.EncodeToString(rest[:min(base64Line, len(rest))]))
	}
	line("\r\n--%s--", edge)
	return b.Bytes()
}

// Text is s as it may stand in a report: printable ASCII, of at most so many octets.
func Text(s string, most int) string {
	s = s[:min(len(s), most)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
