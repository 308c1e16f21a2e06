package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/cmd/ebb/internal/leftovers"
)

// exitRefused is the exit code of "ebb migrate finish" where it changed nothing on purpose.
const exitRefused = 3

type migrateFinishFlags struct {
	bpffs         string
	exclude       []string
	dryRun, force bool
}

func migrateFinishCmd() *cobra.Command {
	var f migrateFinishFlags
	cmd := &cobra.Command{
		Use: "finish", Short: "Remove the rules kube-proxy has left on this node, and nothing else", Args: noArgs,
		Long: "Run it as root on the node, in no container. Removes kube-proxy's table of nftables, its chains of iptables\n" +
			"(both backends) and the jumps to them, and where there is a device kube-ipvs0, IPVS virtual servers, sets\n" +
			"and that device. Rules of the kubelet, of network plugins and of others stay, and so does a chain of\n" +
			"kube-proxy that one of theirs uses. What goes is printed. It uses nft, iptables, ipvsadm, ipset and ip of\n" +
			"the node, as far as there is something to remove.\n\n" +
			"Refuses while kube-proxy runs, while ebb does not serve, and where netfilter would forget connections.\n" +
			"To run it again is no error.\n\n" +
			"Exit codes: 0 nothing of kube-proxy's is left; 1 something failed, or could not be looked at; 2 wrong usage;\n" +
			"3 refused, nothing was changed. With --dry-run 0, also where it would be refused.",
		Example: "  ebb migrate finish --dry-run\n  ebb migrate finish",
		RunE: func(cmd *cobra.Command, _ []string) error {
			spared, err := parsePrefixes(f.exclude)
			if err != nil {
				return usage(err)
			}
			return f.finish(cmd.Context(), spared, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "print the commands instead of executing them")
	cmd.Flags().BoolVar(&f.force, "force", false, "remove the rules although there is a reason not to")
	cmd.Flags().StringSliceVar(&f.exclude, "ipvs-exclude", nil, "ranges whose virtual servers stay: kube-proxy's ipvs.excludeCIDRs")
	cmd.Flags().StringVar(&f.bpffs, "bpffs", "/sys/fs/bpf/ebb", "directory of ebb's pins")
	return cmd
}

func parsePrefixes(all []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range all {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("flag --ipvs-exclude: %q: must be CIDRs", s)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

func (f migrateFinishFlags) finish(ctx context.Context, spared []netip.Prefix, out, errOut io.Writer) error {
	found, err := leftovers.Look(ctx, leftovers.Local{}, spared)
	if err != nil {
		return err
	}
	node, err := lookAtNode(f.bpffs)
	if err != nil {
		return err
	}
	for _, note := range found.Notes {
		fmt.Fprintln(errOut, "ebb: note:", note)
	}
	refusals := node.refusals(found)
	if found.Empty() {
		refusals = nil
	}
	if f.dryRun {
		for _, why := range append(refusals, found.Unknown...) {
			fmt.Fprintln(errOut, "ebb: warning:", why)
		}
		return printRemovals(out, found)
	}
	if len(refusals) > 0 && !f.force {
		return exitError{fmt.Errorf("refused, nothing was changed (--force overrides):\n  %s", strings.Join(refusals, "\n  ")), exitRefused}
	}
	for _, why := range refusals {
		fmt.Fprintln(errOut, "ebb: warning:", why)
	}
	return remove(ctx, found, spared, out)
}

func printRemovals(out io.Writer, found leftovers.Found) error {
	if found.Empty() {
		_, err := fmt.Fprintln(out, "# nothing to remove")
		return err
	}
	for _, r := range found.Removals() {
		if err := r.Print(out); err != nil {
			return err
		}
	}
	return nil
}

// remove removes what was found, and looks whether that is so.
func remove(ctx context.Context, found leftovers.Found, spared []netip.Prefix, out io.Writer) error {
	m := leftovers.Local{}
	if err := leftovers.Remove(ctx, m, found.Removals(), out); err != nil {
		return err
	}
	left, err := leftovers.Look(ctx, m, spared)
	if err != nil {
		return err
	}
	var errs []error
	for _, what := range left.Summary() {
		errs = append(errs, fmt.Errorf("still there, somebody writes it again: %s", what))
	}
	for _, unknown := range left.Unknown {
		errs = append(errs, errors.New(unknown))
	}
	if len(errs) == 0 {
		_, err = fmt.Fprintln(out, "nothing of kube-proxy's is left")
		return err
	}
	return errors.Join(errs...)
}
