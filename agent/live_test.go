package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

func TestLiveFlowsCountForTheServiceOfTheirBackend(t *testing.T) {
	l := &liveCounts{}
	if l.byService() != nil || l.of(1) >= 0 {
		t.Error("something is known before the first collection")
	}
	l.set(map[maps.BackendID]maps.BackendCounts{
		1: {Opened: 5, Closed: 3},
		2: {Opened: 9, Closed: 5, SocketOpened: 13, SocketClosed: 3},
		3: {Opened: 5}, // its service port has no name any more
	}, map[maps.BackendID]maps.Backend{
		1: {ServicePort: 7}, 2: {ServicePort: 8}, 3: {ServicePort: 99},
	}, map[maps.ServicePortID]maps.ServicePort{
		7: {Namespace: "shop", Service: "web", Port: "http"}, 8: {Namespace: "shop", Service: "web", Port: "admin"},
	})
	want := map[service.Name]int{{Namespace: "shop", Name: "web"}: 6}
	if diff := cmp.Diff(want, l.byService()); diff != "" {
		t.Errorf("by service (-want +got):\n%s", diff)
	}
	if got := l.of(2); got != 14 {
		t.Errorf("%d flows and sockets of index 2, want 14", got)
	}
}
