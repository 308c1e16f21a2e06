package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/cmd/ebb/internal/demo"
)

func demoCmd() *cobra.Command {
	var output string
	cfg := demo.Config{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a rolling update and a killed agent on real traffic, without a cluster",
		Long: "Builds a client, a network, two nodes and their pods out of network namespaces, and\n" +
			"keeps a Service under load while every pod is replaced and an agent is killed.\n" +
			"Everything is removed at the end, also on Ctrl-C. Exit code 1: something failed.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDemo(cfg, output); err != nil {
				return usage(err)
			}
			cfg.Progress, cfg.Terminal = cmd.ErrOrStderr(), isTerminal(os.Stderr)
			result, err := demo.Run(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return printDemo(cmd.OutOrStdout(), result, output)
		},
	}
	cmd.Flags().DurationVar(&cfg.Duration, "duration", demo.DefaultDuration, "length of the three acts together")
	cmd.Flags().StringVar(&cfg.XDP, "xdp", demo.XDPModes()[0], "XDP on the uplinks: "+strings.Join(demo.XDPModes(), ", "))
	cmd.Flags().IntVar(&cfg.Slow, "slow", 1, "how many times slower than an idle host this machine is: less load, more patience")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func checkDemo(cfg demo.Config, output string) error {
	if !slices.Contains(demo.XDPModes(), cfg.XDP) {
		return fmt.Errorf("flag --xdp: %q: allowed are %s", cfg.XDP, strings.Join(demo.XDPModes(), ", "))
	}
	if cfg.Duration < demo.MinDuration {
		return fmt.Errorf("flag --duration: %s: at least %s", cfg.Duration, demo.MinDuration)
	}
	if cfg.Slow < 1 || cfg.Slow > demo.MaxSlow {
		return fmt.Errorf("flag --slow: %d: allowed are 1 to %d", cfg.Slow, demo.MaxSlow)
	}
	if output != "table" && output != "json" {
		return fmt.Errorf("flag --output: %q: allowed are table, json", output)
	}
	return nil
}

func printDemo(w io.Writer, r demo.Result, output string) error {
	var err error
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.WriteTable(w)
	}
	if err == nil && r.Failed > 0 {
		err = errSilent
	}
	return err
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
