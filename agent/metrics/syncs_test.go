package metrics

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ebb-lb/ebb/agent/reconcile"
	"github.com/ebb-lb/ebb/agent/service"
)

var start = time.Unix(1_000_000, 0)

func after(d time.Duration) time.Time { return start.Add(d) }

// observed is Syncs and what a scrape of them shows.
type observed struct {
	*Syncs
	reg      *prometheus.Registry
	counts   service.Counts
	contact  time.Time
	complete time.Time
}

func newObserved() *observed {
	o := &observed{reg: prometheus.NewPedanticRegistry()}
	o.Syncs = NewSyncs(o.reg, Facts{
		NodeName: "here", Counts: func() service.Counts { return o.counts },
		Contact: func() time.Time { return o.contact }, Complete: func() time.Time { return o.complete },
		Now: func() time.Time { return after(time.Minute) },
	})
	return o
}

// want checks that each line is in the scrape.
func (o *observed) want(t *testing.T, lines ...string) {
	t.Helper()
	got := samples(gather(o.reg))
	for _, line := range lines {
		if !slices.Contains(got, line) {
			name, _, _ := strings.Cut(line, " ")
			t.Errorf("want %s, got %v", line, slices.DeleteFunc(slices.Clone(got), func(l string) bool { return !strings.HasPrefix(l, name) }))
		}
	}
}

