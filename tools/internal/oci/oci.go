// Package oci assembles container images that hold the program ebb and what it
// is made of, and nothing else. It needs no container engine; the same input
// always gives the same digest.
package oci

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"github.com/google/go-containerregistry/pkg/compression"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/ebb-lb/ebb/tools/internal/source"
)

// Where files are in an image.
const (
	ProgramPath = "usr/bin/ebb"
	SBOMPath    = "usr/share/doc/ebb/sbom.spdx.json"
)

// Content is what is in the image of one architecture.
type Content struct {
	Arch    string
	Program []byte
	SBOM    []byte
}

// Image returns the image of c.
func Image(tree source.Tree, c Content) (v1.Image, error) {
	layer, err := layer(tree.Time, map[string]file{
		ProgramPath: {0o755, c.Program},
		SBOMPath:    {0o644, c.SBOM},
	})
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: tree.Time}, CreatedBy: source.Module + "/tools/image", Comment: "ebb and its SBOM",
	}})
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(img, config(tree, c.Arch, cfg.DeepCopy()))
}

// config adds to cfg how the image is run.
func config(tree source.Tree, arch string, cfg *v1.ConfigFile) *v1.ConfigFile {
	cfg.Architecture, cfg.OS, cfg.Created = arch, "linux", v1.Time{Time: tree.Time}
	cfg.Config = v1.Config{
		Entrypoint: []string{"/" + ProgramPath},
		Env:        []string{"PATH=/" + path.Dir(ProgramPath)},
		WorkingDir: "/",
		Labels:     labels(tree),
	}
	return cfg
}

func labels(tree source.Tree) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":         "ebb",
		prefix + "description":   "An eBPF layer-4 load balancer for Kubernetes Services",
		prefix + "version":       tree.Version,
		prefix + "revision":      tree.Commit,
		prefix + "created":       tree.Time.Format(time.RFC3339),
		prefix + "licenses":      source.License,
		prefix + "source":        source.URL,
		prefix + "documentation": source.URL + "/blob/main/docs/install.md",
	}
}

type file struct {
	mode    int64
	content []byte
}

// layer returns a layer of these files and of the directories they are in.
func layer(at time.Time, files map[string]file) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range withParents(files) {
		f, isFile := files[name]
		h := &tar.Header{Name: name, Mode: f.mode, Size: int64(len(f.content)), ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if !isFile {
			h.Name, h.Mode, h.Typeflag = name+"/", 0o755, tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("layer: %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompression(compression.GZip), tarball.WithCompressedCaching)
}

// Read returns the content for one architecture from files.
func Read(arch, program string, sbom []byte) (Content, error) {
	b, err := os.ReadFile(program)
	return Content{Arch: arch, Program: b, SBOM: sbom}, err
}
