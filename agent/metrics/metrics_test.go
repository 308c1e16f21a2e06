package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ebb-lb/ebb/maps"
	"github.com/ebb-lb/ebb/maps/mapstest"
)

// counters and stats are what the datapath would have counted.
type counters map[maps.Hook]map[maps.Verdict]uint64

func (c counters) All() (map[maps.Hook]map[maps.Verdict]uint64, error) { return c, nil }

type stats map[maps.BackendID]maps.BackendCounts

func (s stats) Get(id maps.BackendID) (maps.BackendCounts, error) { return s[id], nil }

// broken is a map that cannot be read.
type broken[K comparable, V any] struct{}

var errBroken = errors.New("broken on purpose")

func (broken[K, V]) All() (map[K]V, error) { return nil, errBroken }
func (broken[K, V]) Get(K) (V, error)      { return *new(V), errBroken }

func newSource(fake *mapstest.Fake) Source {
	return Source{
		Counters: counters{}, Stats: stats{}, Backends: fake.Backends(),
		ServicePorts: fake.ServicePorts(), Frontends: fake.Frontends(),
		Writes: func() map[string]uint64 { return map[string]uint64{"all": fake.Writes()} },
	}
}

// scrape returns status and body of a scrape.
func scrape(t *testing.T, c prometheus.Collector) (int, string) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Code, w.Body.String()
}

// samples returns the lines that are no comments. Their order is the registry's.
func samples(body string) []string {
	var out []string
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

func newFake() *mapstest.Fake {
	return mapstest.New(maps.Sizes{Frontends: 8, ServicePorts: 8, Backends: 8, Slots: 8, Flows: 1, HalfOpen: 1, Closed: 1})
}

// fill puts two service ports with three backends and one leftover into fake.
func fill(t *testing.T, fake *mapstest.Fake) {
	t.Helper()
	backend := func(addr string, state maps.State, port maps.ServicePortID) maps.Backend {
		return maps.Backend{Addr: netip.MustParseAddrPort(addr), State: state, Generation: 1, ServicePort: port}
	}
	err := errors.Join(
		fake.ServicePorts().Put(1, maps.ServicePort{Namespace: "shop", Service: "web", Port: "http", Proto: maps.TCP}),
		fake.ServicePorts().Put(2, maps.ServicePort{Namespace: "kube-system", Service: "dns", Proto: maps.UDP}),
		fake.Backends().Put(0, backend("10.0.0.1:8080", maps.Active, 1)),
		fake.Backends().Put(1, backend("10.0.0.2:8080", maps.Draining, 1)),
		fake.Backends().Put(2, backend("10.0.0.3:53", maps.Active, 2)),
		fake.Backends().Put(3, backend("10.0.0.4:8080", maps.Gone, 3)), // a service port without a name
		fake.Frontends().Put(maps.Frontend{Addr: netip.MustParseAddr("10.96.0.1"), Port: 80, Proto: maps.TCP}, maps.Service{ServicePort: 1}),
		fake.Frontends().Put(maps.Frontend{Addr: netip.MustParseAddr("10.96.0.10"), Port: 53, Proto: maps.UDP}, maps.Service{ServicePort: 2}),
	)
	if err != nil {
		t.Fatal(err)
	}
}

func TestAScrapeShowsMapsAndCounts(t *testing.T) {
	fake := newFake()
	fill(t, fake)
	source := newSource(fake)
	source.Counters = counters{
		maps.HookXDP:       {maps.VerdictToLocal: 5, maps.VerdictNoBackend: 0},
		maps.HookTCIngress: {maps.VerdictToRemote: 7},
	}
	source.Stats = stats{
		0: {Opened: 10, Closed: 4, SocketOpened: 9, SocketClosed: 2, Bytes: 1000, RxBytes: 5000},
		1: {Opened: 3, Closed: 3, SocketOpened: 5, SocketClosed: 1, Bytes: 100, RxBytes: 500},
		2: {Opened: 20, Bytes: 2000, RxBytes: 3000},
		3: {Opened: 99, Bytes: 99},
	}
	code, body := scrape(t, NewCollector(source))
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	dns, web := `{namespace="kube-system",port="",protocol="UDP",service="dns"} `, `{namespace="shop",port="http",protocol="TCP",service="web"} `
	want := []string{
		"ebb_backend_bytes_total" + dns + "2000",
		"ebb_backend_bytes_total" + web + "1100",
		`ebb_backends{state="active"} 2`,
		`ebb_backends{state="draining"} 1`,
		`ebb_backends{state="gone"} 1`,
		"ebb_client_bytes_total" + dns + "3000",
		"ebb_client_bytes_total" + web + "5500",
		"ebb_connections_closed_total" + dns + "0",
		"ebb_connections_closed_total" + web + "7",
		"ebb_connections_live" + dns + "20",
		"ebb_connections_live" + web + "6",
		"ebb_connections_opened_total" + dns + "20",
		"ebb_connections_opened_total" + web + "13",
		"ebb_frontends 2",
		`ebb_map_writes_total{map="all"} 8`,
		`ebb_packets_total{hook="tc-ingress",verdict="to-remote"} 7`,
		`ebb_packets_total{hook="xdp",verdict="no-backend"} 0`,
		`ebb_packets_total{hook="xdp",verdict="to-local"} 5`,
		"ebb_socket_connections_closed_total" + dns + "0",
		"ebb_socket_connections_closed_total" + web + "3",
		"ebb_socket_connections_live" + dns + "0",
		"ebb_socket_connections_live" + web + "11",
		"ebb_socket_connections_opened_total" + dns + "0",
		"ebb_socket_connections_opened_total" + web + "14",
	}
	if diff := cmp.Diff(want, samples(body)); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestEveryMetricHasItsTypeAndAHelp(t *testing.T) {
	fake := newFake()
	fill(t, fake)
	source := newSource(fake)
	source.Counters = counters{maps.HookXDP: {maps.VerdictToLocal: 1}}
	_, body := scrape(t, NewCollector(source))
	var types []string
	for line := range strings.Lines(body) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			types = append(types, strings.TrimSpace(name))
		}
	}
	want := []string{
		"ebb_backend_bytes_total counter", "ebb_backends gauge", "ebb_client_bytes_total counter",
		"ebb_connections_closed_total counter", "ebb_connections_live gauge", "ebb_connections_opened_total counter",
		"ebb_frontends gauge", "ebb_map_writes_total counter", "ebb_packets_total counter",
		"ebb_socket_connections_closed_total counter", "ebb_socket_connections_live gauge", "ebb_socket_connections_opened_total counter",
	}
	if diff := cmp.Diff(want, types); diff != "" {
		t.Errorf("types (-want +got):\n%s", diff)
	}
	if helps := strings.Count(body, "# HELP "); helps != len(want) {
		t.Errorf("%d helps, want %d:\n%s", helps, len(want), body)
	}
}

