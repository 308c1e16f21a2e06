package watch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

func TestServiceCIDRsReachTheStore(t *testing.T) {
	ctx := t.Context()
	client := fake.NewClientset(aServiceCIDR("kubernetes", "10.96.0.0/16"))
	began := watched(client)
	h := newHarness(t)
	h.start(NewKubernetes(client, onN1, h.store, slog.New(slog.DiscardHandler)).Run)
	for range watchCount {
		<-began
	}
	await := func(want ...string) {
		t.Helper()
		h.await(strings.Join(want, " "), func() bool { return cmp.Equal(h.cidrs, prefixes(want...), byValue) })
	}
	await("10.96.0.0/16")
	cidrs := client.NetworkingV1().ServiceCIDRs()
	_, err := cidrs.Create(ctx, aServiceCIDR("more", "10.97.0.0/16", "fd00:96::/108"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await("10.96.0.0/16", "10.97.0.0/16", "fd00:96::/108")
	if err := cidrs.Delete(ctx, "kubernetes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await("10.97.0.0/16", "fd00:96::/108")
}

// safeBuffer is a log that informers write and a test reads.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestAServerWithoutServiceCIDRsIsEnough refuses them until the second refusal
// was seen, then gives them.
func TestAServerWithoutServiceCIDRsIsEnough(t *testing.T) {
	resource := schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}
	for name, refusal := range map[string]error{
		"the API is not there": apierrors.NewNotFound(resource, ""),
		"it is not allowed":    apierrors.NewForbidden(resource, "", errors.New("RBAC")),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(aService(nil), aSlice(nil), aNode("n1", "192.0.2.1"), aServiceCIDR("kubernetes", "10.96.0.0/16"))
			asked, allow := make(chan struct{}, 100), make(chan struct{})
			client.PrependReactor("list", "servicecidrs", func(k8stesting.Action) (bool, runtime.Object, error) {
				select {
				case <-allow:
					return false, nil, nil
				default:
					asked <- struct{}{}
					return true, nil, refusal
				}
			})
			var log safeBuffer
			h := newHarness(t)
			h.start(NewKubernetes(client, onN1, h.store, slog.New(slog.NewTextHandler(&log, nil))).Run)
			h.awaitEndpoints(web, "10.1.0.1:8080")
			if len(h.cidrs) != 0 {
				t.Errorf("ServiceCIDRs = %v", h.cidrs)
			}
			<-asked
			<-asked
			close(allow)
			h.await("the ServiceCIDRs, later", func() bool { return cmp.Equal(h.cidrs, prefixes("10.96.0.0/16"), byValue) })
			if got := strings.Count(log.String(), "resource refused"); got != 1 || strings.Contains(log.String(), "interrupted") {
				t.Errorf("the refusal was logged %d times:\n%s", got, log.String())
			}
		})
	}
}

// TestAServerThatForbidsEverythingAtFirst is one that has just been started.
// What it then gives is waited for, as if it had never been forbidden.
func TestAServerThatForbidsEverythingAtFirst(t *testing.T) {
	client := fake.NewClientset(aService(nil), aSlice(nil), aNode("n1", "192.0.2.1"), aServiceCIDR("kubernetes", "10.96.0.0/16"))
	const times = 2
	asked := map[string]int{}
	forbidden := make(chan struct{}, 100)
	client.PrependReactor("list", "*", func(a k8stesting.Action) (bool, runtime.Object, error) {
		resource := a.GetResource().Resource // reactors are called one at a time
		if asked[resource]++; asked[resource] > times {
			return false, nil, nil
		}
		forbidden <- struct{}{}
		return true, nil, apierrors.NewForbidden(a.GetResource().GroupResource(), "", errors.New("RBAC"))
	})
	h := newHarness(t)
	h.start(NewKubernetes(client, onN1, h.store, slog.New(slog.DiscardHandler)).Run)
	for range watchCount * times {
		<-forbidden
	}
	h.awaitEndpoints(web, "10.1.0.1:8080")
	if !cmp.Equal(h.cidrs, prefixes("10.96.0.0/16"), byValue) {
		t.Errorf("services came with ServiceCIDRs %v", h.cidrs)
	}
}

func TestOnlyServiceCIDRsMayBeRefused(t *testing.T) {
	k := NewKubernetes(fake.NewClientset(), onN1, newHarness(t).store, slog.New(slog.DiscardHandler))
	var optional []string
	for _, w := range k.watches() {
		if w.refused != nil {
			optional = append(optional, w.resource)
		}
	}
	if !slices.Equal(optional, []string{"servicecidrs"}) {
		t.Errorf("the agent would go on without %v", optional)
	}
}

func TestOtherErrorsAreNoRefusal(t *testing.T) {
	discard := slog.New(slog.DiscardHandler)
	r := newRefusal()
	if r.because(context.DeadlineExceeded, discard) || r.because(apierrors.NewInternalError(errors.New("x")), discard) {
		t.Error("a server in trouble counts as one without the resource")
	}
	select {
	case <-r.done():
		t.Error("refused")
	default:
	}
	var must *refusal
	if must.because(apierrors.NewNotFound(schema.GroupResource{}, ""), discard) || must.done() != nil {
		t.Error("what must be there may be refused")
	}
}
