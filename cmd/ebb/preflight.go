package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/sourceports"
	"github.com/ebb-lb/ebb/loader"
)

// preflightReport is the output of "ebb preflight -o json".
type preflightReport struct {
	Kernel        string             `json:"kernel"`
	MinimumKernel string             `json:"minimumKernel"`
	OK            bool               `json:"ok"`
	Features      []preflightFeature `json:"features"`
	SourcePorts   preflightPorts     `json:"sourcePorts"`
	Uplinks       preflightUplinks   `json:"uplinks"`
}

// preflightUplinks are the devices that an agent would take for uplinks without asking
// for the node's addresses, and what is wrong with them.
type preflightUplinks struct {
	Devices  []string          `json:"devices"`
	Warnings []preflightUplink `json:"warnings,omitempty"`
	Error    string            `json:"error,omitempty"` // why nothing is known of them
}

type preflightUplink struct {
	Device  string `json:"device"`
	Warning string `json:"warning"` // a sentence
}

// preflightPorts is what an agent would do about source ports.
type preflightPorts struct {
	Flows    string   `json:"flows,omitempty"`    // those of flows to other nodes
	Sockets  string   `json:"sockets,omitempty"`  // those the kernel gives to sockets
	Reserve  string   `json:"reserve,omitempty"`  // those kept from sockets
	Left     int      `json:"left"`               // that sockets still get
	Warnings []string `json:"warnings,omitempty"` // a sentence each
	Error    string   `json:"error,omitempty"`    // why the agent would not start
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
		Long: "Asks the kernel for each feature ebb uses and says what is done without it, and\n" +
			"which source ports flows would get. Attaches and changes nothing.\n\n" +
			"Takes the flags, environment and file of ebb agent: what an agent started with\n" +
			"them does not need is not asked for. Exit code 1: it would not start.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usage(fmt.Errorf("flag --output: %q: allowed are table, json", output))
			}
			cfg, err := config.Resolve(cmd.Flags(), os.Environ())
			if err != nil {
				return usage(err)
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "ebb: warning:", w)
			}
			survey, err := loader.Survey(loader.Wants{Sockets: cfg.EastWest != config.EastWestOff})
			if err != nil {
				return err
			}
			return printPreflight(cmd.OutOrStdout(), newPreflightReport(kernelRelease(), survey, surveyPorts(cfg), surveyUplinks(cfg)), output)
		},
	}
	config.Bind(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// surveyPorts says what an agent would do about source ports.
func surveyPorts(cfg config.Config) preflightPorts {
	node, err := sourceports.ReservationIn(cfg.Health.StateDir).Node()
	var p preflightPorts
	if err != nil {
		p.Warnings = append(p.Warnings, fmt.Sprintf("source ports of the node's sockets are not known: %v", err))
	} else {
		p.Sockets = node.Ephemeral.String()
	}
	c, err := sourceports.Choose(sourceports.Range(cfg.SNATPorts), node)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	p.Flows, p.Reserve, p.Left = c.Ports.String(), c.Reserve.String(), c.Left
	p.Warnings = append(p.Warnings, c.Warnings...)
	if err := sourceports.Writable(); err != nil && c.Reserve.Without(node.Reserved).Len() > 0 {
		p.Warnings = append(p.Warnings, fmt.Sprintf("ports cannot be reserved: %v: sockets that connect to pods may get ports of flows; set net.ipv4.ip_local_reserved_ports on the node", err))
	}
	return p
}

// surveyUplinks looks at the settings of uplinks.
func surveyUplinks(cfg config.Config) preflightUplinks {
	uplinks, err := loader.UplinkChoice{Names: cfg.Uplinks, NodeAddrs: cfg.NodeAddrs, PodCIDRs: cfg.ClusterCIDRs}.Choose()
	if err != nil {
		return preflightUplinks{Error: err.Error()}
	}
	devices := loader.Names(uplinks)
	u := preflightUplinks{Devices: devices}
	warnings, err := loader.DeviceWarnings(devices)
	if err != nil {
		u.Error = err.Error()
	}
	for _, w := range warnings {
		u.Warnings = append(u.Warnings, preflightUplink(w))
	}
	return u
}

func newPreflightReport(kernel string, survey []loader.Feature, ports preflightPorts, uplinks preflightUplinks) preflightReport {
	r := preflightReport{
		Kernel: kernel, MinimumKernel: loader.MinimumKernel, OK: ports.Error == "", SourcePorts: ports, Uplinks: uplinks,
	}
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
	for _, f := range r.Features {
		if f.Required && !f.Present {
			verdict = "does not suffice"
		}
	}
	fmt.Fprintf(tw, "\nLinux %s %s; ebb is tested on %s and later.\n", r.Kernel, verdict, r.MinimumKernel)
	writePorts(tw, r.SourcePorts)
	writeUplinks(tw, r.Uplinks)
	return tw.Flush()
}

func writePorts(w io.Writer, p preflightPorts) {
	if p.Error != "" {
		fmt.Fprintf(w, "\nSource ports: %s.\n", p.Error)
		return
	}
	fmt.Fprintf(w, "\nSource ports: flows to other nodes get %s", p.Flows)
	if p.Sockets != "" {
		fmt.Fprintf(w, ", sockets of the node %s", p.Sockets)
	}
	if p.Reserve != "" {
		fmt.Fprintf(w, "; the agent reserves %s (net.ipv4.ip_local_reserved_ports), which leaves sockets %d", p.Reserve, p.Left)
	}
	fmt.Fprintln(w, ".")
	for _, warning := range p.Warnings {
		fmt.Fprintf(w, "Warning: %s.\n", warning)
	}
}

func writeUplinks(w io.Writer, u preflightUplinks) {
	if len(u.Devices) > 0 {
		fmt.Fprintf(w, "\nUplinks: %s.\n", strings.Join(u.Devices, ", "))
	} else {
		fmt.Fprintln(w, "\nUplinks: none is known without --uplink or --node-addresses.")
	}
	if u.Error != "" {
		fmt.Fprintf(w, "Warning: %s.\n", u.Error)
	}
	for _, warning := range u.Warnings {
		fmt.Fprintf(w, "Warning: %s: %s.\n", warning.Device, warning.Warning)
	}
}

// kernelRelease returns what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
