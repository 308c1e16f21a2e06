// Command release makes everything that a release consists of: archives of the
// program, the image, the chart, what each is made of, and checksums. Nothing is
// uploaded.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/ebb-lb/ebb/tools/internal/helm"
	"github.com/ebb-lb/ebb/tools/internal/oci"
	"github.com/ebb-lb/ebb/tools/internal/source"
)

func main() {
	src := flag.String("source", "..", "source tree")
	version := flag.String("version", "", "version, as v1.2.3; empty: appVersion of the chart")
	repository := flag.String("repository", oci.Repository, "name of the image without a tag")
	out := flag.String("out", "", "folder to write to; it must not exist or be empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *src, *version, *repository, *out); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// versions are those of Helm too, which takes semantic ones only.
var versions = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context, src, version, repository, out string) error {
	tree, err := source.Open(ctx, src, version)
	if err != nil {
		return err
	}
	if !versions.MatchString(tree.Version) {
		return fmt.Errorf("version %q: must be as v1.2.3 or v1.2.3-rc.1", tree.Version)
	}
	if strings.HasSuffix(tree.Commit, "-dirty") {
		fmt.Fprintln(os.Stderr, "warning: there are changes that are not committed")
	}
	if err := emptyDir(out); err != nil {
		return err
	}
	built, err := oci.Build(ctx, tree, source.Arches())
	if err != nil {
		return err
	}
	return write(built, repository, out)
}

func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return err
}

func write(built oci.Built, repository, out string) error {
	tree := built.Tree
	for _, c := range built.Contents {
		name := "ebb-" + tree.Version + "-linux-" + c.Arch
		archive, err := archive(tree, name, c)
		if err != nil {
			return err
		}
		err = errors.Join(os.WriteFile(filepath.Join(out, name+".tar.gz"), archive, 0o644),
			os.WriteFile(filepath.Join(out, name+".spdx.json"), c.SBOM, 0o644))
		if err != nil {
			return err
		}
	}
	digest, err := built.Archive(repository, filepath.Join(out, "ebb-"+tree.Version+"-image.tar"))
	if err != nil {
		return err
	}
	fmt.Printf("image %s:%s@%s\n", repository, tree.Version, digest)
	if _, err := helm.Package(filepath.Join(tree.Dir, source.ChartDir), tree.Version, out); err != nil {
		return err
	}
	return checksums(out)
}

// archive packs the program and what belongs to it, as a gzipped tar file.
func archive(tree source.Tree, folder string, c oci.Content) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	add := func(name string, mode int64, content []byte) error {
		h := &tar.Header{Name: folder + "/" + name, Mode: mode, Size: int64(len(content)), ModTime: tree.Time, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	errs := []error{add("ebb", 0o755, c.Program), add("sbom.spdx.json", 0o644, c.SBOM)}
	for _, file := range []string{"LICENSE", "CHANGELOG.md", "README.md", "deploy/systemd/ebb.service"} {
		content, err := os.ReadFile(filepath.Join(tree.Dir, file))
		errs = append(errs, err, add(filepath.Base(file), 0o644, content))
	}
	err := errors.Join(append(errs, w.Close(), z.Close())...)
	return buf.Bytes(), err
}

// checksums writes SHA256SUMS as sha256sum does.
func checksums(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		lines = append(lines, fmt.Sprintf("%x  %s\n", sha256.Sum256(content), e.Name()))
	}
	slices.Sort(lines)
	file := filepath.Join(dir, "SHA256SUMS")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o644); err != nil {
		return err
	}
	fmt.Printf("%d files in %s\n", len(lines)+1, dir)
	return nil
}
