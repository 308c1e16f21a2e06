package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/agent/watch"
)

func checkCmd() *cobra.Command {
	var opts watch.Options
	cmd := &cobra.Command{
		Use: "check DIR", Short: "Validate the manifests of a directory, as for ebb agent --source dir:DIR",
		Long: "Needs neither an agent nor a cluster, and changes nothing. Services, EndpointSlices, Nodes and\n" +
			"ServiceCIDRs in *.yaml, *.yml and *.json are read; whatever else is there is named.\n\n" +
			"Exit codes: 0 an agent would take the directory, 1 it would refuse it, 2 wrong usage.",
		Example: "  ebb check /tmp/next && cp /tmp/next/*.yaml /etc/ebb/",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return usage(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := watch.Check(args[0], opts)
			if err != nil {
				return err
			}
			for _, what := range c.Ignored {
				fmt.Fprintln(cmd.ErrOrStderr(), "ebb: warning:", what)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d services, %d endpoint slices\n", args[0], c.Services, c.Slices)
			return err
		},
	}
	cmd.Flags().StringVar(&opts.NodeName, "node-name", "", "name of the Node object of the machine")
	cmd.Flags().StringVar(&opts.ServiceProxyName, "service-proxy-name", "", "as of the agent")
	return cmd
}
