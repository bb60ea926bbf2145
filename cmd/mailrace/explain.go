package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailrace/engine"
	"mailrace/engine/config"
	"mailrace/engine/explain"
)

// explainOptions are the flags of mailrace explain.
type explainOptions struct {
	node    nodeFlags
	offline bool
	asJSON  bool
}

func explainCommand() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Print the way that mail for an address would go now, and why",
		Long: `Print the way that mail for an address would go now: the route and the line of the configuration that sets it; the mail exchangers with their addresses,
for how long that holds, and where the answer came from; hosts that are not used, and why; the site that the mail queues for, its connections and failures; TLS,
with what MTA-STS and DANE demand; limits and retries (of mail without a tenant), each with the line that sets it or "default"; and in the last line what the mail would meet: it delivers, waits, or bounces.

The running node is asked, by the [admin] address of the configuration. When none answers there, or with --offline, the configuration is read and DNS
is asked from here, with the web server of a domain that has an MTA-STS policy; then nothing is known of sites, and a note on standard error says so. No mail is sent, and no mail exchanger is connected to.

Over HTTP: GET /v1/explain?address=user@example.com answers as --json prints.`,
		Example: `  mailrace explain user@example.com
  mailrace explain 'müller@bücher.example'
  mailrace explain --offline --config new.toml user@example.com     try a configuration before it runs
  mailrace explain --json user@example.com | jq .verdict`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			report, err := o.ask(cmd, args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if o.asJSON {
				e := json.NewEncoder(out)
				e.SetEscapeHTML(false)
				return e.Encode(report)
			}
			return explain.Write(out, report, coloured(out))
		},
	}
	o.node.bind(c)
	c.Flags().BoolVar(&o.offline, "offline", false, "ask no node: read the configuration, and ask DNS from here")
	c.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	c.MarkFlagsMutuallyExclusive("offline", "admin")
	return c
}

// ask asks the node, or without one the configuration and DNS.
func (o *explainOptions) ask(cmd *cobra.Command, address string) (*explain.Report, error) {
	if o.node.address != "" {
		return askNode(cmd, o.node.address, address)
	}
	c, err := config.Load(o.node.path)
	if err != nil {
		return nil, err
	}
	note := o.node.path + " has no [admin] address, by which a running node is asked"
	switch {
	case o.offline:
		note = ""
	case c.Admin.Address != "":
		report, err := askNode(cmd, c.Admin.Address, address)
		if err == nil || !absent(err) {
			return report, err
		}
		note = "no node answers at " + c.Admin.Address
	}
	if note != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "mailrace: %s: this is what %s and DNS say, without the state of sites\n", note, o.node.path)
	}
	return engine.Explain(cmd.Context(), c, address)
}

// absent says whether err means that nobody listens there.
func absent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// askNode asks the node whose HTTP service is at node.
func askNode(cmd *cobra.Command, node, address string) (*explain.Report, error) {
	body, err := get(cmd, "http://"+node+"/v1/explain?"+url.Values{"address": {address}}.Encode())
	if err != nil {
		return nil, err
	}
	report := new(explain.Report)
	if err := json.Unmarshal(body, report); err != nil {
		return nil, fmt.Errorf("the node's answer: %w", err)
	}
	return report, nil
}

// coloured says whether w is a terminal whose user wants colours. https://no-color.org
func coloured(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""
}
