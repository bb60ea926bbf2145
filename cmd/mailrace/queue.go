package main

import (
	"encoding/json"
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
	c.AddCommand(queueLsCommand())
	return c
}

func queueLsCommand() *cobra.Command {
	var path, address, domain string
	var limit int
	var asJSON bool
	c := &cobra.Command{
		Use:   "ls",
		Short: "List queued messages with the state of each recipient",
		Example: `  mailrace queue ls
  mailrace queue ls --domain example.com --limit 20
  mailrace queue ls --json | jq '.messages[].recipients[]'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if address == "" {
				cfg, err := config.Load(path)
				if err != nil {
					return err
				}
				if address = cfg.Admin.Address; address == "" {
					return fmt.Errorf("%s has no [admin] address, by which a running node is asked", path)
				}
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			if domain != "" {
				q.Set("domain", domain)
			}
			body, err := get(cmd, "http://"+address+"/v1/queue?"+q.Encode())
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
			return writeQueue(cmd.OutOrStdout(), &list)
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "mailrace.toml", configUsage+", for the address of the node")
	c.Flags().StringVar(&address, "admin", "", "`host:port` of the node's HTTP service, instead of a configuration")
	c.Flags().StringVar(&domain, "domain", "", "only messages with a recipient of this `domain`")
	c.Flags().IntVar(&limit, "limit", 100, "most messages to list")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// get asks the node.
func get(cmd *cobra.Command, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("is the node running? %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the node's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the node answered %s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
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
				r.State, strconv.Itoa(r.Attempts), due, r.Reply,
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
