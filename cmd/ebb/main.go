// Command ebb is the one binary of ebb: the agent, the tools that look at what
// it has put into the kernel, and a demonstration. Commands are thin: they
// hand flags in and print what comes out.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"
)

// Exit codes besides 0.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run()) }

// run ends the context of the command on the first SIGINT or SIGTERM; the
// second one kills.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := rootCmd().ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var verifier *ebpf.VerifierError
	if errors.As(err, &verifier) {
		fmt.Fprintf(os.Stderr, "ebb: %v\n%+v\n", err, verifier)
	} else if !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, "ebb:", err)
	}
	var state exitError
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.As(err, &state):
		return state.code
	}
	return exitFailure
}

// exitError is a result for which a command has an exit code of its own.
type exitError struct {
	error
	code int
}

// Unwrap returns the error that has the code.
func (e exitError) Unwrap() error { return e.error }

var (
	// errUsage marks errors of the command line: exit code 2.
	errUsage = errors.New("see --help")
	// errSilent marks results that have been printed already: exit code 1.
	errSilent = errors.New("failed")
)

func usage(err error) error { return fmt.Errorf("%w (%w)", err, errUsage) }

func rootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "ebb",
		Short: "An eBPF layer-4 load balancer for Kubernetes Services",
		Long: "ebb balances Kubernetes Services in the kernel and loses no connection because\n" +
			"something was meant to change.\n\nExit codes: 0 success, 1 failure, 2 wrong usage; those of migrate check and migrate finish\n" +
			"are in their help.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(agentCmd(), checkCmd(), cleanupCmd(), demoCmd(), demoPodCmd(), demoLoadCmd(), drainCmd(),
		dumpCmd(), migrateCmd(), preflightCmd(), responderCmd(), undrainCmd(), versionCmd())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return usage(err)
	}
	return nil
}
