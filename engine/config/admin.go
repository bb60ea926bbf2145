package config

import (
	"fmt"
	"time"
)

// admin judges [admin].
func (k *checker) admin(c *Config) {
	a := &c.Admin
	if a.Address != "" {
		k.address("admin.address", a.Address)
	}
	for i, name := range a.Names {
		if fault := hostFault(name); fault != "" {
			k.complain(fmt.Sprintf("admin.names[%d]", i), "%s", advise(fault, `a name that stands in URLs, as in "mta.example.com"`))
		}
	}
	if a.InjectUsers && c.Auth.Users == "" {
		k.complain("admin.inject_users", "there are no users: want a file of them, users in [auth]")
	}
	k.bytes("admin.inject_size", a.InjectSize, 1<<10, 1<<30)
	k.within("admin.inject_requests", a.InjectRequests, 1, 10_000)
	k.lasts("admin.inject_timeout", a.InjectTimeout, time.Second, time.Hour)
}
