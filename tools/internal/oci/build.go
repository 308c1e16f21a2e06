package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/ebb-lb/ebb/tools/internal/sbom"
	"github.com/ebb-lb/ebb/tools/internal/source"
)

// Repository is the name of the image, without a tag.
const Repository = "ebb-lb.dev/ebb"

// Built are the contents of the image, one for each architecture.
type Built struct {
	Tree     source.Tree
	Contents []Content
}

// Build builds the programs, one architecture after the other.
func Build(ctx context.Context, tree source.Tree, arches []string) (b Built, err error) {
	b.Tree = tree
	dir, err := os.MkdirTemp("", "ebb-build-")
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, arch := range arches {
		program := filepath.Join(dir, "ebb-"+arch)
		fmt.Fprintf(os.Stderr, "building %s for linux/%s\n", tree.Version, arch)
		if err := tree.Build(ctx, arch, program); err != nil {
			return b, err
		}
		parts, err := sbom.Of(program, tree)
		if err != nil {
			return b, err
		}
		c, err := Read(arch, program, parts)
		if err != nil {
			return b, err
		}
		b.Contents = append(b.Contents, c)
	}
	return b, nil
}

// Archive writes the image to a file and returns its digest.
func (b Built) Archive(repository, file string) (v1.Hash, error) {
	idx, err := Index(b.Tree, b.Contents)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := Archive(idx, repository+":"+b.Tree.Version, b.Tree.Version, b.Tree.Time, file); err != nil {
		return v1.Hash{}, fmt.Errorf("write %s: %w", file, err)
	}
	return idx.Digest()
}
