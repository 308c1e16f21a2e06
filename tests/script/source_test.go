package script

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/agent/watch"
)

// source takes manifests and brings what is in them to a Store. What it holds
// outlives agents.
type source interface {
	put(name string, text []byte) error
	remove(name string) error
	run(ctx context.Context, store *service.Store, log *slog.Logger) error
}

func newSource(t *testing.T, name string) source {
	if name == "dir" {
		return &dirSource{path: t.TempDir()}
	}
	return &apiSource{client: fake.NewClientset(), files: map[string][]object{}}
}

// dirSource is a directory of manifests.
type dirSource struct {
	path     string
	versions int
}

// run polls: to wait for an event of the kernel is not to be idle in a bubble.
func (d *dirSource) run(ctx context.Context, store *service.Store, log *slog.Logger) error {
	dir := watch.NewDir(d.path, watch.Options{NodeName: nodeName}, store, log)
	dir.PollOnly()
	return dir.Run(ctx)
}

func (d *dirSource) put(name string, text []byte) error { return write(d.path, name, text) }

func (d *dirSource) remove(name string) error { return os.Remove(filepath.Join(d.path, name)) }

// write replaces a file in one step.
func write(dir, name string, text []byte) error {
	scratch := filepath.Join(dir, "."+name)
	if err := os.WriteFile(scratch, text, 0o600); err != nil {
		return err
	}
	return os.Rename(scratch, filepath.Join(dir, name))
}

// swap does what the kubelet does with a mounted ConfigMap: files are links
// through "..data", which leads to another version from one moment to the next.
func (d *dirSource) swap(fill func(put func(string, []byte) error) error) error {
	d.versions++
	version := fmt.Sprint("..", d.versions)
	if err := os.Mkdir(filepath.Join(d.path, version), 0o700); err != nil {
		return err
	}
	var names []string
	err := fill(func(name string, text []byte) error {
		names = append(names, name)
		return write(filepath.Join(d.path, version), name, text)
	})
	if err != nil {
		return err
	}
	if err := link(version, d.path, "..data"); err != nil {
		return err
	}
	for _, name := range names {
		if err := link(filepath.Join("..data", name), d.path, name); err != nil {
			return err
		}
	}
	return nil
}

func link(target, dir, name string) error {
	scratch := filepath.Join(dir, "."+name)
	if err := os.Symlink(target, scratch); err != nil {
		return err
	}
	return os.Rename(scratch, filepath.Join(dir, name))
}

// apiSource is an API server in memory. A file stands for the objects in it.
type apiSource struct {
	client *fake.Clientset
	files  map[string][]object
}

// object is one object and how the API calls it.
type object struct {
	runtime.Object
	resource        schema.GroupVersionResource
	namespace, name string
}

func (o object) same(p object) bool {
	return o.resource == p.resource && o.namespace == p.namespace && o.name == p.name
}

func (a *apiSource) run(ctx context.Context, store *service.Store, log *slog.Logger) error {
	return watch.NewKubernetes(a.client, watch.Options{NodeName: nodeName}, store, log).Run(ctx)
}

func (a *apiSource) put(name string, text []byte) error {
	next, err := decode(text)
	if err != nil {
		return err
	}
	if err := a.replace(a.files[name], next); err != nil {
		return err
	}
	a.files[name] = next
	return nil
}

func (a *apiSource) remove(name string) error {
	if a.files[name] == nil {
		return os.ErrNotExist
	}
	err := a.replace(a.files[name], nil)
	delete(a.files, name)
	return err
}

// replace creates and updates before it deletes. Each event is handled before
// the next one comes: between informers there is no order.
func (a *apiSource) replace(have, want []object) error {
	var errs []error
	for _, o := range want {
		if has(have, o) {
			errs = append(errs, a.client.Tracker().Update(o.resource, o.Object, o.namespace))
		} else {
			errs = append(errs, a.client.Tracker().Create(o.resource, o.Object, o.namespace))
		}
		synctest.Wait()
	}
	for _, o := range have {
		if !has(want, o) {
			errs = append(errs, a.client.Tracker().Delete(o.resource, o.namespace, o.name))
			synctest.Wait()
		}
	}
	return errors.Join(errs...)
}

func has(all []object, o object) bool {
	for _, p := range all {
		if o.same(p) {
			return true
		}
	}
	return false
}

// decode returns the objects of a file.
func decode(text []byte) ([]object, error) {
	var all []object
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		obj, kind, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			return nil, err
		}
		m, ok := obj.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("%s has no name", kind)
		}
		resource, _ := meta.UnsafeGuessKindToResource(*kind)
		all = append(all, object{Object: obj, resource: resource, namespace: m.GetNamespace(), name: m.GetName()})
	}
}
