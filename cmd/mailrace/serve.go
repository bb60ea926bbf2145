package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"mailrace/bench/profile"
	"mailrace/engine"
	"mailrace/engine/config"
)

const configUsage = "configuration file (TOML)"

func serveCommand() *cobra.Command {
	var path, profiles string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a node until it is told to stop",
		Long: `Run a node: listen, make mail durable, deliver it.

SIGTERM and SIGINT stop it: no new mail is taken, transactions under way are finished within [engine] drain_timeout, and the spool is
closed. What is still queued is in the spool, and goes on at the next start. A second signal ends the process at once; the spool takes that
as well as it takes a power failure.`,
		Example: "  mailrace serve --config mailrace.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			log := newLogger(cfg.Log)
			if profiles != "" {
				if err := profile.Serve(cmd.Context(), profiles); err != nil {
					return err
				}
			}
			for _, danger := range cfg.Dangers() {
				log.Warn("dangerous configuration", "danger", danger)
			}
			engine.TuneRuntime(cfg)
			go engine.GiveBack(cmd.Context())
			if err := engine.Reshard(cmd.Context(), cfg, log); err != nil {
				return err
			}
			node, err := engine.New(cfg, log)
			if err != nil {
				return err
			}
			for i := range cfg.Listeners {
				log.Info("listening", "smtp", node.Addr(i))
			}
			if a := node.AdminAddr(); a != nil {
				log.Info("listening", "http", a)
			}
			if err := node.Run(cmd.Context()); err != nil {
				return err
			}
			log.Info("stopped")
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "mailrace.toml", configUsage)
	c.Flags().StringVar(&profiles, "profile-address", "", "serve profiles of this process at this loopback `host:port`, as mailrace bench asks for with --profile")
	return c
}

func newLogger(c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // validation lets no other name pass
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

func checkCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration",
		Long: `Validate a configuration. Every fault is named with file, line and column, what stands there, and what would be right; the exit status
is 1 if there is any. What is right only where strangers cannot connect is warned of.`,
		Example: "  mailrace check --config mailrace.toml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := engine.CheckUsers(cfg); err != nil {
				return err
			}
			if err := engine.CheckRecipients(cfg); err != nil {
				return err
			}
			for _, danger := range cfg.Dangers() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: warning: %s\n", path, danger)
			}
			for _, note := range cfg.Notes() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s: note: %s\n", path, note)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is good\n", path)
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "mailrace.toml", configUsage)
	return c
}

func configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print every key of the configuration, with its default and its meaning",
		Long: `Print a configuration that shows every key, with its default and its meaning. To begin with, a few keys are enough: hostname, a
[[listener]], and a [[route]] where mail does not go by MX.`,
		Example: "  mailrace config | less",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), config.Example)
			return err
		},
	}
}
