package config

// routeLogin judges the credentials of a route.
func (k *checker) routeLogin(key string, r *Route) {
	switch {
	case r.User == "" && r.Password == "" && r.Token == "" && r.Mechanism == "" && !r.AuthInClear, r.To.Kind == 0:
		return
	case r.User == "":
		k.complain(key+".user", "missing: want the name that password or token is for")
		return
	case r.To.Kind != ToHost && r.To.Kind != ToHostTLS && r.To.Kind != ToLMTP:
		k.complain(key+".user", "%s is not one host to log in at: want smtp://, smtps:// or lmtp://", quote(r.To.String()))
		return
	}
	mechanisms := []string{"SCRAM-SHA-256", "PLAIN", "LOGIN"}
	switch {
	case r.Password == "" && r.Token == "":
		k.complain(key+".user", `there is nothing to log in with: want password or token, as in password = "file:/etc/mailrace/relay.password"`)
	case r.Password != "" && r.Token != "":
		k.complain(key+".token", "there is a password, too: want one of them")
	case r.Token != "":
		k.secret(key+".token", r.Token)
		mechanisms = []string{"OAUTHBEARER", "XOAUTH2"}
	default:
		k.secret(key+".password", r.Password)
	}
	if r.Mechanism != "" {
		k.oneOf(key+".mechanism", r.Mechanism, mechanisms...)
	}
	if (r.TLS == TLSOpportunistic || r.TLS == TLSOff) && !r.AuthInClear {
		k.complain(key+".tls", `%s may show the credentials to everybody on the way: want "verified" or "required", or auth_in_clear = true`, quote(string(r.TLS)))
	}
}

func (k *checker) secret(key string, s Secret) {
	if _, err := parseSecret(string(s)); err != nil {
		k.complain(key, "%v", err)
	} else if _, err := s.Read(); err != nil {
		k.complain(key, "%v", err)
	}
}
