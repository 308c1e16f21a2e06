package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

func dumpCmd() *cobra.Command {
	var bpffs string
	cmd := &cobra.Command{
		Use: "dump", Short: "Print what is in the maps, a line per entry", Args: noArgs,
		Long: "Reads the pinned maps directly: no agent and no API server is needed.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			set, err := maps.Open(loader.MapsDir(bpffs), true)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, set.Close()) }()
			return maps.Dump(cmd.OutOrStdout(), set)
		},
	}
	cmd.Flags().StringVar(&bpffs, "bpffs", "/sys/fs/bpf/ebb", "directory of the pins")
	return cmd
}
