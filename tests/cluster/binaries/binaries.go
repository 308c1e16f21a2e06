// Package binaries builds a Kubernetes control plane from Go modules and keeps
// the result outside the repository. What is built stands in the go.mod of the
// module beside it, ../kube; it is built anew when that changes. It knows nothing of
// how the programs are run.
package binaries

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// buildBound is how long a build on a cold machine may take.
const buildBound = 25 * time.Minute

// kubernetes is the module that is built.
const kubernetes = "k8s.io/kubernetes"

// Set is where the programs of a control plane are.
type Set struct {
	Version                            string
	APIServer, ControllerManager, Etcd string
}

// Ensure returns the programs that the module in dir asks for, and builds them
// first if that has not been done on this machine. Several processes may call
// it at once; one of them builds. Progress is told on out.
func Ensure(ctx context.Context, dir string, out io.Writer) (Set, error) {
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		return Set{}, fmt.Errorf("etcd is not installed (Debian: etcd-server): %w", err)
	}
	version, err := versionOf(ctx, dir)
	if err != nil {
		return Set{}, err
	}
	home, err := cacheHome()
	if err != nil {
		return Set{}, err
	}
	sum, err := fingerprint(dir)
	if err != nil {
		return Set{}, err
	}
	at := filepath.Join(home, version+"-"+sum)
	unlock, err := lock(home)
	if err != nil {
		return Set{}, err
	}
	defer unlock()
	if err := build(ctx, dir, version, at, out); err != nil {
		return Set{}, fmt.Errorf("build Kubernetes %s: %w", version, err)
	}
	return Set{
		Version: version, Etcd: etcd,
		APIServer: filepath.Join(at, "kube-apiserver"), ControllerManager: filepath.Join(at, "kube-controller-manager"),
	}, nil
}

// cacheHome is $XDG_CACHE_HOME/ebb/kube.
func cacheHome() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache: %w", err)
	}
	home := filepath.Join(user, "ebb", "kube")
	return home, os.MkdirAll(home, 0o755)
}

func versionOf(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", kubernetes)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("version of %s in %s: %w", kubernetes, dir, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// fingerprint tells apart what is built from the same version.
func fingerprint(dir string) (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		h.Write(text)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4]), nil
}

// lock waits until no other process builds.
func lock(home string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

// build leaves complete programs at the given directory, or none: they are
// built beside it and renamed.
func build(ctx context.Context, dir, version, at string, out io.Writer) error {
	if _, err := os.Stat(at); err == nil {
		return nil
	}
	aside, err := os.MkdirTemp(filepath.Dir(at), "building-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(aside)
	began := time.Now()
	fmt.Fprintf(out, "building Kubernetes %s into %s\n", version, at)
	if err := compile(ctx, dir, version, aside, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "built in %s\n", time.Since(began).Round(time.Second))
	return os.Rename(aside, at)
}

// compile builds both programs at once: most of their packages are the same.
func compile(ctx context.Context, dir, version, into string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, buildBound)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "providerless",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+version, "-o", into+"/",
		kubernetes+"/cmd/kube-apiserver", kubernetes+"/cmd/kube-controller-manager")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}
