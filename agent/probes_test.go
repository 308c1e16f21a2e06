package agent

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ebb-lb/ebb/agent/config"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/agent/service"
)

// told notes what people were told.
type told []string

func (l *told) ServiceProbesRefused(name service.Name, why string) {
	*l = append(*l, name.String()+": "+why)
}
func (l *told) NodeProbesRefused(why string) { *l = append(*l, "node: "+why) }

func TestASocketThatCannotBeOpenedIsToldOnce(t *testing.T) {
	var all told
	p := newProbes(config.Config{}, &liveCounts{}, &all, nil, slog.New(slog.DiscardHandler))
	web := service.Name{Namespace: "shop", Name: "web"}
	inUse := responder.Status{Failed: []responder.Failure{{Service: web, Addr: "0.0.0.0:1", Error: "in use"}, {Addr: ":2", Error: "in use"}}}
	p.report(inUse)
	p.report(inUse) // tried again
	p.report(responder.Status{})
	p.report(responder.Status{Failed: inUse.Failed[:1]})
	want := told{"shop/web: in use", "node: in use", "shop/web: in use"}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestAnswersAreCountedUnderTheNamesOfKubeProxy(t *testing.T) {
	p := newProbes(config.Config{}, &liveCounts{}, nil, nil, slog.New(slog.DiscardHandler))
	p.report(responder.Status{Answers: []responder.Answers{
		{Probe: "healthz", Code: 200, Count: 7}, {Probe: "healthz", Code: 503, Count: 1}, {Probe: "livez", Code: 200, Count: 3},
	}})
	const want = `# HELP kubeproxy_proxy_healthz_total Answers to probes of /healthz, by status code.
# TYPE kubeproxy_proxy_healthz_total counter
kubeproxy_proxy_healthz_total{code="200"} 7
kubeproxy_proxy_healthz_total{code="503"} 1
# HELP kubeproxy_proxy_livez_total Answers to probes of /livez, by status code.
# TYPE kubeproxy_proxy_livez_total counter
kubeproxy_proxy_livez_total{code="200"} 3
`
	registry := prometheus.NewRegistry()
	registry.MustRegister(p)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// A directory need not have a Node; a cluster that has none has removed it.
func TestANodeWithoutAnObjectIsDrainedByAClusterOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		source config.Source
		want   bool
	}{
		"cluster":   {config.Source{}, false},
		"directory": {config.Source{Dir: "/manifests"}, true},
	} {
		p := newProbes(config.Config{Source: tc.source}, &liveCounts{}, nil, nil, slog.New(slog.DiscardHandler))
		p.state.Node(service.Node{Name: "n1"})
		if v, _ := p.state.View(); v.Node.Eligible != tc.want {
			t.Errorf("%s: eligible %v", name, v.Node.Eligible)
		}
	}
}

func TestWhatTheLoopFindsOutIsHandedOnAtOnce(t *testing.T) {
	p := newProbes(config.Config{HealthAddr: ":1"}, &liveCounts{}, nil, nil, slog.New(slog.DiscardHandler))
	if u := p.update(); u.View != nil || u.Addr != ":1" {
		t.Errorf("before anything is known: %+v", u)
	}
	p.state.Synced(health.Applied{})
	p.state.Attached(nil)
	select {
	case <-p.changed:
	default:
		t.Error("nobody was told of a change")
	}
	if u := p.update(); u.View == nil || !u.View.Node.Healthy {
		t.Errorf("ready: %+v", u)
	}
}

// With a responder, an agent that ends is not the end of its answers.
func TestWhoSaysThatAnAgentEnds(t *testing.T) {
	var closing []string
	for _, mode := range []string{"start", "external", "off"} {
		p := newProbes(config.Config{Health: config.Health{Responder: mode}}, &liveCounts{}, nil, nil, slog.New(slog.DiscardHandler))
		p.drain(t.Context())
		if v, _ := p.state.View(); v.Node.Reason == "shutting down" {
			closing = append(closing, mode)
		}
	}
	if !slices.Equal(closing, []string{"off"}) {
		t.Errorf("said so: %v, want only the agent that answers itself", closing)
	}
}

func TestProxyMode(t *testing.T) {
	w := httptest.NewRecorder()
	serveProxyMode(w, httptest.NewRequest(http.MethodGet, "/proxyMode", nil))
	if w.Code != http.StatusOK || w.Body.String() != "ebb" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