func TestEmptyMapsAreShownAsEmpty(t *testing.T) {
	code, body := scrape(t, NewCollector(newSource(newFake())))
	want := []string{"ebb_frontends 0", `ebb_map_writes_total{map="all"} 0`}
	if diff := cmp.Diff(want, samples(body)); code != http.StatusOK || diff != "" {
		t.Errorf("status %d, samples (-want +got):\n%s", code, diff)
	}
}

// A scrape that lacks half of its metrics must not look complete.
func TestAMapThatCannotBeReadFailsTheScrape(t *testing.T) {
	for name, spoil := range map[string]func(*Source){
		"counters":      func(s *Source) { s.Counters = broken[maps.Hook, map[maps.Verdict]uint64]{} },
		"frontends":     func(s *Source) { s.Frontends = broken[maps.Frontend, maps.Service]{} },
		"backends":      func(s *Source) { s.Backends = broken[maps.BackendID, maps.Backend]{} },
		"service ports": func(s *Source) { s.ServicePorts = broken[maps.ServicePortID, maps.ServicePort]{} },
		"stats":         func(s *Source) { s.Stats = broken[maps.BackendID, maps.BackendCounts]{} },
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFake()
			fill(t, fake)
			source := newSource(fake)
			spoil(&source)
			code, body := scrape(t, NewCollector(source))
			if code != http.StatusInternalServerError || !strings.Contains(body, errBroken.Error()) {
				t.Errorf("status %d: %s", code, body)
			}
		})
	}
}
