package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/ebb-lb/ebb/agent"
	"github.com/ebb-lb/ebb/agent/config"
)

func agentCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Keep the kernel in step with the cluster on this node",
		Long: "The agent loads programs, attaches them to the uplinks, and syncs Services and\n" +
			"EndpointSlices into their maps. It leaves all of that in the kernel when it ends.\n\n" +
			"Every flag can also be set by the environment (--node-name: EBB_NODE_NAME) and by\n" +
			"the file given with --config; a flag beats the environment, which beats the file.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Resolve(cmd.Flags(), os.Environ())
			if err != nil {
				return usage(err)
			}
			log := newLogger(cmd.ErrOrStderr(), cfg.LogLevel)
			for _, w := range cfg.Warnings {
				log.Warn("configuration", "warning", w)
			}
			return agent.Run(cmd.Context(), cfg, log)
		},
	}
	config.Bind(cmd.Flags())
	return cmd
}

// newLogger returns the logger, which the Kubernetes client is made to use too.
func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	h := slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})
	klog.SetLogger(logr.FromSlogHandler(h))
	return slog.New(h)
}

func cleanupCmd() *cobra.Command {
	var bpffs, stateDir string
	var hold bool
	cmd := &cobra.Command{
		Use: "cleanup", Short: "Detach everything and remove the pins; no agent may be running", Args: noArgs,
		Long: "Also ends the process that answers probes, and an order of ebb drain node.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := agent.Cleanup(bpffs, stateDir, newLogger(cmd.ErrOrStderr(), slog.LevelInfo)); err != nil || !hold {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "cleaned up")
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&bpffs, "bpffs", "/sys/fs/bpf/ebb", "directory of the pins")
	cmd.Flags().BoolVar(&hold, "hold", false, "when it is done, wait for SIGTERM: for a DaemonSet, which knows no other end")
	bindStateDir(cmd, &stateDir)
	return cmd
}
