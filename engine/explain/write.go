package explain

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What terminals make of letters.
const (
	bold   = "\x1b[1m"
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// Write prints a report for people, the verdict at the end, where a terminal shows it last. colour: on a terminal that has some.
func Write(w io.Writer, r *Report, colour bool) error {
	p := &page{colour: colour, at: r.Time}
	p.address(&r.Address)
	p.route(r.Route)
	p.dns(r.DNS)
	p.pool(r.Pool)
	p.site(r.Site)
	p.settings("policies", r.Policies)
	p.settings("limits", r.Limits)
	p.settings("egress", r.Egress)
	p.verdict(&r.Verdict)
	_, err := io.WriteString(w, p.String())
	return err
}

// page is what is being printed.
type page struct {
	strings.Builder
	colour bool
	at     time.Time // when the report was made
}

// indent is how far the text stands from the left, behind the names of the parts.
const indent = 10

// in puts text into a colour. The text of others has lost what a terminal would act on.
func (p *page) in(colour, text string) string {
	text = clean(text)
	if !p.colour || colour == "" {
		return text
	}
	return colour + text + reset
}

// line prints a line with the name of its part, "" for a further line of it.
func (p *page) line(part, text string) {
	pad := strings.Repeat(" ", indent-len(part))
	if part != "" {
		part = p.in(bold, part)
	}
	p.WriteString(strings.TrimRight(part+pad+text, " ") + "\n")
}

// rows prints lines of which the columns are aligned, but for the last one.
func (p *page) rows(part string, colours []string, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(clean(cell)))
		}
	}
	for n, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(p.in(colours[n], cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(clean(cell))+2))
			}
		}
		p.line(part, b.String())
		part = ""
	}
}

func (p *page) address(a *Address) {
	p.line("address", p.in("", a.Normal))
	if a.Given != a.Normal {
		p.line("", p.in(dim, "sent as "+a.Given))
	}
	if a.SMTPUTF8 {
		p.line("", "hosts must offer SMTPUTF8")
	}
}

func (p *page) route(r *Route) {
	if r == nil {
		p.line("route", p.in(yellow, "none matches"))
		return
	}
	p.line("route", p.in("", r.To)+"  "+p.in(dim, fmt.Sprintf("for %q, %s", r.Pattern, r.Source)))
	if r.Mailbox != "" {
		p.line("", "mailbox "+p.in("", r.Mailbox))
	}
}

// origins are the words for DNS.From.
var origins = map[string]string{
	Asked: "asked now", Cache: "from the cache", Stale: "stale: no name server gives a verdict", Literal: "not asked: it is an address", Unknown: "no answer",
}

func (p *page) dns(d *DNS) {
	if d == nil {
		return
	}
	what := "MX of "
	if d.Question == "addresses" {
		what = "addresses of "
	}
	text := what + d.Name + ", " + origins[d.From]
	switch {
	case d.From == Unknown || d.From == Literal:
	case d.From == Stale:
		text += fmt.Sprintf(", its time is over for %s", p.seconds(d.Age))
	default:
		text += ", " + p.seconds(d.TTL) + " left"
	}
	if d.MXTTL > d.TTL {
		text += ", of the MX records " + p.seconds(d.MXTTL)
	}
	if d.Validated {
		text += ", validated"
	}
	p.line("DNS", p.in("", text))
	if d.Reply != "" {
		colour := yellow
		if d.Class == "permanent" {
			colour = red
		}
		p.line("", p.in(colour, d.Reply))
	}
	var rows [][]string
	var colours []string
	for i := range d.Hosts {
		more, tint := p.host(&d.Hosts[i], d.Question == "mx" && d.From != Literal)
		rows, colours = append(rows, more...), append(colours, tint...)
	}
	p.rows("", colours, rows)
}

