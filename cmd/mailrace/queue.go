package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
	"mailrace/engine/admin"
	"mailrace/engine/config"
)

func queueCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue",
		Short: "Look into the queue of a running node",
	}
	c.AddCommand(queueLsCommand(), queueInDoubtCommand())
	return c
}

// nodeFlags say which node is asked.
type nodeFlags struct{ path, address string }

func (f *nodeFlags) bind(c *cobra.Command) {
	c.Flags().StringVarP(&f.path, "config", "c", "mailrace.toml", configUsage+", for the address of the node")
	c.Flags().StringVar(&f.address, "admin", "", "`host:port` of the node's HTTP service, instead of a configuration")
}

// find is the address of the node.
func (f *nodeFlags) find() (string, error) {
	if f.address != "" {
		return f.address, nil
	}
	cfg, err := config.Load(f.path)
	if err != nil {
		return "", err
	}
	if cfg.Admin.Address == "" {
		return "", fmt.Errorf("%s has no [admin] address, by which a running node is asked", f.path)
	}
	return cfg.Admin.Address, nil
}

func queueLsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ls",
		Short: "List queued messages with the state of each recipient",
		Example: `  mailrace queue ls
  mailrace queue ls --domain example.com --limit 20
  mailrace queue ls --json | jq '.messages[].recipients[]'`,
	}
	lists(c, "/v1/queue", "only messages with a recipient of this `domain`", writeQueue)
	return c
}

// lists makes c print what a path of the node lists of the queue, filtered by domain; domains says what that means.
func lists(c *cobra.Command, path, domains string, write func(io.Writer, *admin.Queue) error) {
	var node nodeFlags
	var domain string
	var limit int
	var asJSON bool
	c.Args = cobra.NoArgs
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		address, err := node.find()
		if err != nil {
			return err
		}
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		if domain != "" {
			q.Set("domain", domain)
		}
		body, err := get(cmd, "http://"+address+path+"?"+q.Encode())
		if err != nil {
			return err
		}
		if asJSON {
			_, err := cmd.OutOrStdout().Write(body)
			return err
		}
		var list admin.Queue
		if err := json.Unmarshal(body, &list); err != nil {
			return fmt.Errorf("the node's answer: %w", err)
		}
		return write(cmd.OutOrStdout(), &list)
	}
	node.bind(c)
	c.Flags().StringVar(&domain, "domain", "", domains)
	c.Flags().IntVar(&limit, "limit", 100, "most messages to list")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
}

// get asks the node.
func get(cmd *cobra.Command, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return fetch(req)
}

// fetch asks the node, and returns the body of an answer that is none of trouble.
func fetch(req *http.Request) ([]byte, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("is the node running? %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the node's answer: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	text := strings.TrimSpace(string(body))
	var trouble struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &trouble) == nil && trouble.Error != "" {
		text = trouble.Error
	}
	if resp.StatusCode == http.StatusBadRequest { // it says what is wrong with what was asked
		return nil, errors.New(text)
	}
	return nil, fmt.Errorf("the node answered %s: %s", resp.Status, text)
}

// writeQueue prints a line for each recipient that is not settled.
func writeQueue(w io.Writer, list *admin.Queue) error {
	var rows [][]string
	for _, m := range list.Messages {
		for _, r := range m.Recipients {
			due := ""
			if !r.Due.IsZero() {
				due = time.Until(r.Due).Round(time.Second).String()
			}
			rows = append(rows, []string{
				m.ID, time.Since(m.Arrived).Round(time.Second).String(), strconv.FormatInt(m.Size, 10), "<" + m.Sender + ">", r.Address,
				stateOf(&r), strconv.Itoa(r.Attempts), due, r.Reply,
			})
		}
	}
	if err := console.Table(w, []string{"id", "age", "size", "sender", "recipient", "state", "tries", "next in", "last reply"}, rows); err != nil {
		return err
	}
	if list.More {
		_, err := fmt.Fprintln(w, "… and more: raise --limit")
		return err
	}
	return nil
}

// stateOf is the state of a recipient, with what is known of a delivery that may have happened.
func stateOf(r *admin.Recipient) string {
	switch {
	case r.Doubt == nil:
		return r.State
	case r.Doubt.Action == "wait":
		return "in doubt, waits"
	}
	return r.State + ", in doubt"
}
