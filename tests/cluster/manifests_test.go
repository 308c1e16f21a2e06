package cluster

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// TestTheAPIServerTakesTheManifests applies them without keeping anything. Unknown
// fields are refused, and so is what admission or validation refuse.
func TestTheAPIServerTakesTheManifests(t *testing.T) {
	w := setup(t)
	cfg, err := w.plane.Admin()
	w.must(err)
	client, err := dynamic.NewForConfig(cfg)
	w.must(err)
	found, err := discovery.NewDiscoveryClientForConfig(cfg)
	w.must(err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	files, err := filepath.Glob("../../deploy/manifests/*.yaml")
	w.must(err)
	more, err := filepath.Glob("../../deploy/manifests/*/*.yaml")
	w.must(err)
	count := 0
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		w.must(err)
		for _, doc := range bytes.Split(text, []byte("\n---\n")) {
			count++
			w.check(file, dryRun(w, client, mapper, doc))
		}
	}
	if count < 7 {
		t.Errorf("only %d objects in %v", count, files)
	}
}

func dryRun(w *world, client dynamic.Interface, mapper meta.RESTMapper, doc []byte) error {
	var o unstructured.Unstructured
	if err := yaml.Unmarshal(doc, &o.Object); err != nil {
		return err
	}
	kind := o.GroupVersionKind()
	mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return err
	}
	resource := dynamic.ResourceInterface(client.Resource(mapping.Resource))
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = client.Resource(mapping.Resource).Namespace(o.GetNamespace())
	}
	body, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	force := true
	_, err = resource.Patch(w.Context(), o.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: "test", Force: &force, FieldValidation: metav1.FieldValidationStrict,
	})
	return err
}
