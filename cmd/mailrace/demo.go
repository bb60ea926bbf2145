package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"mailrace/bench/load"
	"mailrace/bench/sink"
	"mailrace/engine"
	"mailrace/engine/config"
)

// demoOptions are the flags of mailrace demo.
type demoOptions struct {
	rate        float64
	connections int
	size        load.Sizes
	tempfail    float64
	duration    time.Duration
}

func demoCommand() *cobra.Command {
	var o demoOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it work: a node, a sink and a load in one process, no configuration",
		Long: `Start a node, a sink and a load generator on loopback, with a spool in a temporary directory, and show what happens until Ctrl-C.
A share of the mail is refused for now by the sink and tried again, so that deferrals are to be seen. Nothing is left behind.`,
		Example: `  mailrace demo
  mailrace demo --rate 0 --connections 200      as fast as this machine can`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	c.Flags().Float64Var(&o.rate, "rate", 2000, "messages per second, 0 = as fast as they are accepted")
	c.Flags().IntVar(&o.connections, "connections", 50, "connections of the load")
	addFlags(c, func(fs *flag.FlagSet) {
		fs.Var(&o.size, "size", "octets of a message, or a `mix` such as 4KiB:70,30KiB:25 (default 10KiB)")
	})
	c.Flags().Float64Var(&o.tempfail, "tempfail", 0.01, "share of messages that the sink refuses for now")
	c.Flags().DurationVar(&o.duration, "duration", 0, "stop by itself after this time, 0 = at Ctrl-C")
	return c
}

// demo runs the three of them.
func demo(ctx context.Context, out io.Writer, o demoOptions) (err error) {
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	dir, err := os.MkdirTemp("", "mailrace-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	far := sink.Options{Address: "127.0.0.1:0"}
	if err := far.Tempfail.Set(fmt.Sprintf("dot=%g", o.tempfail)); err != nil {
		return fmt.Errorf("--tempfail: %w", err)
	}
	receiver, err := sink.Start(far)
	if err != nil {
		return err
	}
	defer receiver.Close()

	cfg, err := demoConfig(dir, receiver.Addr())
	if err != nil {
		return err
	}
	engine.TuneRuntime(cfg)
	node, err := engine.New(cfg, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	go func() { served <- node.Run(nodeCtx) }()

	smtp := node.Addr(0).String()
	fmt.Fprintf(out, "node  smtp://%s   http://%s/metrics\nsink  smtp://%s\n", smtp, node.AdminAddr(), receiver.Addr())
	loadCtx, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	loaded := make(chan error, 1)
	progress := make(chan load.Progress, 1)
	go func() {
		_, err := load.Run(loadCtx, load.Options{
			Address: smtp, Connections: o.connections, Rate: o.rate, Sizes: o.size, Domains: load.MadeUpDomains(20),
			Sender: "demo@example.com", Grace: 2 * time.Second,
			Progress: func(p load.Progress) {
				select {
				case progress <- p:
				default: // the panel shows the newest it can take
				}
			},
		})
		loaded <- err
	}()

	show := newPanel(out)
	for ctx.Err() == nil {
		select {
		case p := <-progress:
			show.update(node.Status(), p, receiver.Report())
		case err := <-served:
			return errors.Join(errors.New("the node stopped"), err)
		case err := <-loaded:
			loaded <- nil
			if ctx.Err() == nil {
				return errors.Join(errors.New("the load ended"), err)
			}
		case <-ctx.Done():
		}
	}
	stopLoad()
	<-loaded
	stopNode()
	err = <-served
	show.end(node.Status(), receiver.Report())
	return err
}

// demoConfig is a node that relays everything to the sink, and tries deferred mail again within seconds.
func demoConfig(dir, sinkAddress string) (*config.Config, error) {
	to, err := netip.ParseAddrPort(sinkAddress)
	if err != nil {
		return nil, fmt.Errorf("address of the sink: %w", err)
	}
	c := config.Default()
	c.Hostname = "demo.mailrace.example"
	c.Listeners = []config.Listener{{Address: "127.0.0.1:0", Mode: config.ModeMX, RelayFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	c.Spool.Path = filepath.Join(dir, "spool")
	c.Events.Path = filepath.Join(dir, "events.jsonl")
	c.Events.Keep = 0
	c.Queue.RetryMin, c.Queue.RetryMax = 5*time.Second, time.Minute
	c.Routes = []config.Route{{Domains: []string{"*"}, To: config.Target{Kind: config.ToHost, Host: to.Addr().String(), Port: to.Port()}}}
	c.Admin.Address = "127.0.0.1:0"
	c.Engine.DrainTimeout = 5 * time.Second
	return c, c.Validate()
}
