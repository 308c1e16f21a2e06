package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/ebb-lb/ebb/tools/internal/source"
)

func tree() source.Tree {
	return source.Tree{Version: "v1.2.3", Commit: "abc", Time: time.Unix(1_700_000_000, 0).UTC()}
}

func built() Built {
	return Built{Tree: tree(), Contents: []Content{
		{Arch: "amd64", Program: []byte("program of amd64"), SBOM: []byte("{}")},
		{Arch: "arm64", Program: []byte("program of arm64"), SBOM: []byte("{}")},
	}}
}

// archive writes b and returns the digest of the image, the file, and its sum.
func archive(t *testing.T, b Built) (v1.Hash, string, [32]byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.tar")
	digest, err := b.Archive("example.test/ebb", file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return digest, file, sha256.Sum256(content)
}

func TestTheSameInputGivesTheSameArchive(t *testing.T) {
	digest1, _, sum1 := archive(t, built())
	digest2, _, sum2 := archive(t, built())
	if digest1 != digest2 || sum1 != sum2 {
		t.Errorf("digests %s and %s, sums %x and %x", digest1, digest2, sum1, sum2)
	}
	other := built()
	other.Contents[0].Program = []byte("another program")
	if digest3, _, _ := archive(t, other); digest3 == digest1 {
		t.Error("another program gives the same digest")
	}
}

func TestTheArchiveIsALayoutOfValidImages(t *testing.T) {
	digest, file, _ := archive(t, built())
	dir := unpack(t, file)
	root, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := root.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest != digest ||
		manifest.Manifests[0].Annotations["io.containerd.image.name"] != "example.test/ebb:v1.2.3" {
		t.Fatalf("the layout has %+v, want the index %s by its name", manifest.Manifests, digest)
	}
	idx, err := root.ImageIndex(digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	images, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var arches []string
	for _, m := range images.Manifests {
		arches = append(arches, m.Platform.String())
		img, err := idx.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, img)
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(arches, want) {
		t.Errorf("images for %v, want %v", arches, want)
	}
}

func checkImage(t *testing.T, img v1.Image) {
	t.Helper()
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	for label, want := range map[string]string{"title": "ebb", "version": "v1.2.3", "revision": "abc", "licenses": source.License, "source": source.URL} {
		if got := cfg.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	if !slices.Equal(cfg.Config.Entrypoint, []string{"/usr/bin/ebb"}) {
		t.Errorf("entry point %q", cfg.Config.Entrypoint)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	var files []string
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(tree().Time) {
			t.Errorf("%s belongs to %d:%d and is of %s", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		if h.Typeflag == tar.TypeReg {
			files = append(files, h.Name)
		}
	}
	if want := []string{ProgramPath, SBOMPath}; !slices.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
}

func unpack(t *testing.T, file string) string {
	t.Helper()
	dir := t.TempDir()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(content)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(to, 0o755)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoBuildsHaveOneDigest builds the program, twice, in trees at different places.
func TestTwoBuildsHaveOneDigest(t *testing.T) {
	if testing.Short() {
		t.Skip("builds ebb twice")
	}
	var digests []v1.Hash
	var sums [][32]byte
	for range 2 {
		src, err := source.Open(t.Context(), copyOfSource(t), "v1.2.3")
		if err != nil {
			t.Fatal(err)
		}
		src.Commit, src.Time = "abc", tree().Time
		b, err := Build(t.Context(), src, []string{"amd64"})
		if err != nil {
			t.Fatal(err)
		}
		digest, _, sum := archive(t, b)
		digests, sums = append(digests, digest), append(sums, sum)
		checkSBOM(t, b.Contents[0].SBOM)
	}
	if digests[0] != digests[1] || sums[0] != sums[1] {
		t.Errorf("digests %s and %s", digests[0], digests[1])
	}
}

// copyOfSource is the tree around this module, without what is not committed.
func copyOfSource(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"go.mod", "go.sum", "cmd", "agent", "loader", "maps", "bpf", "tests/lab"} {
		from := filepath.Join("../../..", part)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, part)
		if info.IsDir() {
			err = os.CopyFS(to, os.DirFS(from))
		} else {
			var b []byte
			if b, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func checkSBOM(t *testing.T, text []byte) {
	t.Helper()
	var d struct {
		Packages      []struct{ Name, VersionInfo string }
		Relationships []struct{ SPDXElementID, RelationshipType string }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, p := range d.Packages {
		versions[p.Name] = p.VersionInfo
	}
	for _, name := range []string{source.Module, "stdlib", "github.com/cilium/ebpf", "k8s.io/client-go"} {
		if versions[name] == "" {
			t.Errorf("%s is not in the SBOM", name)
		}
	}
	if len(d.Relationships) != len(d.Packages) {
		t.Errorf("%d relationships of %d packages", len(d.Relationships), len(d.Packages))
	}
	if strings.Contains(string(text), os.TempDir()) {
		t.Error("the SBOM names a directory of this machine")
	}
}
