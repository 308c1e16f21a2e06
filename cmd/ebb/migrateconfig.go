package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/ebb-lb/ebb/cmd/ebb/internal/kubeproxy"
)

func migrateConfigCmd() *cobra.Command {
	return &cobra.Command{
		Use: "config FILE", Short: "Turn kube-proxy's configuration into values of ebb's chart",
		Long: "FILE is a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1, the keys of Kubernetes 1.36), or a\n" +
			"ConfigMap that holds one; - is standard input. The values go to standard output, each with the key it is\n" +
			"made of; keys without an equivalent are comments that say why. Those that somebody may notice are\n" +
			"warnings on standard error, too.\n\n" +
			"Exit codes: 0 converted, 1 FILE cannot be read or is wrong, 2 wrong usage.",
		Example: "  kubectl -n kube-system get configmap kube-proxy -o yaml | ebb migrate config - >values.yaml\n" +
			"  helm -n kube-system install ebb deploy/helm/ebb -f values.yaml",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.ExactArgs(1)(cmd, args); err != nil {
				return usage(err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := readProxyConfig(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			for _, e := range r.Differing() {
				fmt.Fprintln(cmd.ErrOrStderr(), "ebb: warning:", e)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), r.Values())
			return err
		},
	}
}

// readProxyConfig converts a file, or what is on in if it is "-".
func readProxyConfig(file string, in io.Reader) (kubeproxy.Result, error) {
	var text []byte
	var err error
	if file == "-" {
		file = "standard input"
		text, err = io.ReadAll(in)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return kubeproxy.Result{}, err
	}
	r, err := kubeproxy.Convert(text)
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return r, err
}
