package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func migrateCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "migrate", Short: "Take a node from kube-proxy to ebb", Args: noArgs,
		Long: "The whole way, and the way back: docs/migration.md.",
		RunE: func(*cobra.Command, []string) error { return usage(errors.New("say what: check, config, finish")) },
	}
	cmd.AddCommand(migrateCheckCmd(), migrateConfigCmd(), migrateFinishCmd())
	return cmd
}
