package watch

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"

	"github.com/ebb-lb/ebb/agent/service"
)

// Events tells people by Events on the objects concerned, under the reasons of
// kube-proxy. What the server does not take is lost: it is in the log as well.
type Events struct {
	client kubernetes.Interface
	node   string
	queue  chan warning
}

// mostWaiting bounds warnings nobody has sent yet.
const mostWaiting = 100

type warning struct {
	about        *corev1.ObjectReference
	reason, note string
}

// NewEvents returns Events that wait for Run.
func NewEvents(client kubernetes.Interface, nodeName string) *Events {
	return &Events{client: client, node: nodeName, queue: make(chan warning, mostWaiting)}
}

// Run sends events until ctx is done. It must run only once.
func (e *Events) Run(ctx context.Context, log *slog.Logger) error {
	b := events.NewBroadcaster(&events.EventSinkImpl{Interface: e.client.EventsV1()})
	defer b.Shutdown()
	if err := b.StartRecordingToSinkWithContext(ctx); err != nil {
		log.Warn("events are not sent", "error", err)
	}
	recorder := b.NewRecorder(scheme.Scheme, "ebb")
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-e.queue:
			recorder.Eventf(w.about, nil, corev1.EventTypeWarning, w.reason, "Listen", "%s", w.note)
		}
	}
}

// ServiceProbesRefused tells that the health check node port of a service cannot
// be served on this node.
func (e *Events) ServiceProbesRefused(name service.Name, why string) {
	ref := &corev1.ObjectReference{
		Kind: "Service", Namespace: name.Namespace, Name: name.Name, UID: types.UID(name.String()),
	}
	e.warn(ref, "FailedToStartServiceHealthcheck", fmt.Sprintf("node %s: %s", e.node, why))
}

// NodeProbesRefused tells that the probes of the node cannot be served.
func (e *Events) NodeProbesRefused(why string) {
	ref := &corev1.ObjectReference{Kind: "Node", Name: e.node, UID: types.UID(e.node)}
	e.warn(ref, "FailedToStartProxierHealthcheck", why)
}

// warn does not wait: what does not fit is lost.
func (e *Events) warn(about *corev1.ObjectReference, reason, note string) {
	select {
	case e.queue <- warning{about, reason, note}:
	default:
	}
}
