package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParseRecord: RFC 8460 §3.
func TestParseRecord(t *testing.T) {
	address, server := Destination{Mail: "r@a.example"}, Destination{URL: "https://a.example/v1/tls"}
	for name, c := range map[string]struct {
		texts []string
		want  []Destination
	}{
		"none":                {nil, nil},
		"mail":                {[]string{"v=TLSRPTv1;rua=mailto:r@a.example"}, []Destination{address}},
		"a semicolon at last": {[]string{"v=TLSRPTv1; rua=mailto:r@a.example;"}, []Destination{address}},
		"a web server":        {[]string{"v=TLSRPTv1; rua=https://a.example/v1/tls"}, []Destination{server}},
		"both":                {[]string{"v=TLSRPTv1; rua=mailto:r@a.example , https://a.example/v1/tls"}, []Destination{address, server}},
		"beside others":       {[]string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:r@a.example", "v=TLSRPTv10; rua=mailto:x@a.example"}, []Destination{address}},
		"other fields":        {[]string{"v=TLSRPTv1; x=y; rua=mailto:r@a.example; rua=mailto:s@a.example"}, []Destination{address}},
		"escaped":             {[]string{"v=TLSRPTv1; rua=mailto:r%21x@a.example"}, []Destination{{Mail: "r!x@a.example"}}},
		"with parameters":     {[]string{"v=TLSRPTv1; rua=mailto:r@a.example?subject=x"}, []Destination{address}},
		"twice":               {[]string{"v=TLSRPTv1; rua=mailto:r@a.example", "v=TLSRPTv1; rua=mailto:r@a.example"}, nil},
		"not the first field": {[]string{"rua=mailto:r@a.example; v=TLSRPTv1"}, nil},
		"nowhere":             {[]string{"v=TLSRPTv1"}, nil},
		"in clear":            {[]string{"v=TLSRPTv1; rua=http://a.example/"}, nil},
		"with a password":     {[]string{"v=TLSRPTv1; rua=https://u:p@a.example/"}, nil},
		"two recipients":      {[]string{"v=TLSRPTv1; rua=mailto:r@a.example%2Cs@a.example"}, nil},
		"a header":            {[]string{"v=TLSRPTv1; rua=mailto:r%0D%0ABcc:x@a.example"}, nil},
		"no address":          {[]string{"v=TLSRPTv1; rua=mailto:root"}, nil},
		"many":                {[]string{"v=TLSRPTv1; rua=" + strings.Repeat("mailto:r@a.example,", 9)}, []Destination{address, address, address, address}},
	} {
		if got := ParseRecord(c.texts); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for d, want := range map[Destination]string{address: "", server: "a.example", {URL: "https://A.example:8443/"}: "a.example", {URL: "https://[2001:DB8::1]/"}: "2001:db8::1"} {
		if got := d.Host(); got != want {
			t.Errorf("the host of %v is %q, want %q", d, got, want)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:r@a.example,https://a.example/v1/tls")
	f.Add("v=TLSRPTv1;rua=mailto:%41%0d@b")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range ParseRecord([]string{text}) {
			if d.Mail == "" == (d.URL == "") || strings.ContainsAny(d.Mail, "\r\n <>,") || d.URL != "" && !strings.HasPrefix(d.URL, "https://") || len(d.Mail)+len(d.URL) > 3*uriMax {
				t.Errorf("%q: %+v", text, d)
			}
		}
	})
}

// TestLetter: a MIME parser and a JSON parser find in it what was put there. RFC 8460 §5.3
func TestLetter(t *testing.T) {
	day := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	r := &Report{
		Organization: "Sender", Range: Range{day, day.Add(24*time.Hour - time.Second)}, Contact: "tls@mta.example", ID: "2026-11-22-a.example",
		Policies: []Result{{
			Policy:  Policy{Type: STS, Lines: []string{"version: STSv1", "mode: enforce"}, Domain: "a.example", MX: []string{"*.a.example"}},
			Summary: Summary{5, 2}, Details: []Failure{{Type: Expired, Source: "192.0.2.1", Host: "mx.a.example", Peer: "192.0.2.2", Sessions: 2, Reason: strings.Repeat("x", 200)}},
		}},
	}
	packed, err := r.Pack()
	if err != nil {
		t.Fatal(err)
	}
	l := Letter{Submitter: "mta.example", Domain: "a.example", From: "tls@mta.example", To: "r@a.example", Date: day.Add(25 * time.Hour), Report: r, Packed: packed}
	content := l.Content()
	for line := range bytes.Lines(content) {
		if !bytes.HasSuffix(line, []byte("\r\n")) || len(line) > 200 {
			t.Errorf("%q", line)
		}
	}
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" || m.Header.Get("TLS-Report-Domain") != "a.example" ||
		m.Header.Get("TLS-Report-Submitter") != "mta.example" || m.Header.Get("TLS-Required") != "No" ||
		m.Header.Get("Subject") != "Report Domain: a.example Submitter: mta.example Report-ID: <2026-11-22-a.example@mta.example>" {
		t.Errorf("%q %v: %v", kind, err, m.Header)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if p, err := parts.NextPart(); err != nil || p.Header.Get("Content-Type") != "text/plain; charset=us-ascii" {
		t.Errorf("%v, %v", p, err)
	}
	p, err := parts.NextPart()
	if err != nil || p.Header.Get("Content-Type") != MediaType || p.FileName() != "mta.example!a.example!1795305600!1795391999.json.gz" {
		t.Fatalf("%v, %v", p, err)
	}
	unpacked, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	var got Report
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(&got, r) {
		t.Errorf("%v: %s", err, text)
	}
	if !bytes.Contains(text, []byte(`"date-range":{"start-datetime":"2026-11-22T00:00:00Z","end-datetime":"2026-11-22T23:59:59Z"}`)) {
		t.Errorf("%s", text)
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Error(err)
	}
}
