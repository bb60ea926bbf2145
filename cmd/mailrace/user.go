package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailrace/bench/console"
	"mailrace/engine"
	"mailrace/engine/auth"
	"mailrace/engine/config"
)

func userCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "user",
		Short: "Manage the users who may send with a password",
		Long: `Manage the file of users that [auth] users names: who may log in with AUTH, as whom they may send, and how much.

A running node notices a change within a second. A session whose user is gone, or has another password, ends at its next message. Passwords are
kept as argon2id, and as a verifier of SCRAM-SHA-256, from which nobody can log in. The file is a list of tables [[user]] in TOML, which may be
edited by hand as well: name, password ("$argon2id$…" or "$2y$…" of bcrypt), scram, senders, tenant, messages, recipients, connections.`,
	}
	c.AddCommand(userAddCommand(), userPasswdCommand(), userRmCommand(), userLsCommand())
	return c
}

// userFile is where the users are, by flags.
type userFile struct{ file, config string }

func (u *userFile) flags(c *cobra.Command) {
	c.Flags().StringVarP(&u.file, "file", "f", "", "`file` of users, instead of the one that a configuration names")
	c.Flags().StringVarP(&u.config, "config", "c", "mailrace.toml", configUsage+", for [auth] users")
}

func (u *userFile) path() (string, error) {
	if u.file != "" {
		return u.file, nil
	}
	path, err := config.UsersOf(u.config)
	if err == nil && path == "" {
		err = fmt.Errorf(`%s names no file of users: want users = "users.toml" in its [auth], or --file`, u.config)
	}
	return path, err
}

// change has the file changed, and says what was done.
func (u *userFile) change(cmd *cobra.Command, create bool, done string, fn func(f *config.UsersFile) error) error {
	path, err := u.path()
	if err != nil {
		return err
	}
	if err := config.ChangeUsers(path, engine.UserForms(), create, fn); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (%s)\n", done, path)
	return err
}

// secrets is where a password comes from, and what is kept of it.
type secrets struct{ stdin, scram bool }

func (s *secrets) flags(c *cobra.Command) {
	c.Flags().BoolVar(&s.stdin, "password-stdin", false, "read the password from the first line of standard input, not from the terminal")
	c.Flags().BoolVar(&s.scram, "scram", true, "keep a verifier for SCRAM-SHA-256, too")
}

// read asks for the password and puts what is kept of it into u.
func (s *secrets) read(cmd *cobra.Command, u *config.User) error {
	password, err := s.ask(cmd)
	if err != nil {
		return err
	}
	if u.Password, err = auth.HashPassword(password); err != nil {
		return err
	}
	if u.SCRAM = ""; !s.scram {
		return nil
	}
	if u.SCRAM, err = auth.NewVerifier(password); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "mailrace: the user cannot log in by SCRAM: %v\n", err)
	}
	return nil
}

func (s *secrets) ask(cmd *cobra.Command) (string, error) {
	if s.stdin {
		line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 1<<16)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	tty := int(os.Stdin.Fd())
	if !term.IsTerminal(tty) {
		return "", errors.New("there is no terminal to ask for the password: use --password-stdin")
	}
	before, err := term.MakeRaw(tty) // no echo from before the prompt on
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	defer func() { _ = term.Restore(tty, before) }()
	screen := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stderr}, "")
	var typed [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		if typed[i], err = screen.ReadPassword(prompt); err != nil { // Ctrl-C and Ctrl-D, too
			return "", fmt.Errorf("reading the password: %w", err)
		}
	}
	if typed[0] != typed[1] {
		return "", errors.New("the passwords are not the same")
	}
	return typed[0], nil
}

