package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/tests/lab/load"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

// demoPodCmd is the application in the demo's pods.
func demoPodCmd() *cobra.Command {
	var cfg pod.Config
	cmd := &cobra.Command{
		Use: "demo-pod", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Asked to end, a pod drains; only its bound, or a kill, ends it earlier.
			drain := make(chan struct{})
			go awaitTerm(drain)
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", pod.HTTPPort))
			if err != nil {
				return err
			}
			c, err := net.ListenPacket("udp", fmt.Sprintf(":%d", pod.UDPPort))
			if err != nil {
				return err
			}
			return pod.New(cfg).Run(withoutSignals(cmd), l, c, drain)
		},
	}
	cmd.Flags().StringVar(&cfg.Name, "name", "pod", "what to answer as")
	cmd.Flags().DurationVar(&cfg.Quiet, "quiet", time.Second, "idle time after which a draining pod ends")
	cmd.Flags().DurationVar(&cfg.Bound, "bound", 30*time.Second, "longest time to drain")
	return cmd
}

// withoutSignals is the command's context without the end that signals give it:
// the demo that started the process says when it ends.
func withoutSignals(cmd *cobra.Command) context.Context {
	return context.WithoutCancel(cmd.Context())
}

func awaitTerm(drain chan<- struct{}) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGTERM)
	<-sig
	close(drain)
}

// demoLoadCmd is the demo's client.
func demoLoadCmd() *cobra.Command {
	cfg := load.DefaultConfig()
	slow := 1
	cmd := &cobra.Command{
		Use: "demo-load", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			return load.NewRunner(cfg.SlowedBy(slow)).Run(withoutSignals(cmd), load.ReadCommands(cmd.InOrStdin()), func(r load.Report) error {
				return load.WriteLine(out, r)
			})
		},
	}
	cmd.Flags().StringSliceVar(&cfg.HTTP, "http", nil, "addresses for TCP, host:port")
	cmd.Flags().StringSliceVar(&cfg.UDP, "udp", nil, "addresses for UDP, host:port")
	cmd.Flags().IntVar(&slow, "slow", slow, "how many times less load, and more patience")
	return cmd
}
