package watch

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/ebb-lb/ebb/agent/service"
)

// patience is how long a test waits for something that must come.
const patience = 20 * time.Second

// harness follows a Store as the agent's loop does.
type harness struct {
	t     *testing.T
	store *service.Store
	views map[service.Name]service.View
	node  service.Node
	cidrs []netip.Prefix
}

func newHarness(t *testing.T) *harness {
	return &harness{t: t, store: service.NewStore(time.Now), views: map[service.Name]service.View{}}
}

// start runs a source until the test ends.
func (h *harness) start(run func(context.Context) error) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- run(ctx) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-result; err != nil {
			h.t.Errorf("run: %v", err)
		}
	})
}

// await takes changes until the state is as wanted.
func (h *harness) await(what string, ok func() bool) {
	h.t.Helper()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-h.store.Changed():
			h.take()
		case <-deadline:
			h.t.Fatalf("never came: %s; have %v, node %v", what, h.views, h.node)
		}
	}
}

func (h *harness) take() {
	c := h.store.Take()
	if c.NodeChanged {
		h.node = c.Node
	}
	if c.ServiceCIDRsChanged {
		h.cidrs = c.ServiceCIDRs
	}
	for _, v := range c.Services {
		h.views[v.Name] = v
	}
}

func (h *harness) endpoints(name service.Name) []string {
	var got []string
	for _, eps := range h.views[name].Endpoints {
		for _, ep := range eps {
			got = append(got, ep.Addr.String())
		}
	}
	return got
}

func (h *harness) awaitEndpoints(name service.Name, want ...string) {
	h.t.Helper()
	h.await(name.String()+" with "+strings.Join(want, " "), func() bool {
		return h.views[name].Service != nil && cmp.Equal(want, h.endpoints(name))
	})
}

func (h *harness) awaitGone(name service.Name) {
	h.t.Helper()
	h.await(name.String()+" gone", func() bool {
		v, ok := h.views[name]
		return ok && v.Service == nil
	})
}

// onN1 is a source on the node n1; the informers it starts are watchCount.
var onN1 = Options{NodeName: "n1"}

const watchCount = 4

var web = service.Name{Namespace: "shop", Name: "web"}

func aNode(name string, addrs ...string) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, a := range addrs {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return node
}

func must[T any](t *testing.T) func(T, error) {
	return func(_ T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// watched returns a channel that gets a value for each watch that began. The
// fake server forgets what happens between a list and the watch after it.
func watched(client *fake.Clientset) <-chan struct{} {
	began := make(chan struct{}, 100)
	client.PrependWatchReactor("*", func(action k8stesting.Action) (bool, apiwatch.Interface, error) {
		w, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		began <- struct{}{}
		return true, w, err
	})
	return began
}

func TestWhatHappensInTheClusterReachesTheStore(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset(aService(nil), aSlice(nil), aNode("n1", "192.0.2.1"), aNode("n2", "192.0.2.2"))
	began := watched(client)
	h := newHarness(t)
	h.start(NewKubernetes(client, onN1, h.store, slog.New(slog.DiscardHandler)).Run)
	for range watchCount {
		<-began
	}
	services := client.CoreV1().Services("shop")
	slices := client.DiscoveryV1().EndpointSlices("shop")
	nodes := client.CoreV1().Nodes()

	h.awaitEndpoints(web, "10.1.0.1:8080")
	if diff := cmp.Diff(service.Node{Name: "n1", Known: true, Addrs: addrs("192.0.2.1")}, h.node, byValue); diff != "" {
		t.Errorf("own node (-want +got):\n%s", diff)
	}

	two := aSlice(func(s *discoveryv1.EndpointSlice) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{"10.1.0.2"}})
	})
	must[*discoveryv1.EndpointSlice](t)(slices.Update(ctx, two, metav1.UpdateOptions{}))
	h.awaitEndpoints(web, "10.1.0.1:8080", "10.1.0.2:8080")

	orphan := aSlice(func(s *discoveryv1.EndpointSlice) { s.Labels = nil })
	must[*discoveryv1.EndpointSlice](t)(slices.Update(ctx, orphan, metav1.UpdateOptions{}))
	h.awaitEndpoints(web)

	must[*discoveryv1.EndpointSlice](t)(slices.Update(ctx, two, metav1.UpdateOptions{}))
	h.awaitEndpoints(web, "10.1.0.1:8080", "10.1.0.2:8080")
	if err := slices.Delete(ctx, "web-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.awaitEndpoints(web)

	renamed := aService(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName })
	must[*corev1.Service](t)(services.Update(ctx, renamed, metav1.UpdateOptions{}))
	h.awaitGone(web)

	db := service.Name{Namespace: "shop", Name: "db"}
	must[*corev1.Service](t)(services.Create(ctx, aService(func(s *corev1.Service) { s.Name = "db" }), metav1.CreateOptions{}))
	h.awaitEndpoints(db)
	if err := services.Delete(ctx, "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.awaitGone(db)

	must[*corev1.Node](t)(nodes.Update(ctx, aNode("n2", "192.0.2.9"), metav1.UpdateOptions{}))
	must[*corev1.Node](t)(nodes.Update(ctx, aNode("n1", "192.0.2.7"), metav1.UpdateOptions{}))
	h.await("the own node's new address", func() bool { return cmp.Equal(h.node.Addrs, addrs("192.0.2.7"), byValue) })
	if err := nodes.Delete(ctx, "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	h.await("the own node gone, its addresses kept", func() bool {
		return h.node.Name == "n1" && !h.node.Known && cmp.Equal(h.node.Addrs, addrs("192.0.2.7"), byValue)
	})
}

