package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/loader"
)

// preflightReport is the output of "ebb preflight -o json".
type preflightReport struct {
	Kernel        string             `json:"kernel"`
	MinimumKernel string             `json:"minimumKernel"`
	OK            bool               `json:"ok"`
	Features      []preflightFeature `json:"features"`
}

type preflightFeature struct {
	Name     string `json:"name"`
	Since    string `json:"since"`
	Required bool   `json:"required"`
	Present  bool   `json:"present"`
	Fallback string `json:"fallback,omitempty"`
}

func preflightCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "preflight", Short: "Say what the running kernel offers ebb, and whether it suffices", Args: noArgs,
		Long: "Asks the kernel for each feature ebb uses and says what is done without it.\n" +
			"Attaches nothing. Exit code 1: a required feature is missing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usage(fmt.Errorf("flag --output: %q: allowed are table, json", output))
			}
			survey, err := loader.Survey()
			if err != nil {
				return err
			}
			return printPreflight(cmd.OutOrStdout(), newPreflightReport(kernelRelease(), survey), output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func newPreflightReport(kernel string, survey []loader.Feature) preflightReport {
	r := preflightReport{Kernel: kernel, MinimumKernel: loader.MinimumKernel, OK: true}
	for _, f := range survey {
		r.Features = append(r.Features, preflightFeature{
			Name: f.Name, Since: f.Since, Required: f.Required(), Present: f.Present, Fallback: f.Fallback,
		})
		r.OK = r.OK && (f.Present || !f.Required())
	}
	return r
}

// printPreflight prints r and returns errSilent if the kernel does not suffice.
func printPreflight(w io.Writer, r preflightReport, output string) error {
	var err error
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = writePreflightTable(w, r)
	}
	if err == nil && !r.OK {
		err = errSilent
	}
	return err
}

func writePreflightTable(w io.Writer, r preflightReport) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "FEATURE\tSINCE\tPRESENT\tWITHOUT IT")
	for _, f := range r.Features {
		present, without := "yes", f.Fallback
		if !f.Present {
			present = "no"
		}
		if f.Required {
			without = "ebb does not run"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", f.Name, f.Since, present, without)
	}
	verdict := "suffices"
	if !r.OK {
		verdict = "does not suffice"
	}
	fmt.Fprintf(tw, "\nLinux %s %s; ebb is tested on %s and later.\n", r.Kernel, verdict, r.MinimumKernel)
	return tw.Flush()
}

// kernelRelease returns what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
