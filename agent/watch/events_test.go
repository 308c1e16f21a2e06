package watch

import (
	"context"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"github.com/ebb-lb/ebb/agent/service"
)

func TestEventsAreOnTheObjectConcerned(t *testing.T) {
	client := fake.NewClientset()
	created := make(chan *eventsv1.Event, 10)
	client.PrependReactor("create", "events", func(a k8stesting.Action) (bool, runtime.Object, error) {
		if e, ok := a.(k8stesting.CreateAction).GetObject().(*eventsv1.Event); ok {
			created <- e
		}
		return false, nil, nil
	})
	events := NewEvents(client, "n1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- events.Run(ctx, slog.New(slog.DiscardHandler)) }()
	defer func() { cancel(); <-ended }()
	wantEvent := func(kind, name, reason, note string) {
		t.Helper()
		select {
		case e := <-created:
			if e.Regarding.Kind != kind || e.Regarding.Name != name || e.Reason != reason || e.Type != corev1.EventTypeWarning || e.Note != note {
				t.Errorf("got %+v", e)
			}
		case <-time.After(patience):
			t.Errorf("no event %s", reason)
		}
	}
	events.ServiceProbesRefused(service.Name{Namespace: "shop", Name: "web"}, "address in use")
	wantEvent("Service", "web", "FailedToStartServiceHealthcheck", "node n1: address in use")
	events.NodeProbesRefused("address in use")
	wantEvent("Node", "n1", "FailedToStartProxierHealthcheck", "address in use")
}
