// Command chart checks ebb's chart and makes what is generated from it: the
// plain manifests, and the documentation of the values.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ebb-lb/ebb/tools/internal/helm"
	"github.com/ebb-lb/ebb/tools/internal/source"
)

func main() {
	src := flag.String("source", "..", "source tree")
	flag.Parse()
	if err := run(context.Background(), *src); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, src string) error {
	chart := filepath.Join(src, source.ChartDir)
	if err := helm.Lint(chart); err != nil {
		return err
	}
	values, err := helm.ValuesDoc(chart)
	if err != nil {
		return err
	}
	files, err := helm.Manifests(ctx, chart)
	if err != nil {
		return err
	}
	dir := filepath.Join(src, "deploy", "manifests")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(src, "docs", "values.md"), []byte(values), 0o644)
}
