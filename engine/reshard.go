package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"mailrace/engine/config"
	"mailrace/spool"
)

// reshardEvery is how often the log tells how far a resharding is.
const reshardEvery = 10 * time.Second

// Reshard gives the spool the number of shards that cfg asks for, if cfg says that a node does so itself and the spool has another. Call it
// before New, which refuses such a spool. When ctx ends, it ends, and the next call goes on where it was.
func Reshard(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	c := cfg.Spool
	if c.Reshard != config.ReshardAuto || c.Shards == 0 || c.Path == nullPath {
		return nil
	}
	var step string
	var next time.Time
	done, err := spool.Reshard(ctx, spool.Options{Path: c.Path, Shards: c.Shards, Log: log}, func(p spool.Progress) {
		if now := time.Now(); p.Step != step || now.After(next) {
			step, next = p.Step, now.Add(reshardEvery)
			log.Info("resharding the spool", "step", p.Step, "done", p.Done, "of", p.Total, "left", max(p.Left(), 0).Round(time.Second))
		}
	})
	switch {
	case errors.Is(err, os.ErrNotExist): // New makes it, or says what is wrong
		return nil
	case err != nil:
		return fmt.Errorf("spool.reshard = %q: %w", c.Reshard, err)
	case done.From != done.To:
		log.Info("resharded the spool", "from", done.From, "to", done.To, "messages", done.Messages, "took", done.Took.Round(time.Millisecond))
	}
	return nil
}
