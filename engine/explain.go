package engine

import (
	"context"
	"fmt"
	"time"

	"mailrace/engine/config"
	"mailrace/engine/explain"
	"mailrace/router"
)

// Explain tells which way mail for an address would go by a configuration, without a node: it asks DNS itself, and knows nothing of sites. Its error
// is explain.ErrAddress, or that of a configuration that cannot be used.
func Explain(ctx context.Context, c *config.Config, address string) (*explain.Report, error) {
	resolver, err := newResolver(c)
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	defer resolver.Close()
	table, err := router.NewTable(routes(c))
	if err != nil {
		return nil, fmt.Errorf("routes: %w", err)
	}
	e := explain.Explainer{Config: c, Table: table, Resolver: resolver, Now: time.Now}
	return e.Explain(ctx, address)
}

// Explain tells which way mail for an address would go now. Any goroutine that may wait; its only error is explain.ErrAddress.
func (n *Node) Explain(ctx context.Context, address string) (*explain.Report, error) {
	e := explain.Explainer{Config: n.cfg, Table: n.routes, Resolver: n.resolver, View: n.router.View, Now: time.Now}
	return e.Explain(ctx, address)
}
