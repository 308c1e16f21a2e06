package oci

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/ebb-lb/ebb/tools/internal/source"
)

// Index returns one image for several architectures.
func Index(tree source.Tree, all []Content) (v1.ImageIndex, error) {
	idx := v1.ImageIndex(empty.Index)
	for _, c := range all {
		img, err := Image(tree, c)
		if err != nil {
			return nil, err
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: c.Arch},
		}})
	}
	annotated, ok := mutate.Annotations(idx, labels(tree)).(v1.ImageIndex)
	if !ok {
		return nil, errors.New("annotations made something else of an index")
	}
	return annotated, nil
}

// Archive writes idx as an OCI layout in a tar file, called name ("repository:tag"),
// as containerd, Podman and Docker import it.
func Archive(idx v1.ImageIndex, name, tag string, at time.Time, file string) (err error) {
	dir, err := os.MkdirTemp("", "ebb-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := p.AppendIndex(idx, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag,
		"io.containerd.image.name":          name,
	})); err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(tarOf(os.DirFS(dir), at, out), out.Close())
}

// tarOf writes a tree whose files all have one time and one owner.
func tarOf(tree fs.FS, at time.Time, to io.Writer) error {
	w := tar.NewWriter(to)
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		h := &tar.Header{Name: name, Mode: 0o644, ModTime: at, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if d.IsDir() {
			h.Name, h.Mode, h.Typeflag = name+"/", 0o755, tar.TypeDir
			return w.WriteHeader(h)
		}
		content, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	return errors.Join(err, w.Close())
}

// withParents returns the names of files and of the directories above them, each
// directory before what is in it.
func withParents(files map[string]file) []string {
	names := map[string]bool{}
	for name := range files {
		for ; name != "."; name = path.Dir(name) {
			names[name] = true
		}
	}
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
