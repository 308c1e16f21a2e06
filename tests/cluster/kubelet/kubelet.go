// Package kubelet runs pods on the nodes of a lab the way a kubelet does, as far
// as a Service notices: a namespace and a process per pod, readiness probes,
// preStop, grace period, and a status that the real controllers act upon. Instead of
// images there is one program, which is told by its environment what to be.
//
// It does not know what the pods serve, nor what is between them and clients.
package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ebb-lb/ebb/tests/lab"
)

// Config is what a Kubelet needs to know.
type Config struct {
	Client kubernetes.Interface
	Node   *lab.Node
	// Program is what runs in every pod.
	Program string
	// Env is added to the environment of every pod.
	Env []string
	// Told is called with each line that a pod's program writes. It must not block.
	Told func(pod types.NamespacedName, line string)
	Log  *slog.Logger
}

// Kubelet runs the pods that are bound to its node. Use New, then Run once.
type Kubelet struct {
	cfg Config

	mu   sync.Mutex
	pods map[types.UID]*worker
	wg   sync.WaitGroup
}

// New returns a Kubelet that runs nothing yet.
func New(cfg Config) *Kubelet { return &Kubelet{cfg: cfg, pods: map[types.UID]*worker{}} }

// Run runs pods until ctx is done; their processes end with the lab. While the
// API server is away, pods go on as they were last known, and reports wait.
func (k *Kubelet) Run(ctx context.Context) error {
	informer := coreinformers.NewFilteredPodInformer(k.cfg.Client, metav1.NamespaceAll, 0, nil,
		func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.cfg.Node.Name()).String()
		})
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { k.see(ctx, obj) },
		UpdateFunc: func(_, obj any) { k.see(ctx, obj) },
		DeleteFunc: func(obj any) { k.gone(obj) },
	})
	if err != nil {
		return fmt.Errorf("kubelet of %s: watch pods: %w", k.cfg.Node.Name(), err)
	}
	informer.RunWithContext(ctx)
	k.wg.Wait()
	return nil
}

// see starts a pod that is new, and ends one that is being deleted.
func (k *Kubelet) see(ctx context.Context, obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.pods[pod.UID]
	if w == nil {
		w = newWorker(k.cfg, pod)
		k.pods[pod.UID] = w
		k.wg.Go(func() { w.run(ctx) })
	}
	if pod.DeletionTimestamp != nil {
		w.end(grace(pod))
	}
}

// gone ends a pod at once whose object was removed under it.
func (k *Kubelet) gone(obj any) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.pods[pod.UID]; w != nil {
		w.end(0)
		delete(k.pods, pod.UID)
	}
}

// Namespace returns where a pod runs, nil if it does not run here.
func (k *Kubelet) Namespace(namespace, name string) *lab.NS {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.pods {
		if w.name == (types.NamespacedName{Namespace: namespace, Name: name}) {
			return w.where()
		}
	}
	return nil
}

// grace is how long a pod being deleted may take.
func grace(pod *corev1.Pod) time.Duration {
	if pod.DeletionGracePeriodSeconds == nil {
		return 0
	}
	return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
}
