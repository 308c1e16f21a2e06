package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/agent"
	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/responder"
)

func drainCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "drain", Short: "Take something out of rotation", Args: noArgs, RunE: needsSubcommand}
	cmd.AddCommand(drainNodeCmd())
	return cmd
}

func undrainCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "undrain", Short: "Put something back into rotation", Args: noArgs, RunE: needsSubcommand}
	cmd.AddCommand(undrainNodeCmd())
	return cmd
}

func needsSubcommand(*cobra.Command, []string) error {
	return usage(errors.New("say what: node"))
}

func drainNodeCmd() *cobra.Command {
	var dir, reason string
	var length time.Duration
	cmd := &cobra.Command{
		Use: "node", Short: "Have external balancers send no new connections to this node", Args: noArgs,
		Long: "From now on /healthz answers 503 with the reason. Connections go on, also new ones that\n" +
			"still come. Needs neither API server nor agent, and outlives restarts of the agent.",
		Example: "  ebb drain node --for 10m --reason 'kernel update'\n  ebb undrain node",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < 0 {
				return usage(fmt.Errorf("--for %s: want a duration from 0", length))
			}
			now := time.Now().Round(time.Second)
			o := drain.Order{Reason: reason, Given: now}
			if length > 0 {
				o.Until = now.Add(length)
			}
			if err := health.OrderFileIn(dir).Write(o); err != nil {
				return err
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "node drained by", o)
			return err
		},
	}
	cmd.Flags().DurationVar(&length, "for", 0, "how long; 0: until ebb undrain node")
	cmd.Flags().StringVar(&reason, "reason", "", "why; shown in the answers of /healthz")
	bindStateDir(cmd, &dir)
	return cmd
}

func undrainNodeCmd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "node", Short: "End what ebb drain node began", Args: noArgs,
		Long: "Signals on the Node object are not touched. A node that is not drained is no error.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			existed, err := health.OrderFileIn(dir).Remove()
			if err != nil {
				return err
			}
			text := "node no longer drained by ebb drain node"
			if !existed {
				text = "node was not drained by ebb drain node"
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	bindStateDir(cmd, &dir)
	return cmd
}

func responderCmd() *cobra.Command {
	var dir string
	var waits responder.Waits
	cmd := &cobra.Command{
		Use: agent.ResponderCommand, Short: "Answer the probes of external balancers for the agent of this node", Args: noArgs,
		Long: "The agent starts this by itself. Run it separately, with --health-responder=external at the\n" +
			"agent, where the processes of an agent end with it. Takes over from one that is there.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return responder.Run(cmd.Context(), dir, waits, newLogger(cmd.ErrOrStderr(), slog.LevelInfo))
		},
	}
	cmd.Flags().DurationVar(&waits.Agent, "linger", responder.DefaultLinger, "how long to wait for an agent before it ends")
	cmd.Flags().DurationVar(&waits.Successor, "await-successor", 0, "how long to go on when told to end, unless another one takes over")
	bindStateDir(cmd, &dir)
	return cmd
}

func bindStateDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state-dir", config.DefaultStateDir, "directory shared with the agent")
}
