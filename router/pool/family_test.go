package pool

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"mailrace/router/mx"
)

// TestFamilies: addresses go in the order of the family that is preferred, those of a family that cannot be reached are left out, and beside each stands
// the first of the other family that is not passed over.
func TestFamilies(t *testing.T) {
	var addrs []netip.Addr
	for a := range strings.FieldsSeq("192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::2") {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	for _, x := range []struct {
		families Families
		want     string // in order, each with its second
	}{
		{Families{}, "192.0.2.1/2001:db8::1 192.0.2.2/2001:db8::1 2001:db8::1/192.0.2.1 2001:db8::2/192.0.2.1"},
		{Families{Prefer: IPv4}, "192.0.2.1/2001:db8::1 192.0.2.2/2001:db8::1 2001:db8::1/192.0.2.1 2001:db8::2/192.0.2.1"},
		{Families{Prefer: IPv6}, "2001:db8::1/192.0.2.1 2001:db8::2/192.0.2.1 192.0.2.1/2001:db8::1 192.0.2.2/2001:db8::1"},
		{Families{Prefer: IPv6, Only4: true}, "192.0.2.1/- 192.0.2.2/-"},
		{Families{Only6: true}, "2001:db8::1/- 2001:db8::2/-"},
	} {
		h := Hosts{Families: x.families}
		h.Update([]mx.Host{{Name: "mx", Addrs: addrs}, {Name: "backup", Preference: 9, Addrs: addrs}})
		var got []string
		for _, a := range h.addresses[:len(h.addresses)/2] {
			second := "-"
			if s := h.Second(a, 1); s != nil {
				second = s.Addr.String()
			}
			got = append(got, fmt.Sprint(a.Addr, "/", second))
		}
		if text := strings.Join(got, " "); text != x.want {
			t.Errorf("%+v: %s, want %s", x.families, text, x.want)
		}
		if reach := x.families.Reach(addrs[:2]); reach == x.families.Only6 {
			t.Errorf("%+v reaches IPv4: %v", x.families, reach)
		}
		first := h.addresses[0]
		if second := h.Second(first, 1); second != nil {
			h.Failed(second, 1, time.Hour)
			if again := h.Second(first, 1); again == nil || again == second {
				t.Errorf("%+v: beside %s stands %v, which failed", x.families, first.Addr, again)
			}
		}
	}
}
