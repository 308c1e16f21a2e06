package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/agent/version"
	"github.com/ebb-lb/ebb/loader"
	"github.com/ebb-lb/ebb/maps"
)

// versionReport is the output of "ebb version -o json".
type versionReport struct {
	Version       string   `json:"version"`
	Commit        string   `json:"commit,omitempty"`
	MapLayout     int      `json:"mapLayout"`
	MinimumKernel string   `json:"minimumKernel"`
	TestedKernels []string `json:"testedKernels"`
	Go            string   `json:"go"`
	Platform      string   `json:"platform"`
}

func newVersionReport() versionReport {
	b := version.Get()
	return versionReport{
		Version: b.Version, Commit: b.Commit, MapLayout: maps.LayoutVersion,
		MinimumKernel: loader.MinimumKernel, TestedKernels: loader.TestedKernels(),
		Go: b.Go, Platform: b.Platform,
	}
}

func versionCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version of ebb and of its map layout", Args: noArgs,
		Long: "Also the commit and the kernels this build is for. Builds with one map layout take over\n" +
			"from each other without losing a connection.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "text":
				return newVersionReport().print(cmd.OutOrStdout())
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(newVersionReport())
			}
			return usage(fmt.Errorf("flag --output: %q: must be one of text, json", output))
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func (r versionReport) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "ebb %s (commit %s), map layout %d, Linux %s or later, %s, %s\n",
		r.Version, cmp.Or(r.Commit, "unknown"), r.MapLayout, r.MinimumKernel, r.Go, r.Platform)
	return err
}
