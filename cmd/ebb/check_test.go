package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckSaysWhatAnAgentWouldTake(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, string, error) {
		var out, errOut bytes.Buffer
		root := rootCmd()
		root.SetArgs(append([]string{"check"}, args...))
		root.SetOut(&out)
		root.SetErr(&errOut)
		err := root.Execute()
		return out.String(), errOut.String(), err
	}
	write("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}\n")
	write("web.txt", "")
	out, warnings, err := run(dir)
	if err != nil || !strings.Contains(out, "1 services, 0 endpoint slices") || !strings.Contains(warnings, "web.txt: not taken") {
		t.Errorf("%q, %q, %v", out, warnings, err)
	}
	write("bad.yaml", "kind: Service\n")
	if out, _, err := run(dir); err == nil || out != "" || errors.Is(err, errUsage) {
		t.Errorf("a bad manifest: %q, %v", out, err)
	}
	if _, _, err := run(); !errors.Is(err, errUsage) {
		t.Errorf("no directory: %v", err)
	}
}