// host is a line for each address of a host: preference if there is one, name, address, time left, remarks.
func (p *page) host(h *Host, preferred bool) (rows [][]string, colours []string) {
	left := p.seconds(h.TTL)
	remarks := ""
	if h.Validated {
		remarks = "validated"
	}
	if h.Demand != "" {
		remarks = strings.TrimPrefix(remarks+", must show "+h.Demand, ", ")
	}
	if h.Stale {
		left = "stale"
	}
	if h.TTL == 0 {
		left = ""
	}
	colour := ""
	if h.Dropped != "" {
		colour, remarks = dim, "not used: "+h.Dropped
	}
	first := []string{strconv.Itoa(int(h.Preference)), h.Name}
	if !preferred {
		first[0] = "-"
	}
	for _, a := range h.Addresses {
		row, tint := append(first, a.Address, left, remarks), colour
		switch {
		case h.Dropped != "":
		case a.Dropped != "":
			row[4], tint = "not used: "+a.Dropped, dim
		case !a.Until.IsZero():
			row[4], tint = fmt.Sprintf("failed %d times, passed over for %s", a.Failures, p.until(a.Until)), yellow
		}
		rows, colours = append(rows, row), append(colours, tint)
		first = []string{"", ""}
	}
	if len(rows) == 0 {
		rows, colours = append(rows, append(first, "-", left, remarks)), append(colours, colour)
	}
	return rows, colours
}

func (p *page) site(s *Site) {
	if s == nil {
		return
	}
	p.line("site", p.in("", s.Name))
	if s.Provider != "" {
		p.line("", "of the provider "+p.in("", s.Provider)+"  "+p.in(dim, s.ProviderSource))
	}
	switch s.State {
	case SiteUnknown:
		p.line("", p.in(dim, "its state is not known: "+s.Fault))
		return
	case SiteVacant:
		p.line("", "no mail, no connections, no failures")
	default:
		p.line("", fmt.Sprintf("%d queued, %d in flight, %d of %d connections (%d idle, %d opening)", s.Queued, s.InFlight, s.Connections, s.ConnectionsMost, s.Idle, s.Opening))
	}
	if s.Shared > s.Connections {
		p.line("", fmt.Sprintf("%d of %d connections in all to its hosts%s", s.Shared, s.SharedMost, ofProvider(s)))
	}
	if s.OnDisk > 0 {
		why := "for room in memory"
		if s.State == SiteBackoff {
			why = "until the site is back"
		}
		p.line("", fmt.Sprintf("some %d wait on the disk %s", s.OnDisk, why))
	}
	if s.Failures > 0 {
		text := fmt.Sprintf("failed %d times in a row", s.Failures)
		if !s.Backoff.IsZero() {
			text += ", backed off for " + p.until(s.Backoff)
		}
		p.line("", p.in(yellow, text))
	}
	if !s.Pause.IsZero() {
		p.line("", "no further connection for "+p.until(s.Pause)+": one was refused while others worked")
	}
	if s.LastError != "" {
		p.line("", p.in(yellow, "last error: "+s.LastError))
	}
}

// ofProvider says whose the connections are that sites share.
func ofProvider(s *Site) string {
	if s.Provider != "" {
		return " and the others of the provider"
	}
	return ", whatever is demanded of them"
}

func (p *page) settings(part string, all []Setting) {
	var rows [][]string
	for _, s := range all {
		source := s.Source
		if s.Key != "" {
			source = s.Key + ", " + source
		}
		rows = append(rows, []string{s.Name, s.Value, source})
	}
	p.rows(part, make([]string, len(rows)), rows)
}

func (p *page) verdict(v *Verdict) {
	word, colour := "delivers", green
	switch v.Would {
	case Discard:
		word = "discards"
	case Bounce:
		word, colour = "bounces", red
	case Wait:
		if word, colour = "waits", yellow; !v.Until.IsZero() {
			word += fmt.Sprintf(" until %s (for %s)", v.Until.Format(time.RFC3339), p.until(v.Until))
		}
	}
	p.line("now", p.in(colour, word)+": "+p.in("", v.Text))
}

func (p *page) seconds(n int64) string { return span(time.Duration(n) * time.Second) }

// until is how long it is from the report to t.
func (p *page) until(t time.Time) string { return span(max(t.Sub(p.at), 0).Round(time.Second)) }

// clean replaces what a terminal would act on, and lines that end: names in DNS and replies are the text of others.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, text)
}
