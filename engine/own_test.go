package engine

import (
	"fmt"
	"net"
	"testing"
)

func TestOwnAddresses(t *testing.T) {
	_, ten, _ := net.ParseCIDR("10.0.0.5/8")
	ten.IP = net.ParseIP("10.0.0.5")
	_, six, _ := net.ParseCIDR("2001:db8::5/64")
	six.IP = net.ParseIP("2001:db8::5")
	interfaces := []net.Addr{ten, six}
	for _, c := range []struct{ listener, want string }{
		{"192.0.2.1:25", "[192.0.2.1]"},
		{"192.0.2.1:587", "[]"},
		{"[2001:db8::1]:25", "[2001:db8::1]"},
		{":25", "[10.0.0.5 2001:db8::5]"},
		{"0.0.0.0:25", "[10.0.0.5 2001:db8::5]"},
		{"[::]:25", "[10.0.0.5 2001:db8::5]"},
		{"mail.example.com:25", "[]"},
		{"nonsense", "[]"},
	} {
		if got := fmt.Sprint(ownAddresses(c.listener, 25, interfaces)); got != c.want {
			t.Errorf("%s: %s, want %s", c.listener, got, c.want)
		}
	}
}
