package watch

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
)

// write puts a file in place as editors and deployments should: by renaming.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	scratch := filepath.Join(dir, "."+name+".new")
	if err := os.WriteFile(scratch, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(scratch, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// link makes dir/name point to target in one step.
func link(t *testing.T, target, dir, name string) {
	t.Helper()
	scratch := filepath.Join(dir, "."+name+".new")
	if err := os.Symlink(target, scratch); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(scratch, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func newDir(h *harness, path string) *Dir {
	return NewDir(path, onN1, h.store, slog.New(slog.DiscardHandler))
}

func sliceWith(addr string) string { return strings.Replace(goodSlice, "10.1.0.1", addr, 1) }

func TestChangesInTheDirectoryReachTheStore(t *testing.T) {
	path := t.TempDir()
	write(t, path, "web.yaml", goodService)
	h := newHarness(t)
	h.start(newDir(h, path).Run)
	h.awaitEndpoints(web)
	if h.node.Name != "n1" || len(h.node.Addrs) != 0 {
		t.Errorf("node without a manifest = %v", h.node)
	}

	write(t, path, "slice.yml", goodSlice)
	h.awaitEndpoints(web, "10.1.0.1:8080")
	write(t, path, "node.yaml", goodNode)
	h.await("the node's address", func() bool { return cmp.Equal(h.node.Addrs, addrs("192.0.2.1"), byValue) })
	if err := os.WriteFile(filepath.Join(path, "slice.yml"), []byte(sliceWith("10.1.0.2")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.awaitEndpoints(web, "10.1.0.2:8080")
	remove(t, path, "slice.yml")
	h.awaitEndpoints(web)
	remove(t, path, "web.yaml")
	h.awaitGone(web)
	remove(t, path, "node.yaml")
	h.await("the node without an object, at the address it had", func() bool { return !h.node.Known && len(h.node.Addrs) == 1 })
}

// mountConfigMap makes a version of a mounted ConfigMap the current one: the
// files are links through "..data", which is swapped.
func mountConfigMap(t *testing.T, path, version, text string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(path, version), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(path, version), "web.yaml", text)
	link(t, version, path, "..data")
}

func TestASwappedLinkIsNoticed(t *testing.T) {
	path := t.TempDir()
	mountConfigMap(t, path, "..1", goodService+"---\n"+goodSlice)
	link(t, "..data/web.yaml", path, "web.yaml")
	h := newHarness(t)
	h.start(newDir(h, path).Run)
	h.awaitEndpoints(web, "10.1.0.1:8080")
	mountConfigMap(t, path, "..2", goodService+"---\n"+sliceWith("10.1.0.2"))
	h.awaitEndpoints(web, "10.1.0.2:8080")
}

// TestPolling makes changes no event tells of and polls once.
func TestPolling(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, path, outside string)
		want   []string
	}{
		{"nothing changed: nothing happens", func(*testing.T, string, string) {}, []string{"10.1.0.1:8080"}},
		{"a file behind a link changed", func(t *testing.T, _, outside string) {
			write(t, outside, "slice.yaml", sliceWith("10.1.0.2"))
		}, []string{"10.1.0.2:8080"}},
		{"a link points elsewhere", func(t *testing.T, path, outside string) {
			write(t, outside, "other.yaml", sliceWith("10.1.0.3"))
			link(t, filepath.Join(outside, "other.yaml"), path, "slice.yaml")
		}, []string{"10.1.0.3:8080"}},
		{"the directory itself was replaced", func(t *testing.T, path, outside string) {
			if err := os.Rename(path, path+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, "all.yaml", goodService+"---\n"+sliceWith("10.1.0.4"))
		}, []string{"10.1.0.4:8080"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path, outside := filepath.Join(t.TempDir(), "m"), t.TempDir()
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, "web.yaml", goodService)
			write(t, outside, "slice.yaml", goodSlice)
			link(t, filepath.Join(outside, "slice.yaml"), path, "slice.yaml")
			h := newHarness(t)
			d := newDir(h, path)
			d.load()
			h.take()

			tc.change(t, path, outside)
			d.poll(nil)
			h.take()
			if diff := cmp.Diff(tc.want, h.endpoints(web)); diff != "" || d.Err() != nil {
				t.Errorf("endpoints (-want +got), error %v:\n%s", d.Err(), diff)
			}
		})
	}
}

func TestEventsComeFromADirectoryThatWasReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	events, err := newDirEvents(path)
	if err != nil {
		t.Fatal(err)
	}
	defer events.close()
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	events.renew()
	write(t, path, "web.yaml", goodService)
	for {
		select {
		case ev := <-events.changes():
			if filepath.Base(ev.Name) == "web.yaml" {
				return
			}
		case err := <-events.errors():
			t.Fatal(err)
		case <-t.Context().Done():
			t.Fatal("no event")
		}
	}
}

// TestABadStateKeepsTheLastGoodOne breaks a directory and mends it.
func TestABadStateKeepsTheLastGoodOne(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, path string)
		want  string
	}{
		{"bad YAML", func(t *testing.T, path string) { write(t, path, "slice.yaml", "a: b: c\n") }, "slice.yaml: document 1: yaml: line 1"},
		{"a bad file beside good changes", func(t *testing.T, path string) {
			write(t, path, "slice.yaml", sliceWith("10.1.0.9"))
			write(t, path, "x.yaml", "kind: {}\n")
		}, "x.yaml: document 1"},
		{"an emptied file", func(t *testing.T, path string) { write(t, path, "slice.yaml", "") }, "slice.yaml: empty"},
		{"a link to nowhere", func(t *testing.T, path string) { link(t, "nowhere", path, "x.yaml") }, "nowhere"},
		{"the directory went away", func(t *testing.T, path string) {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "m")
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, "web.yaml", goodService)
			write(t, path, "slice.yaml", goodSlice)
			h := newHarness(t)
			d := newDir(h, path)
			d.load()
			h.take()

			tc.spoil(t, path)
			d.poll(nil)
			if err := d.Err(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %s", err, tc.want)
			}
			if c := h.store.Take(); !c.Empty() {
				t.Errorf("a bad state changed something: %v", c)
			}

			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, "web.yaml", goodService+"---\n"+sliceWith("10.1.0.2"))
			d.poll(nil)
			h.take()
			if diff := cmp.Diff([]string{"10.1.0.2:8080"}, h.endpoints(web)); diff != "" || d.Err() != nil {
				t.Errorf("next good state (-want +got), error %v:\n%s", d.Err(), diff)
			}
		})
	}
}