func TestTheServerIsAskedForNoMoreThanNeeded(t *testing.T) {
	for proxy, selector := range map[string]string{
		"":    "!service.kubernetes.io/service-proxy-name",
		"ebb": "service.kubernetes.io/service-proxy-name=ebb",
	} {
		t.Run("proxy name "+proxy, func(t *testing.T) {
			t.Parallel()
			want := map[string][2]string{
				"services":       {selector, "spec.clusterIP!=None"},
				"endpointslices": {"!service.kubernetes.io/headless", ""},
				"nodes":          {"", "metadata.name=n1"},
				"servicecidrs":   {"", ""},
			}
			if diff := cmp.Diff(want, lists(t, Options{NodeName: "n1", ServiceProxyName: proxy})); diff != "" {
				t.Errorf("lists (-want +got):\n%s", diff)
			}
		})
	}
}

// lists returns the label and field selectors of the first list of each resource.
func lists(t *testing.T, opts Options) map[string][2]string {
	client := fake.NewClientset()
	asked := make(chan [3]string, 100)
	client.PrependReactor("list", "*", func(action k8stesting.Action) (bool, runtime.Object, error) {
		list := action.(k8stesting.ListAction).GetListRestrictions()
		asked <- [3]string{action.GetResource().Resource, list.Labels.String(), list.Fields.String()}
		return false, nil, nil
	})
	h := newHarness(t)
	h.start(NewKubernetes(client, opts, h.store, slog.New(slog.DiscardHandler)).Run)
	h.await("the first lists", h.store.Synced)
	got := map[string][2]string{}
	for range watchCount {
		a := <-asked
		got[a[0]] = [2]string{a[1], a[2]}
	}
	return got
}

func TestANodeUnknownToTheClusterStillHasItsName(t *testing.T) {
	h := newHarness(t)
	h.start(NewKubernetes(fake.NewClientset(), onN1, h.store, slog.New(slog.DiscardHandler)).Run)
	h.await("the node's name", func() bool { return h.node.Name == "n1" })
}

// TestOneMissingListHoldsEverythingBack refuses one kind of list until the
// other two were delivered and the refusal was seen.
func TestOneMissingListHoldsEverythingBack(t *testing.T) {
	for _, resource := range []string{"services", "endpointslices", "nodes", "servicecidrs"} {
		t.Run("without "+resource, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(aService(nil), aSlice(nil), aNode("n1", "192.0.2.1"))
			refused := make(chan struct{}, 100)
			allow := make(chan struct{})
			client.PrependReactor("list", resource, func(k8stesting.Action) (bool, runtime.Object, error) {
				select {
				case <-allow:
					return false, nil, nil
				default:
					refused <- struct{}{}
					return true, nil, errors.New("not today")
				}
			})
			h := newHarness(t)
			h.start(NewKubernetes(client, onN1, h.store, slog.New(slog.DiscardHandler)).Run)
			// The second refusal comes after a back-off, in which the others
			// had time to be delivered.
			<-refused
			<-refused
			if h.store.Synced() || !h.store.Take().Empty() {
				t.Error("handed out half a view")
			}
			close(allow)
			h.awaitEndpoints(web, "10.1.0.1:8080")
			if h.node.Name != "n1" {
				t.Errorf("node = %v", h.node)
			}
		})
	}
}

func TestADeletionThatWasMissedIsKnownByItsKey(t *testing.T) {
	got, ok := nameOf(cache.DeletedFinalStateUnknown{Key: "shop/web"})
	if !ok || got != web {
		t.Errorf("got %v, %v", got, ok)
	}
	got, ok = nameOf(cache.DeletedFinalStateUnknown{Key: "n1"})
	if want := (service.Name{Name: "n1"}); !ok || got != want {
		t.Errorf("got %v, %v", got, ok)
	}
}

func TestManagedFieldsAreNotKept(t *testing.T) {
	svc := aService(func(s *corev1.Service) { s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}} })
	got, err := stripManagedFields(svc)
	if err != nil {
		t.Fatal(err)
	}
	if kept := got.(*corev1.Service).ManagedFields; kept != nil {
		t.Errorf("kept %v", kept)
	}
}

func TestConnect(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"https://192.0.2.1:6443"}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}]}`
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Connect(API{Kubeconfig: good}, nil); err != nil {
		t.Errorf("good kubeconfig: %v", err)
	}
	missing := filepath.Join(dir, "missing")
	if _, err := Connect(API{Kubeconfig: missing}, nil); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing kubeconfig: %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Connect(API{}, nil); err == nil || !strings.Contains(err.Error(), "in-cluster") {
		t.Errorf("outside a cluster: %v", err)
	}
}
