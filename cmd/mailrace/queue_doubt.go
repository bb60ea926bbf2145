package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailrace/bench/console"
	"mailrace/engine/admin"
)

func queueInDoubtCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "in-doubt",
		Short: "List recipients that a delivery may have reached, and decide about those that wait",
		Long: `List recipients of queued messages that a delivery may have reached: the whole message went out, and the node or the connection went down before it was
noted what the next host said. [queue] in_doubt says what is done about them.`,
		Example: `  mailrace queue in-doubt
  mailrace queue in-doubt retry 0CKR5D9NHG001
  mailrace queue in-doubt give-up --all`,
	}
	lists(c, "/v1/queue/in-doubt", "only recipients of this `domain`", writeDoubts)
	c.AddCommand(decideCommand("retry", "Deliver what waits: its recipients may get it twice"),
		decideCommand("give-up", "Do not deliver what waits: its senders are told that it may have been delivered"))
	return c
}

// decideCommand carries out an action about messages that wait for an operator.
func decideCommand(action, short string) *cobra.Command {
	var node nodeFlags
	var all, asJSON bool
	c := &cobra.Command{
		Use:   action + " [ID…]",
		Short: short,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if all == (len(ids) > 0) {
				return errors.New("want the ids of messages, or --all")
			}
			address, err := node.find()
			if err != nil {
				return err
			}
			ask, err := json.Marshal(admin.Decide{Action: action, IDs: ids, All: all})
			if err != nil {
				return err
			}
			req, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, "http://"+address+"/v1/queue/in-doubt", bytes.NewReader(ask))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			body, err := fetch(req)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var done admin.Decision
			if err := json.Unmarshal(body, &done); err != nil {
				return fmt.Errorf("the node's answer: %w", err)
			}
			return writeDecision(cmd.OutOrStdout(), &done)
		},
	}
	node.bind(c)
	c.Flags().BoolVar(&all, "all", false, "all that wait")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// writeDoubts prints a line for each recipient.
func writeDoubts(w io.Writer, list *admin.Queue) error {
	var rows [][]string
	for _, m := range list.Messages {
		for _, r := range m.Recipients {
			d := r.Doubt
			rows = append(rows, []string{
				m.ID, "<" + m.Sender + ">", r.Address, d.Cause, time.Since(d.Began).Round(time.Second).String(), d.Peer, strconv.Itoa(d.Attempt), strconv.Itoa(d.Times),
				d.Action,
			})
		}
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "nothing is in doubt")
		return err
	}
	if err := console.Table(w, []string{"id", "sender", "recipient", "cause", "sent ago", "to", "attempt", "times", "what is done"}, rows); err != nil {
		return err
	}
	if list.More {
		_, err := fmt.Fprintln(w, "… and more: raise --limit")
		return err
	}
	return nil
}

// writeDecision says what became of a decision. Ids that nothing waits for are an error.
func writeDecision(w io.Writer, d *admin.Decision) error {
	if _, err := fmt.Fprintf(w, "%s: %d recipients of %d messages\n", d.Action, d.Recipients, d.Messages); err != nil {
		return err
	}
	if len(d.Unknown) > 0 {
		return fmt.Errorf("nothing waits for a decision in %s", strings.Join(d.Unknown, ", "))
	}
	return nil
}