func userAddCommand() *cobra.Command {
	var where userFile
	var secret secrets
	var u config.User
	c := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user",
		Long: `Add a user. The password is asked for twice on the terminal, or read from standard input. The file is made if it is missing, with
mode 0600.`,
		Example: `  mailrace user add alice@example.com --sender alice@example.com
  mailrace user add newsletter --sender '*@news.example.com' --tenant news --messages 100000 --password-stdin <secret`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u.Name = args[0]
			if err := auth.CheckName(u.Name); err != nil {
				return err
			}
			for _, s := range u.Senders {
				if err := auth.CheckSender(s); err != nil {
					return fmt.Errorf("--sender: %w", err)
				}
			}
			if min(u.Messages, u.Recipients, u.Connections) < 0 {
				return errors.New("limits below 0: want a number, or 0 for no limit")
			}
			if err := secret.read(cmd, &u); err != nil {
				return err
			}
			return where.change(cmd, true, "added "+u.Name, func(f *config.UsersFile) error {
				if f.Find(u.Name) >= 0 {
					return fmt.Errorf("%s is in %s already: mailrace user passwd gives a new password", u.Name, f.Path)
				}
				return f.Set(u)
			})
		},
	}
	where.flags(c)
	secret.flags(c)
	c.Flags().StringArrayVar(&u.Senders, "sender", nil, "`address` that the user may send from: user@example.com, '*@example.com', '*@*.example.com' or '<>'; may be repeated; default: any")
	c.Flags().StringVar(&u.Tenant, "tenant", "", "label of the user's messages")
	c.Flags().IntVar(&u.Messages, "messages", 0, "most messages in an hour; 0 = no limit")
	c.Flags().IntVar(&u.Recipients, "recipients", 0, "most recipients in an hour; 0 = no limit")
	c.Flags().IntVar(&u.Connections, "connections", 0, "most connections at a time; 0 = no limit")
	return c
}

func userPasswdCommand() *cobra.Command {
	var where userFile
	var secret secrets
	c := &cobra.Command{
		Use:   "passwd NAME",
		Short: "Give a user a new password",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var kept config.User
			if err := secret.read(cmd, &kept); err != nil {
				return err
			}
			return where.change(cmd, false, "changed the password of "+args[0], func(f *config.UsersFile) error {
				i := f.Find(args[0])
				if i < 0 {
					return noUser(args[0], f.Path)
				}
				u := f.Users[i]
				u.Password, u.SCRAM = kept.Password, kept.SCRAM
				return f.Set(u)
			})
		},
	}
	where.flags(c)
	secret.flags(c)
	return c
}

func noUser(name, path string) error { return fmt.Errorf("%s is not in %s", strconv.Quote(name), path) }

func userRmCommand() *cobra.Command {
	var where userFile
	c := &cobra.Command{
		Use:   "rm NAME",
		Short: "Take a user out",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return where.change(cmd, false, "removed "+args[0], func(f *config.UsersFile) error {
				if ok, err := f.Remove(args[0]); err != nil || ok {
					return err
				}
				return noUser(args[0], f.Path)
			})
		},
	}
	where.flags(c)
	return c
}

// listedUser is a user as it is shown: without secrets.
type listedUser struct {
	Name        string   `json:"name"`
	Password    string   `json:"password"` // kind of the hash, or ""
	SCRAM       bool     `json:"scram"`
	Senders     []string `json:"senders"`
	Tenant      string   `json:"tenant"`
	Messages    int      `json:"messages"`
	Recipients  int      `json:"recipients"`
	Connections int      `json:"connections"`
}

func userLsCommand() *cobra.Command {
	var where userFile
	var asJSON bool
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List the users, without their secrets",
		Example: "  mailrace user ls --json | jq '.users[].name'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := where.path()
			if err != nil {
				return err
			}
			users, err := config.LoadUsers(path, engine.UserForms())
			if err != nil {
				return err
			}
			list := make([]listedUser, len(users))
			for i, u := range users {
				list[i] = listedUser{u.Name, hashKind(u.Password), u.SCRAM != "", append([]string{}, u.Senders...), u.Tenant, u.Messages, u.Recipients, u.Connections}
			}
			if asJSON {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(map[string]any{"users": list})
			}
			return writeUsers(cmd.OutOrStdout(), list)
		},
	}
	where.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// hashKind names the function of a hash.
func hashKind(hash string) string {
	switch {
	case strings.HasPrefix(hash, "$argon2id$"):
		return "argon2id"
	case hash != "":
		return "bcrypt"
	}
	return ""
}

func writeUsers(w io.Writer, list []listedUser) error {
	limit := func(n int) string {
		if n == 0 {
			return "–"
		}
		return console.Count(uint64(n))
	}
	var rows [][]string
	for _, u := range list {
		kept := []string{}
		if u.Password != "" {
			kept = append(kept, u.Password)
		}
		if u.SCRAM {
			kept = append(kept, "scram")
		}
		senders := "any"
		if len(u.Senders) > 0 {
			senders = strings.Join(u.Senders, " ")
		}
		rows = append(rows, []string{u.Name, strings.Join(kept, "+"), senders, u.Tenant, limit(u.Messages), limit(u.Recipients), limit(u.Connections)})
	}
	return console.Table(w, []string{"name", "password", "senders", "tenant", "messages/h", "recipients/h", "connections"}, rows)
}
