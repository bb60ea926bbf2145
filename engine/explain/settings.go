package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailrace/engine/config"
	"mailrace/router"
	"mailrace/router/mx"
)

// way is a route as it is configured.
type way struct {
	c     *config.Config
	table string // key of its table, as in "route[0]"; "" = there is none: everything goes by MX
	to    config.Target
	route config.Route
}

func (e *Explainer) way(r *router.Route) way {
	if len(e.Config.Routes) == 0 {
		return way{c: e.Config, to: config.Target{Kind: config.ToMX}, route: config.Route{To: config.Target{Kind: config.ToMX}}}
	}
	at := r.Place()
	return way{c: e.Config, table: "route[" + strconv.Itoa(at) + "]", to: e.Config.Routes[at].To, route: e.Config.Routes[at]}
}

func (w *way) describe(r *router.Route, domain string) *Route {
	source := Default
	if w.table != "" {
		source = cmp.Or(w.c.Origin(w.table+".domains"), Default)
	}
	return &Route{Name: r.Name, To: w.to.String(), Pattern: r.Pattern(domain), Source: source}
}

// setting is the value of a key, or of the first of several that are set.
func (w *way) setting(name string, value any, keys ...string) Setting {
	last := keys[len(keys)-1]
	for _, key := range keys {
		if at := w.c.Origin(key); at != "" {
			return Setting{Name: name, Value: fmt.Sprint(value), Key: plain(key), Source: at}
		}
	}
	return Setting{Name: name, Value: fmt.Sprint(value), Key: plain(last), Source: Default}
}

// plain is a key without the index of its table.
func plain(key string) string {
	if open := strings.IndexByte(key, '['); open >= 0 {
		key = key[:open] + key[strings.IndexByte(key, ']')+1:]
	}
	return key
}

// siteConnections is the name of a setting that a provider may change.
const siteConnections = "connections to the site"

// settings fills in what holds for the mail of a route that leads somewhere.
func (e *Explainer) settings(r *Report, w way) {
	c := e.Config
	connections := []string{"egress.connections"}
	if w.route.Connections > 0 {
		connections = []string{w.table + ".connections"}
	}
	r.Limits = append(r.Limits,
		w.setting(siteConnections, cmp.Or(w.route.Connections, c.Egress.Connections), connections...),
		w.setting("connections in all", c.Engine.MaxConnections, "engine.max_connections"),
		w.setting("messages of a connection", unlimited(c.Egress.Messages), "egress.messages"),
		w.setting("recipients of a transaction", c.Egress.Recipients, "egress.recipients"),
		w.setting("idle connection kept for", span(c.Egress.Idle), "egress.idle"))
	if w.to.Kind == config.ToMaildir || w.to.Kind == config.ToSocket {
		return
	}
	if w.to.Kind != config.ToLMTP {
		r.Limits = append(r.Limits, w.setting("messages unanswered", max(c.Egress.Window, 1), "egress.window"))
	}
	r.Policies = append(r.Policies, w.tls())
	if w.to.Kind == config.ToMX && w.route.Security(c.Egress.TLS) != config.TLSOff {
		r.Policies = append(r.Policies, w.setting("MTA-STS", onOff(c.Egress.STS), "egress.mta_sts"))
		if c.Egress.DANE && len(c.DNS.TrustAD) == 0 {
			r.Policies = append(r.Policies, w.setting("DANE", "off: no name server is trusted", "dns.trust_ad"))
		} else {
			r.Policies = append(r.Policies, w.setting("DANE", onOff(c.Egress.DANE), "egress.dane"))
		}
	}
	if w.route.User != "" {
		r.Policies = append(r.Policies, w.setting("log in as", w.route.User, w.table+".user"))
	}
	r.Egress = append(r.Egress, Setting{Name: settingSource, Value: "any of this machine", Source: Default}, w.setting(settingHello, c.Hostname, "hostname"))
	if w.to.Kind == config.ToMX {
		r.Egress = append(r.Egress, w.setting("port", c.Egress.Port, "egress.port"))
	} else {
		r.Egress = append(r.Egress, w.setting("port", w.to.Port, w.table+".to"))
	}
}

