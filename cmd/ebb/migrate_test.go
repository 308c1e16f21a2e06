package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

// migrate executes ebb migrate with standard input.
func migrate(stdin string, args ...string) (out, errOut string, err error) {
	var o, e bytes.Buffer
	root := rootCmd()
	root.SetArgs(append([]string{"migrate"}, args...))
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&o)
	root.SetErr(&e)
	err = root.Execute()
	return o.String(), e.String(), err
}

func TestMigrateConfigPrintsValuesAndWarnsOfWhatDiffers(t *testing.T) {
	const testdata = "internal/kubeproxy/testdata/ipvs"
	want, err := os.ReadFile(testdata + ".values")
	if err != nil {
		t.Fatal(err)
	}
	out, warnings, err := migrate("", "config", testdata+".yaml")
	if err != nil || out != string(want) {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.HasPrefix(warnings, "ebb: warning: bindAddress (192.0.2.11): ") || strings.Contains(warnings, "strictARP") {
		t.Error(warnings)
	}
	text, err := os.ReadFile(testdata + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	if out, _, err := migrate(string(text), "config", "-"); err != nil || out != string(want) {
		t.Errorf("standard input: %v\n%s", err, out)
	}
}

func TestMigrateConfigNamesTheFileThatIsWrong(t *testing.T) {
	out, _, err := migrate("kind: Pod\n", "config", "-")
	if err == nil || !strings.HasPrefix(err.Error(), `standard input: kind "Pod": must be KubeProxyConfiguration`) || errors.Is(err, errUsage) || out != "" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestMigrateRefusesWrongUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"config"}, {"config", "a", "b"}, {"check", "x"}, {"check", "-o", "yaml"}, {"check", "--kubeconfig", "a", "--kube-proxy-config", "b"},
		{"finish", "x"}, {"finish", "--ipvs-exclude", "10.0.0.1"}, {"finish", "--no-such-flag"},
	} {
		if out, _, err := migrate("", args...); !errors.Is(err, errUsage) || out != "" {
			t.Errorf("%q: %q, %v", args, out, err)
		}
	}
}

func TestStatesHaveExitCodesOfTheirOwn(t *testing.T) {
	err := error(exitError{errSilent, exitFound})
	var state exitError
	if !errors.As(err, &state) || state.code != exitFound || !errors.Is(err, errSilent) {
		t.Errorf("%#v", err)
	}
}
