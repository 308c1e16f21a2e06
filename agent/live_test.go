package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/flows"
	"github.com/ebb-lb/ebb/agent/service"
	"github.com/ebb-lb/ebb/maps"
)

func TestLiveFlowsCountForTheServiceOfTheirBackend(t *testing.T) {
	l := &liveCounts{}
	if l.byService() != nil || l.of(1) >= 0 {
		t.Error("something is known before the first collection")
	}
	l.set(map[flows.Owner]int{
		{ID: 1, Generation: 1}: 2,
		{ID: 2, Generation: 1}: 3, // of an earlier owner of the index
		{ID: 2, Generation: 2}: 4,
		{ID: 3, Generation: 1}: 5,
		{ID: 9, Generation: 1}: 6, // not in the maps any more
	}, map[maps.BackendID]maps.Backend{
		1: {ServicePort: 7, Generation: 1}, 2: {ServicePort: 8, Generation: 2}, 3: {ServicePort: 99, Generation: 1},
	}, map[maps.ServicePortID]maps.ServicePort{
		7: {Namespace: "shop", Service: "web", Port: "http"}, 8: {Namespace: "shop", Service: "web", Port: "admin"},
	})
	want := map[service.Name]int{{Namespace: "shop", Name: "web"}: 6}
	if diff := cmp.Diff(want, l.byService()); diff != "" {
		t.Errorf("by service (-want +got):\n%s", diff)
	}
	if got := l.of(2); got != 7 {
		t.Errorf("%d flows of index 2, want 7", got)
	}
}

func TestABackendIsGoneOnceItsEntrySaysSoOrIsAnothers(t *testing.T) {
	is := gone(map[maps.BackendID]maps.Backend{
		1: {State: maps.Gone, Generation: 3}, 2: {State: maps.Draining, Generation: 3},
	})
	for o, want := range map[flows.Owner]bool{
		{ID: 1, Generation: 3}: true,
		{ID: 1, Generation: 2}: true,
		{ID: 1, Generation: 4}: false, // has the index since the maps were read
		{ID: 2, Generation: 3}: false,
		{ID: 2, Generation: 2}: true,
		{ID: 2, Generation: 4}: false,
		{ID: 3, Generation: 1}: false, // not known
	} {
		if got := is(o); got != want {
			t.Errorf("%+v: %v, want %v", o, got, want)
		}
	}
}