// provider notes whose the hosts of an answer are, and the limit that follows.
func (e *Explainer) provider(r *Report, w way, answer *mx.Answer) {
	list := make([]router.Provider, len(e.Config.Providers))
	for i := range list {
		list[i] = router.Provider(e.Config.Providers[i])
	}
	i, err := router.ProviderOf(list, answer)
	if err != nil || i < 0 { // a node with a list that has faults would not start
		return
	}
	p, table := &list[i], fmt.Sprintf("provider[%d]", i)
	r.Site.Provider, r.Site.ProviderSource = p.Name, e.Config.Origin(table+".name")
	if p.Connections == 0 {
		return
	}
	at := slices.IndexFunc(r.Limits, func(s Setting) bool { return s.Name == siteConnections })
	if w.route.Connections == 0 || w.route.Connections > p.Connections {
		r.Limits[at] = w.setting(siteConnections, p.Connections, table+".connections")
	}
	r.Limits = slices.Insert(r.Limits, at+1, w.setting("connections to the provider", p.Connections, table+".connections"))
}

// schedule fills in when mail of no tenant is tried again, and given up.
func (e *Explainer) schedule(r *Report, route *router.Route, answer *mx.Answer) {
	w, q := way{c: e.Config}, &e.Config.Queue
	list := make([]router.Policy, len(e.Config.Policies))
	for i := range list {
		list[i] = router.Policy(e.Config.Policies[i])
	}
	retry, expire, pool, err := router.Sayers(list, r.Address.Domain, route, answer)
	if err != nil { // a node with these would not start
		retry, expire, pool = -1, -1, -1
	}
	if route != nil {
		e.pool(r, e.way(route), route, pool)
	}
	delays, first, most := q.Retry, q.RetryMin, q.RetryMax
	table, lifetime := "queue", q.Expire
	if retry >= 0 {
		p := &e.Config.Policies[retry]
		table, delays, first, most = fmt.Sprintf("policy[%d]", retry), p.Retry, cmp.Or(p.RetryMin, q.RetryMin), cmp.Or(p.RetryMax, q.RetryMax)
	}
	if len(delays) > 0 {
		spans := make([]string, len(delays))
		for i, d := range delays {
			spans[i] = span(d)
		}
		r.Limits = append(r.Limits, w.setting("retries after", strings.Join(spans, ", "), table+".retry"))
	} else {
		r.Limits = append(r.Limits,
			w.setting("first retry after", span(first), table+".retry_min", "queue.retry_min"),
			w.setting("retries at most", span(most)+" apart", table+".retry_max", "queue.retry_max"))
	}
	keys := []string{"queue.expire"}
	if expire >= 0 {
		lifetime, keys[0] = e.Config.Policies[expire].Expire, fmt.Sprintf("policy[%d].expire", expire)
	}
	r.Limits = append(r.Limits, w.setting("expires after", span(lifetime), keys...))
}

// tls is the TLS of the connections, and what demands it.
func (w *way) tls() Setting {
	value := string(w.route.Security(w.c.Egress.TLS))
	switch {
	case w.route.TLS != "":
		return w.setting("TLS", value, w.table+".tls")
	case w.to.Kind == config.ToHostTLS:
		return w.setting("TLS", value, w.table+".to")
	case w.route.User != "" && !w.route.AuthInClear:
		return w.setting("TLS", value, w.table+".user")
	}
	return w.setting("TLS", value, "egress.tls")
}

func onOff(is bool) string {
	if is {
		return "on"
	}
	return "off"
}

func unlimited(n int) string {
	if n == 0 {
		return "any number"
	}
	return strconv.Itoa(n)
}

// span prints a duration without the units that are 0: 5d, 1h30m, 10s.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
