// Package shell runs the machine's own programs (ip, mount, ctr, kubectl) to their end and waits for conditions.
package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Run runs a command to its end; the error holds what it wrote to stderr.
func Run(ctx context.Context, args ...string) error {
	_, err := Output(ctx, nil, args...)
	return err
}

// Output is Run with input, returning what the command wrote to stdout.
func Output(ctx context.Context, input io.Reader, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), fmt.Errorf("`%s`: %w: %s", strings.Join(args, " "), err, said)
	}
	return stdout.String(), nil
}

// All runs commands in order and ends at the first that fails.
func All(ctx context.Context, commands ...[]string) error {
	for _, command := range commands {
		if err := Run(ctx, command...); err != nil {
			return err
		}
	}
	return nil
}

// poll is how often a condition is looked at again.
const poll = 50 * time.Millisecond

// Never marks an error that waiting does not mend.
func Never(err error) error { return never{err} }

type never struct{ error }

// Wait looks at a condition until it holds; the error says what was waited for and how it stood last.
func Wait(ctx context.Context, what string, limit time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if hopeless := (never{}); errors.As(err, &hopeless) {
			return fmt.Errorf("%s: %w", what, hopeless.error)
		}
		// The look that the deadline cut short says nothing; the one before it does.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("%s: not after %s: %w", what, limit, last)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Say tells the person at the terminal what goes on; stdout belongs to what a shell evaluates.
func Say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
