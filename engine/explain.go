package engine

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/explain"
	"mailrace/engine/policy"
	"mailrace/router"
)

// Explain tells which way mail for an address would go by a configuration, without a node: it asks DNS itself, and knows nothing of sites. Its error
// is explain.ErrAddress, or that of a configuration that cannot be used.
func Explain(ctx context.Context, c *config.Config, address string) (*explain.Report, error) {
	resolver, err := newResolver(c, time.Now)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	defer resolver.Close()
	policies, err := newPolicies(c, resolver, policy.Options{Port: httpsPort, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if policies != nil {
		defer policies.Close()
	}
	table, err := router.NewTable(routes(c))
	if err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	e := explain.Explainer{Config: c, Table: table, Resolver: resolver, Policed: policedBy(policies), Now: time.Now}
	return e.Explain(ctx, address)
}

// policedBy is nil without policies.
func policedBy(p *policy.Resolver) explain.Policed {
	if p == nil {
		return nil
	}
	return p
}

// Explain tells which way mail for an address would go now. Any goroutine that may wait; its only error is explain.ErrAddress.
func (n *Node) Explain(ctx context.Context, address string) (*explain.Report, error) {
	e := explain.Explainer{Config: n.cfg, Table: n.routes, Resolver: n.resolver, Policed: policedBy(n.policies), View: n.router.View, Now: n.clock.Now}
	return e.Explain(ctx, address)
}
