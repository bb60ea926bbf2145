package engine

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/explain"
)

// explained asks over HTTP.
func (r *rig) explained(address string) (status int, body []byte, report explain.Report) {
	r.t.Helper()
	resp, err := http.Get("http://" + r.AdminAddr().String() + "/v1/explain?" + url.Values{"address": {address}}.Encode())
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(body, &report); err != nil {
		r.t.Fatalf("%s: %v", body, err)
	}
	return resp.StatusCode, body, report
}

// TestExplain asks a node about sites that work, that failed, and that nobody needed yet, and holds it against what mail met there.
func TestExplain(t *testing.T) {
	t.Parallel()
	good, bad := listen(t, polite), listen(t, func(p *peer) { p.say("421 4.3.2 busy") })
	c := settings(t, good.route("good.example"), bad.route("bad.example"), discard("void.example"), config.Route{Domains: []string{"*"}, To: config.Target{Kind: config.ToMX}})
	c.DNS.Servers = []netip.AddrPort{nameServer(t, "far.example. 3600 MX 10 mx.far.example.", "mx.far.example. 3600 A 198.41.0.4", "null.example. 3600 MX 0 .")}
	c.Queue.RetryMin, c.Queue.RetryMax, c.Queue.Expire = time.Hour, 2*time.Hour, 24*time.Hour
	c.Egress.Idle = time.Hour
	c.Admin.Address = "127.0.0.1:0"
	r := start(t, c)

	if _, _, e := r.explained("a@good.example"); !e.Node || e.Site.State != explain.SiteVacant || e.Verdict.Would != explain.Deliver || e.DNS.From != explain.Literal {
		t.Errorf("%+v %+v", e, e.Site)
	}
	r.send("s@sender.example", hello, "a@good.example", "b@bad.example")
	good.next()
	r.record("deferral", "b@bad.example", 1)
	r.await("the connection to be idle", func() bool {
		_, _, e := r.explained("a@good.example")
		return e.Site.State == explain.SiteInUse && e.Site.Connections == 1 && e.Site.Idle == 1 && e.Verdict.Would == explain.Deliver
	})
	_, _, e := r.explained("x@Bad.example")
	if e.Site.State != explain.SiteBackoff || e.Site.Failures != 1 || e.Site.LastError != "421 4.3.2 busy" || e.Verdict.Would != explain.Wait || !e.Verdict.Until.After(e.Time) {
		t.Errorf("%+v %+v", e, e.Site)
	}
	r.send("s@sender.example", hello, "x@bad.example") // as it was told
	if got := r.record("deferral", "x@bad.example", 1); got.Text != "busy" || bad.connections() != 1 {
		t.Errorf("%+v, %d connections", got, bad.connections())
	}
	for address, want := range map[string]string{"a@void.example": explain.Discard, "a@null.example": explain.Bounce, "a@nobody.example": explain.Bounce} {
		if _, _, e := r.explained(address); e.Verdict.Would != want || e.Site != nil {
			t.Errorf("%s: %+v", address, e)
		}
	}
	for _, from := range []string{explain.Asked, explain.Cache} {
		if _, _, e := r.explained("a@far.example"); e.DNS.From != from || len(e.DNS.Hosts) != 1 || e.Site.Name != "mx.far.example" || e.Site.State != explain.SiteVacant {
			t.Errorf("%+v %+v", e.DNS, e.Site)
		}
	}
	for _, address := range []string{"", "nobody", "a@far..example"} {
		if status, body, _ := r.explained(address); status != http.StatusBadRequest || !strings.Contains(string(body), explain.ErrAddress.Error()) {
			t.Errorf("%q: %d %s", address, status, body)
		}
	}

	offline, err := Explain(t.Context(), c, "a@far.example")
	if err != nil || offline.Node || offline.DNS.From != explain.Asked || offline.Site.State != explain.SiteUnknown || offline.Verdict.Would != explain.Deliver {
		t.Errorf("%+v %v", offline, err)
	}
	if _, err := Explain(t.Context(), c, "nobody"); !errors.Is(err, explain.ErrAddress) {
		t.Error(err)
	}
}