func TestABadStartIsWaitedFor(t *testing.T) {
	path := t.TempDir()
	write(t, path, "web.yaml", "a: b: c\n")
	h := newHarness(t)
	d := newDir(h, path)
	d.load()
	if d.Err() == nil || h.store.Synced() {
		t.Fatalf("error %v, synced %v", d.Err(), h.store.Synced())
	}
	h.start(d.Run)
	write(t, path, "web.yaml", goodService)
	h.awaitEndpoints(web)
}

func TestADirectoryThatDoesNotExistIsAnErrorAtOnce(t *testing.T) {
	h := newHarness(t)
	path := filepath.Join(t.TempDir(), "missing")
	err := newDir(h, path).Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

func TestOnlyManifestsAreRead(t *testing.T) {
	path := t.TempDir()
	for _, name := range []string{"README.md", ".hidden.yaml", "web.yaml~"} {
		write(t, path, name, "a: b: c\n")
	}
	if err := os.Mkdir(filepath.Join(path, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path, "web.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"shop"},"spec":{"clusterIP":"10.96.0.1"}}`)
	h := newHarness(t)
	d := newDir(h, path)
	d.load()
	h.take()
	if d.Err() != nil || h.views[web].Service == nil || len(h.views) != 1 {
		t.Errorf("error %v, views %v", d.Err(), h.views)
	}
}

// lines collects log messages.
type lines struct{ strings.Builder }

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }

func TestWhatIsWrongOrIgnoredIsLoggedOnce(t *testing.T) {
	path := t.TempDir()
	write(t, path, "web.yaml", goodService)
	write(t, path, "pod.yaml", "apiVersion: v1\nkind: Pod\n")
	var log lines
	store := service.NewStore(time.Now)
	d := NewDir(path, onN1, store, slog.New(slog.NewTextHandler(&log, nil)))
	d.load()
	d.load()
	if got := log.count("kind Pod"); got != 1 {
		t.Errorf("ignored kind logged %d times", got)
	}
	write(t, path, "bad.yaml", "a: b: c\n")
	d.load()
	d.load()
	if got := log.count("manifests refused"); got != 1 {
		t.Errorf("error logged %d times", got)
	}
	remove(t, path, "bad.yaml")
	d.load()
	d.load()
	if got := log.count("manifests in force"); got != 2 {
		t.Errorf("good state logged %d times, want at start and after the error", got)
	}
}
