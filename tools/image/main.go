// Command image builds the image of ebb for all architectures and writes it to
// a tar file that containerd, Podman and Docker import.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/ebb-lb/ebb/tools/internal/oci"
	"github.com/ebb-lb/ebb/tools/internal/source"
)

func main() {
	src := flag.String("source", "..", "source tree")
	version := flag.String("version", "", "version, as v1.2.3; empty: appVersion of the chart")
	repository := flag.String("repository", oci.Repository, "name of the image without a tag")
	arches := flag.String("arch", strings.Join(source.Arches(), ","), "architectures")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *src, *version, *repository, *arches, *out); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, src, version, repository, arches, out string) error {
	tree, err := source.Open(ctx, src, version)
	if err != nil {
		return err
	}
	built, err := oci.Build(ctx, tree, strings.Split(arches, ","))
	if err != nil {
		return err
	}
	digest, err := built.Archive(repository, out)
	if err != nil {
		return err
	}
	fmt.Printf("%s:%s@%s %s\n", repository, tree.Version, digest, out)
	return nil
}
