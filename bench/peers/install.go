package peers

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed install
var installer string

// unpackable are the peers that the installer knows. The others are for the machine's own package manager.
var unpackable = []string{"exim", "opensmtpd", "haraka"}

// Install installs those of the peers that are missing and that this user can have for himself. What is said meanwhile goes to w.
func Install(ctx context.Context, w io.Writer, some []Peer) error {
	args := []string{"-s", "--"}
	for i := range some {
		if _, err := some[i].find(); err != nil && slices.Contains(unpackable, some[i].Name) {
			args = append(args, some[i].Name)
		}
	}
	if len(args) == 2 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "bash", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(installer), w, w
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(args[2:], ", "), err)
	}
	return nil
}

// unpackedRoot is where the installer puts them.
func unpackedRoot() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("mailrace-test-peers-%d", os.Getuid()))
}

// findUnpacked finds a program of a Debian package that the machine has, or that was unpacked for this user.
func findUnpacked(pkg, program string) (string, error) {
	var err error
	for _, root := range []string{"/", filepath.Join(unpackedRoot(), pkg)} {
		path := filepath.Join(root, program)
		if _, err = exec.LookPath(path); err == nil {
			return path, nil
		}
	}
	return "", err
}