func gather(reg *prometheus.Registry) string {
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func view(name string, received, triggered time.Duration) service.View {
	v := service.View{Name: service.Name{Namespace: "shop", Name: name}}
	if received != 0 {
		v.Received = after(received)
	}
	if triggered != 0 {
		v.Triggered = after(triggered)
	}
	return v
}

func TestASyncIsObservedByNamesOfKubeProxyAndOurOwn(t *testing.T) {
	o := newObserved()
	o.Observe(reconcile.Report{
		Begin: after(10 * time.Second), Planned: after(10500 * time.Millisecond), End: after(11 * time.Second), Full: true,
		Services: []service.View{view("a", 9*time.Second, 6*time.Second), view("b", 0, 0)},
	})
	o.Observe(reconcile.Report{
		Begin: after(20 * time.Second), Planned: after(20 * time.Second), End: after(22 * time.Second),
		Services: []service.View{view("a", 19*time.Second, 18*time.Second), view("c", 20*time.Second, 0)},
		Failed:   map[service.Name]error{{Namespace: "shop", Name: "a"}: errBroken}, Incomplete: 1, Err: errBroken,
	})
	o.want(t,
		`kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2`,
		`kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family="IPv6"} 3`,
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.001"} 0`,
		`kubeproxy_sync_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="16.384"} 2`,
		`kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 1`,
		`kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{ip_family="IPv4"} 2`,
		`kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} 1`, // a failed in the second sync
		`kubeproxy_network_programming_duration_seconds_sum{ip_family="IPv4"} 5`,
		`kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="0.25"} 0`,
		`kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="5"} 1`,
		`kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="115"} 1`,
		`kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="300"} 1`,
		`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1.000011e+06`, // of the first
		"ebb_plan_duration_seconds_sum 0.5", "ebb_apply_duration_seconds_sum 2.5",
		"ebb_change_latency_seconds_count 2", "ebb_change_latency_seconds_sum 4",
		"ebb_sync_failures_total 1", "ebb_services_incomplete 1",
	)
}

func TestWhatWaitsIsShown(t *testing.T) {
	o := newObserved()
	o.want(t, "ebb_source_age_seconds +Inf", "ebb_complete_sync_timestamp_seconds 0", "ebb_attached 0",
		`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"} 0`)
	o.counts = service.Counts{
		ServiceChanges: 10, SliceChanges: 20, PendingServiceChanges: 1, PendingSliceChanges: 2, Dirty: 3, Changed: after(time.Second),
	}
	o.contact, o.complete = after(50*time.Second), after(40*time.Second)
	o.Attached(nil)
	o.want(t,
		"kubeproxy_sync_proxy_rules_service_changes_total 10", "kubeproxy_sync_proxy_rules_endpoint_changes_total 20",
		"kubeproxy_sync_proxy_rules_service_changes_pending 1", "kubeproxy_sync_proxy_rules_endpoint_changes_pending 2",
		`kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1.000001e+06`,
		"ebb_services_dirty 3", "ebb_source_age_seconds 10", "ebb_complete_sync_timestamp_seconds 1.00004e+06", "ebb_attached 1")
	o.Attached(errBroken)
	o.want(t, "ebb_attached 0")
}

func TestServicePortsWithoutLocalEndpointsAreCounted(t *testing.T) {
	const gauge = "kubeproxy_sync_proxy_rules_no_local_endpoints_total"
	o := newObserved()
	web := service.Port{PortKey: service.PortKey{Name: "http", Proto: service.TCP}, Port: 80, NodePort: 30080}
	policies := func(name, node string, internal, external service.Policy) service.View {
		n := service.Name{Namespace: "shop", Name: name}
		return service.View{
			Name:      n,
			Service:   &service.Service{Name: n, InternalPolicy: internal, ExternalPolicy: external, Ports: []service.Port{web}},
			Endpoints: map[service.PortKey][]service.Endpoint{web.PortKey: {{Addr: netip.MustParseAddrPort("10.0.0.1:80"), NodeName: node, Ready: true, Serving: true}}},
		}
	}
	check := func(when, internal4, external4 string) {
		t.Helper()
		t.Log(when)
		o.want(t, gauge+`{ip_family="IPv4",traffic_policy="internal"} `+internal4, gauge+`{ip_family="IPv4",traffic_policy="external"} `+external4,
			gauge+`{ip_family="IPv6",traffic_policy="internal"} 0`, gauge+`{ip_family="IPv6",traffic_policy="external"} 0`)
	}
	check("nothing yet", "0", "0")
	o.Observe(reconcile.Report{Full: true, Services: []service.View{
		policies("a", "there", service.Local, service.Local), policies("b", "there", service.Cluster, service.Local),
		policies("c", "here", service.Local, service.Local), policies("d", "there", service.Cluster, service.Cluster),
	}})
	check("two are elsewhere only", "1", "2")
	o.Observe(reconcile.Report{Services: []service.View{policies("b", "here", service.Cluster, service.Local)}})
	check("one came here", "1", "1")
	o.Observe(reconcile.Report{Services: []service.View{{Name: service.Name{Namespace: "shop", Name: "a"}}}})
	check("one is deleted", "0", "0")
}

func TestAMapIsWarnedOfBeforeItIsFull(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewPedanticRegistry()
	room := NewRoom(reg, map[string]Limit{"backends": {Capacity: 100, Flag: "--max-backends"}}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, tc := range []struct {
		entries uint32
		want    string // "" nothing new
	}{
		{79, ""}, {80, "map is getting full"}, {95, ""}, {78, ""}, {82, ""}, {74, "map has room again"}, {100, "map is getting full"},
	} {
		log.Reset()
		room.Note("backends", tc.entries)
		if got := log.String(); (got != "") != (tc.want != "") || !strings.Contains(got, tc.want) {
			t.Errorf("%d of 100: logged %q, want %q", tc.entries, got, tc.want)
		}
	}
	if !strings.Contains(log.String(), "--max-backends") {
		t.Errorf("the warning does not say what to do: %s", log.String())
	}
	want := []string{`ebb_map_capacity{map="backends"} 100`, `ebb_map_entries{map="backends"} 100`}
	if diff := cmp.Diff(want, samples(gather(reg))); diff != "" {
		t.Error(diff)
	}
}

func TestMetricsHaveHelp(t *testing.T) {
	o := newObserved()
	families, err := o.reg.Gather()
	if err != nil || len(families) == 0 {
		t.Fatalf("%d families, %v", len(families), err)
	}
	for _, f := range families {
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
}
