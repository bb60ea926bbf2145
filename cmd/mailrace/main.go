// Command mailrace is a high-throughput, sharded mail transfer agent, with the tools to run, watch and measure it. This package holds flags
// and sub-commands only.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker; a plain `go build` falls back to what the build recorded of the revision.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "mailrace:", err)
		}
		os.Exit(1)
	}
}

// errSilent ends a command with status 1 when everything has been said.
var errSilent = errors.New("")

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "mailrace",
		Short: "A high-throughput, sharded mail transfer agent",
		Long: `Mailrace accepts mail over SMTP as fast as the disk can make it durable, and relays it.

  mailrace demo                              see it work: a node, a sink and a load, no configuration
  mailrace config                            every key of the configuration
  mailrace check --config mailrace.toml      validate a configuration
  mailrace serve --config mailrace.toml      run a node
  mailrace explain user@example.com          the way that mail for an address would go now, and why`,
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(serveCommand(), checkCommand(), configCommand(), queueCommand(), explainCommand(), userCommand(), spoolCommand(), demoCommand(), loadCommand(), sinkCommand(), benchCommand())
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}
