package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/ebb-lb/ebb/agent/service"
)

// Kubernetes fills a Store from the API server. While the server is away, the
// Store keeps what was last known.
type Kubernetes struct {
	client kubernetes.Interface
	opts   Options
	store  *service.Store
	log    *slog.Logger
}

// NewKubernetes returns a source that is not running yet.
func NewKubernetes(client kubernetes.Interface, opts Options, store *service.Store, log *slog.Logger) *Kubernetes {
	return &Kubernetes{client: client, opts: opts, store: store, log: log}
}

// Connect returns a client for api. It does not talk to the server yet. When it
// does, contact is told.
func Connect(api API, contact *Contact) (kubernetes.Interface, error) {
	cfg, err := api.restConfig()
	if err != nil {
		return nil, err
	}
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	cfg.UserAgent = "ebb"
	cfg.Wrap(contact.overHTTP)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", cfg.Host, err)
	}
	return client, nil
}

// Run fills the Store until ctx is done, then returns nil. The Store is synced
// once Services, EndpointSlices, the own Node and ServiceCIDRs have delivered
// their first list; the last may be refused instead. It must run only once.
func (k *Kubernetes) Run(ctx context.Context) error {
	k.store.PutNode(k.opts.unknownNode())

	ctx, cancel := context.WithCancel(ctx)
	watches := k.watches()
	var done []chan struct{}
	defer func() {
		cancel()
		for _, d := range done {
			<-d
		}
	}()
	var lists []firstList
	for _, w := range watches {
		reg, err := w.prepare(k.log)
		if err != nil {
			return fmt.Errorf("watch %s: %w", w.resource, err)
		}
		lists = append(lists, firstList{delivered: reg.HasSyncedChecker().Done(), refused: w.refused})
	}
	for _, w := range watches {
		d := make(chan struct{})
		done = append(done, d)
		go func() {
			defer close(d)
			w.informer.RunWithContext(ctx)
		}()
	}
	k.awaitFirstLists(ctx, lists)
	<-ctx.Done()
	return nil
}

// firstList comes, or is refused where that is allowed.
type firstList struct {
	delivered <-chan struct{}
	refused   *refusal
}

// awaitFirstLists returns when every list has reached the Store, or ctx is
// done. Those that must come are awaited before any may be refused.
func (k *Kubernetes) awaitFirstLists(ctx context.Context, lists []firstList) {
	for _, optional := range []bool{false, true} {
		for _, l := range lists {
			if optional != (l.refused != nil) {
				continue
			}
			l.refused.othersAllowed()
			select {
			case <-l.delivered:
			case <-l.refused.done():
			case <-ctx.Done():
				return
			}
		}
	}
	k.log.Info("first lists received", "node", k.opts.NodeName)
	k.store.SetSynced()
}

// resourceWatch is one informer and what its events do.
type resourceWatch struct {
	resource string
	informer cache.SharedIndexInformer
	put      func(obj any)
	remove   func(name service.Name)
	// refused is nil for what the agent cannot work without.
	refused *refusal
}

// watches asks the server to leave out what would be ignored here: headless
// services, those of other proxies, other nodes. Slices of other proxies'
// services are delivered: see convertSlice.
func (k *Kubernetes) watches() []resourceWatch {
	return []resourceWatch{
		{
			resource: "services",
			informer: coreinformers.NewFilteredServiceInformer(k.client, metav1.NamespaceAll, 0, nil,
				func(o *metav1.ListOptions) {
					o.LabelSelector = proxySelector(k.opts.ServiceProxyName)
					o.FieldSelector = fields.OneTermNotEqualSelector("spec.clusterIP", corev1.ClusterIPNone).String()
				}),
			put:    k.putService,
			remove: k.store.DeleteService,
		},
		{
			resource: "endpointslices",
			informer: discoveryinformers.NewFilteredEndpointSliceInformer(k.client, metav1.NamespaceAll, 0, nil,
				func(o *metav1.ListOptions) { o.LabelSelector = "!" + corev1.IsHeadlessService }),
			put:    k.putSlice,
			remove: k.store.DeleteSlice,
		},
		{
			resource: "nodes",
			informer: coreinformers.NewFilteredNodeInformer(k.client, 0, nil,
				func(o *metav1.ListOptions) {
					o.FieldSelector = fields.OneTermEqualSelector("metadata.name", k.opts.NodeName).String()
				}),
			put:    k.putNode,
			remove: k.removeNode,
		},
		{
			resource: "servicecidrs",
			informer: networkinginformers.NewServiceCIDRInformer(k.client, 0, nil),
			put:      k.putServiceCIDR,
			remove:   func(name service.Name) { k.store.DeleteServiceCIDR(name.Name) },
			refused:  newRefusal(),
		},
	}
}

func proxySelector(name string) string {
	if name == "" {
		return "!" + labelProxyName
	}
	return labelProxyName + "=" + name
}

func (w resourceWatch) prepare(log *slog.Logger) (cache.ResourceEventHandlerRegistration, error) {
	if err := w.informer.SetTransform(stripManagedFields); err != nil {
		return nil, err
	}
	log = log.With("resource", w.resource)
	err := w.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if !w.refused.because(err, log) {
			logInterruption(ctx, log, err)
		}
	})
	if err != nil {
		return nil, err
	}
	return w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    w.put,
		UpdateFunc: func(_, obj any) { w.put(obj) },
		DeleteFunc: func(obj any) {
			if name, ok := nameOf(obj); ok {
				w.remove(name)
			}
		},
	})
}

// logInterruption keeps quiet about what ends every watch now and then.
func logInterruption(ctx context.Context, log *slog.Logger, err error) {
	level := slog.LevelWarn
	if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || ctx.Err() != nil {
		level = slog.LevelDebug
	}
	log.Log(ctx, level, "watch interrupted", "error", err)
}

// nameOf also knows objects whose deletion was missed while the watch was
// interrupted; of those only the key is certain.
func nameOf(obj any) (service.Name, bool) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		namespace, name, err := cache.SplitMetaNamespaceKey(gone.Key)
		return service.Name{Namespace: namespace, Name: name}, err == nil
	}
	m, ok := obj.(metav1.Object)
	if !ok {
		return service.Name{}, false
	}
	return service.Name{Namespace: m.GetNamespace(), Name: m.GetName()}, true
}

// stripManagedFields drops what is often the larger half of an object before
// the informer keeps it.
func stripManagedFields(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// putService also removes: a Service may turn into an ExternalName.
func (k *Kubernetes) putService(obj any) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	if converted, ok := convertService(svc, k.opts.ServiceProxyName); ok {
		k.store.PutService(converted)
		return
	}
	k.store.DeleteService(service.Name{Namespace: svc.Namespace, Name: svc.Name})
}

func (k *Kubernetes) putSlice(obj any) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return
	}
	if converted, ok := convertSlice(slice); ok {
		k.store.PutSlice(converted)
		return
	}
	k.store.DeleteSlice(service.Name{Namespace: slice.Namespace, Name: slice.Name})
}

func (k *Kubernetes) putNode(obj any) {
	if node, ok := obj.(*corev1.Node); ok && node.Name == k.opts.NodeName {
		k.store.PutNode(convertNode(node, k.opts))
	}
}

func (k *Kubernetes) removeNode(name service.Name) {
	if name.Name == k.opts.NodeName {
		k.store.DeleteNode()
	}
}

func (k *Kubernetes) putServiceCIDR(obj any) {
	if c, ok := obj.(*networkingv1.ServiceCIDR); ok {
		k.store.PutServiceCIDR(c.Name, convertServiceCIDR(c))
	}
}
