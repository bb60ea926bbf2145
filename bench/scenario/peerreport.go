package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailrace/bench/console"
	"mailrace/bench/ledger"
	"mailrace/bench/machine"
	"mailrace/bench/result"
)

// PeerInfo is an MTA that is measured beside ours.
type PeerInfo struct {
	Name     string `json:"name"`
	Version  string `json:"version"` // or its address
	Durable  string `json:"durable,omitempty"`
	Tuned    string `json:"tuned,omitempty"`
	Held     string `json:"held,omitempty"`     // how it accepted without delivering
	LockStep string `json:"lockstep,omitempty"` // why the generator sent it one command at a time
	Counted  bool   `json:"cpu_counted"`        // CPU time is known
}

// PeerRatio is what ours does for each that the other does, in the same round.
type PeerRatio struct {
	Rate   Spread `json:"messages_per_second"`
	PerCPU Spread `json:"messages_per_cpu_second"`
}

// PeerPart is one scenario, with all MTAs.
type PeerPart struct {
	Kind   Kind                 `json:"scenario"`
	Rounds []Round              `json:"rounds"`
	Median Round                `json:"median"`
	Ratios map[string]PeerRatio `json:"ratios"` // by the name of the other
}

// PeerReport is a finished comparison.
type PeerReport struct {
	Connections int            `json:"connections"`
	Sizes       string         `json:"sizes"`
	Recipients  int            `json:"recipients"`
	Backlog     int            `json:"backlog"`
	Duration    time.Duration  `json:"duration_ns"`
	Peers       []PeerInfo     `json:"peers"`
	Parts       []PeerPart     `json:"parts"`
	Account     ledger.Account `json:"account"` // of all
	Notes       []string       `json:"notes"`
	Machine     machine.Report `json:"machine"`
}

// names are those of all that is measured, ours first.
func (r *PeerReport) names() []string {
	names := []string{MTA}
	for _, p := range r.Peers {
		names = append(names, p.Name)
	}
	return names
}

// summarize fills in what is made of the rounds.
func (r *PeerReport) summarize() {
	r.Account, r.Notes = ledger.Account{}, nil
	for i := range r.Parts {
		p := &r.Parts[i]
		p.Median, p.Ratios = Round{}, map[string]PeerRatio{}
		for _, name := range r.names() {
			var all []Measure
			for _, round := range p.Rounds {
				all = append(all, round[name])
			}
			m := medianOf(all)
			p.Median[name], r.Account = m, r.Account.Add(m.Account)
			title := string(p.Kind) + ", " + name
			r.Notes = append(append(r.Notes, m.notes(title)...), noise(title, rates(p.Rounds, name))...)
			for _, note := range misfortunes(m.Account) {
				r.Notes = append(r.Notes, title+": "+note)
			}
			if name != MTA {
				p.Ratios[name] = p.ratio(name)
			}
		}
	}
}

// ratio compares ours with another.
func (p *PeerPart) ratio(name string) PeerRatio {
	var rate, perCPU []float64
	for _, round := range p.Rounds {
		ours, other := round[MTA], round[name]
		if other.Rate > 0 {
			rate = append(rate, ours.Rate/other.Rate)
		}
		if ours.CPU > 0 && other.CPU > 0 {
			perCPU = append(perCPU, other.CPU/ours.CPU)
		}
	}
	return PeerRatio{Rate: spreadOf(rate), PerCPU: spreadOf(perCPU)}
}

// Result is the report for people.
func (r *PeerReport) Result() result.Result {
	res := result.Result{Name: "peer", Notes: r.Notes, Machine: &r.Machine}
	res.Lead = fmt.Sprintf("%d connections, %s, %d recipients, at most %d messages on their way, each round %s; medians, and ratios of the same round", r.Connections,
		r.Sizes, r.Recipients, r.Backlog, r.Duration)
	relays := false
	for i := range r.Parts {
		p := &r.Parts[i]
		relays = relays || p.Kind == Relay
		res.Parts = append(res.Parts, r.table(p))
		for _, c := range charts(p.Rounds, r.names()) {
			c.Title = string(p.Kind) + ": " + c.Title
			res.Charts = append(res.Charts, c)
		}
	}
	res.Parts = append(res.Parts, result.Part{Text: r.conditions()})
	res.Facts = []string{accounting(r.Account, relays)}
	return res
}

// table is one scenario: what each MTA did, and how much more ours did than it.
func (r *PeerReport) table(p *PeerPart) result.Part {
	part := result.Part{Text: fmt.Sprintf("%s, %d rounds", p.Kind, len(p.Rounds)), Header: []string{string(p.Kind), "messages/s", "CPU µs", "messages/CPU s",
		"syncs/message", "p50", "p99", "RSS MiB", "ours: per s", "per CPU s", "lost", "doubled", "altered"}}
	for _, name := range r.names() {
		m := p.Median[name]
		perCPU := 0.0
		if m.CPU > 0 {
			perCPU = 1e6 / m.CPU
		}
		rate, cpu := "", ""
		if ratio, ok := p.Ratios[name]; ok {
			rate, cpu = times(ratio.Rate), times(ratio.PerCPU)
		}
		account := []string{"–", "–", "–"}
		if p.Kind == Relay {
			account = []string{fmt.Sprint(m.Lost), fmt.Sprint(m.Doubled), fmt.Sprint(m.Altered)}
		}
		part.Rows = append(part.Rows, append([]string{name, fmt.Sprintf("%.0f", m.Rate), figure("%.0f", m.CPU), figure("%.0f", perCPU),
			figure("%.2f", m.SyncsPerMessage), console.Duration(m.P50), console.Duration(m.P99), fmt.Sprint(m.RSS >> 20), rate, cpu}, account...))
	}
	return part
}

// times is a ratio with its spread.
func times(s Spread) string {
	if s.Median == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f (%.1f–%.1f)", s.Median, s.Min, s.Max)
}

// conditions say what each peer was, and how it was set up.
func (r *PeerReport) conditions() string {
	var lines []string
	accepts := slices.ContainsFunc(r.Parts, func(p PeerPart) bool { return p.Kind == Accept })
	for _, p := range r.Peers {
		line := fmt.Sprintf("%s %s.", p.Name, p.Version)
		if p.Durable != "" {
			line += " Durable: " + p.Durable + ". Tuned: " + p.Tuned + "."
		}
		if accepts && p.Held != "" {
			line += " Accept: " + p.Held + "."
		}
		if p.LockStep != "" {
			line += " One command at a time: " + p.LockStep + "."
		}
		if !p.Counted {
			line += " Its CPU time is not known."
		}
		lines = append(lines, line)
	}
	return strings.Join(append(lines, "Ours accepts as in bench accept: mail is discarded once it is durable."), "\n")
}

func (r *PeerReport) fault() error { return accountFault(r.Account) }
