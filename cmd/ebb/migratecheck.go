package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/agent/watch"
	"github.com/ebb-lb/ebb/cmd/ebb/internal/kubeproxy"
	"github.com/ebb-lb/ebb/cmd/ebb/internal/leftovers"
)

// exitFound is the exit code of "ebb migrate check" where something of kube-proxy's is left.
const exitFound = 3

// Where kubeadm keeps kube-proxy's configuration.
const proxyNamespace, proxyConfigMap = "kube-system", "kube-proxy"

// migrateReport is the output of "ebb migrate check -o json".
type migrateReport struct {
	// Modes are those in which kube-proxy has run: after a change of mode, several.
	Modes []string        `json:"modes"`
	Found leftovers.Found `json:"found"`
	migrateNode
	Configuration *kubeproxy.Result `json:"configuration,omitempty"`
	// Clean: nothing of kube-proxy's is on the node.
	Clean bool `json:"clean"`
}

type migrateCheckFlags struct {
	bpffs, config, kubeconfig, output string
}

func migrateCheckCmd() *cobra.Command {
	var f migrateCheckFlags
	cmd := &cobra.Command{
		Use: "check", Short: "Say what of kube-proxy is on this node, and what becomes of its configuration", Args: noArgs,
		Long: "Run it as root on the node, in no container. It looks for kube-proxy's table of nftables, its chains of\n" +
			"iptables (both backends), what its IPVS mode leaves, its process, and who has the ports 10249, 10256 and\n" +
			"health check node ports. With a configuration it says key by key what of it ebb takes. Changes nothing.\n\n" +
			"Exit codes: 0 nothing of kube-proxy's is on this node; 1 something failed, or could not be looked at;\n" +
			"2 wrong usage; 3 rules or a process of kube-proxy's are here.",
		Example: "  ebb migrate check --kubeconfig /etc/kubernetes/admin.conf\n  ebb migrate check -o json | jq .modes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.output != "text" && f.output != "json" {
				return usage(fmt.Errorf("flag --output: %q: must be one of text, json", f.output))
			}
			if f.config != "" && f.kubeconfig != "" {
				return usage(errors.New("flags --kube-proxy-config and --kubeconfig: must be one of them"))
			}
			r, err := f.report(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			return r.result(r.write(cmd.OutOrStdout(), f.output))
		},
	}
	cmd.Flags().StringVar(&f.config, "kube-proxy-config", "", "file with kube-proxy's configuration, or a ConfigMap that holds it; - is standard input")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig of somebody who may read the ConfigMap kube-system/kube-proxy")
	cmd.Flags().StringVar(&f.bpffs, "bpffs", "/sys/fs/bpf/ebb", "directory of ebb's pins")
	cmd.Flags().StringVarP(&f.output, "output", "o", "text", "text or json")
	return cmd
}

func (f migrateCheckFlags) report(ctx context.Context, in io.Reader) (r migrateReport, err error) {
	if r.Configuration, err = f.configuration(ctx, in); err != nil {
		return r, err
	}
	if r.migrateNode, err = lookAtNode(f.bpffs); err != nil {
		return r, err
	}
	if r.Found, err = leftovers.Look(ctx, leftovers.Local{}, nil); err != nil {
		return r, err
	}
	r.Modes = append([]string{}, r.Found.Modes()...)
	r.Clean = r.Found.Empty() && len(r.Found.Unknown) == 0 && len(r.KubeProxy) == 0
	return r, nil
}

// configuration is nil if none was asked for.
func (f migrateCheckFlags) configuration(ctx context.Context, in io.Reader) (*kubeproxy.Result, error) {
	switch {
	case f.config != "":
		r, err := readProxyConfig(f.config, in)
		return &r, err
	case f.kubeconfig == "":
		return nil, nil
	}
	text, err := watch.API{Kubeconfig: f.kubeconfig}.ConfigMap(ctx, proxyNamespace, proxyConfigMap)
	if err != nil {
		return nil, err
	}
	where := fmt.Sprintf("ConfigMap %s/%s", proxyNamespace, proxyConfigMap)
	if text == nil {
		return nil, fmt.Errorf("%s: not found; name a file by --kube-proxy-config", where)
	}
	r, err := kubeproxy.Convert(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return &r, nil
}

// result is that of the command.
func (r migrateReport) result(err error) error {
	switch {
	case err != nil || r.Clean:
		return err
	case len(r.Found.Unknown) > 0:
		return errSilent
	}
	return exitError{errSilent, exitFound}
}

func (r migrateReport) write(w io.Writer, output string) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(what string, text any) { fmt.Fprintf(tw, "%s\t%v\n", what, text) }
	r.writeFound(line)
	for _, p := range r.KubeProxy {
		line("process", processText(p))
	}
	for _, p := range r.Ports {
		line("port", p)
	}
	line("ebb", r.Ebb)
	r.writeConfiguration(line)
	return tw.Flush()
}

func (r migrateReport) writeFound(line func(what string, text any)) {
	switch {
	case len(r.Modes) > 1:
		line("kube-proxy", "modes "+strings.Join(r.Modes, ", ")+": rules of one are left from before")
	case len(r.Modes) == 1:
		line("kube-proxy", "mode "+r.Modes[0])
	case r.Found.Empty():
		line("kube-proxy", "no rules")
	default:
		line("kube-proxy", "rules of no known mode")
	}
	for _, removal := range r.Found.Summary() {
		line("rules", removal)
	}
	for _, family := range r.Found.NoOtherNAT {
		line("note", fmt.Sprintf("nothing else has netfilter translate connections of the family %s; see ebb migrate finish --dry-run", family))
	}
	for _, note := range r.Found.Notes {
		line("note", note)
	}
	for _, unknown := range r.Found.Unknown {
		line("unknown", unknown)
	}
}

func (r migrateReport) writeConfiguration(line func(what string, text any)) {
	if r.Configuration == nil {
		line("config", "not read: name it by --kube-proxy-config or --kubeconfig")
		return
	}
	line("config", "mode "+r.Configuration.Mode)
	for _, e := range r.Configuration.Entries {
		switch e.Outcome {
		case kubeproxy.Mapped:
			line("mapped", fmt.Sprintf("%s (%s): %s", e.Key, e.Value, strings.Join(e.Values, " ")))
		case kubeproxy.Differs, kubeproxy.NotNeeded:
			line(e.Outcome, e)
		}
	}
	for _, s := range r.Configuration.Implied() {
		line("mapped", fmt.Sprintf("%s: %s", s.From, s))
	}
}
