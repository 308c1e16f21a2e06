package health

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"os"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/service"
)

var (
	noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	web  = service.Name{Namespace: "shop", Name: "web"}
)

const probePort = 32000

// newState returns a ready State of a node of both families, at noon.
func newState() *State {
	s := &State{Timeout: time.Minute, Now: func() time.Time { return noon }}
	s.Node(service.Node{Name: "n1", Known: true, Addrs: addrs("192.0.2.1", "2001:db8::1")})
	s.Synced(Applied{})
	s.Attached(nil)
	return s
}

func addrs(text ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range text {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// endpoint is one on node n1 unless it says otherwise.
func endpoint(addr string, change func(*service.Endpoint)) service.Endpoint {
	e := service.Endpoint{Addr: netip.MustParseAddrPort(addr), NodeName: "n1", Ready: true, Serving: true}
	if change != nil {
		change(&e)
	}
	return e
}

func terminating(e *service.Endpoint) { e.Ready, e.Terminating = false, true }
func elsewhere(e *service.Endpoint)   { e.NodeName = "n2" }

func applied(port uint16, eps ...service.Endpoint) Applied {
	return Applied{NodeName: "n1", Services: []service.View{{
		Name: web, Service: &service.Service{Name: web, HealthCheckNodePort: port},
		Endpoints: map[service.PortKey][]service.Endpoint{{Proto: service.TCP}: eps},
	}}}
}

// at is what is answered a while after noon.
func at(s *State, after time.Duration, order *drain.Order) func() Current {
	return func() Current {
		v, _ := s.View()
		return Current{View: v, Time: noon.Add(after), Order: order}
	}
}

func ask(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestBodiesOfTheNodesProbes(t *testing.T) {
	const status = `"status":{"IPv4":{"lastUpdated":"%s","healthy":%v},"IPv6":{"lastUpdated":"%s","healthy":%v}}`
	const synced, asked = "2026-01-01T12:00:00Z", "2026-01-01T12:00:05Z"
	families := func(updated, healthy string) string {
		return strings.NewReplacer("%s", updated, "%v", healthy).Replace(status)
	}
	taint := drain.Signal{Kind: drain.Taint, Key: "down"}
	drained := func(s *State) {
		s.Rules.Signals = []drain.Signal{taint}
		s.Node(service.Node{Known: true, Addrs: addrs("192.0.2.1", "2001:db8::1"), Taints: []service.Taint{{Key: "down"}}})
	}
	tests := []struct {
		name, path string
		do         func(*State)
		order      *drain.Order
		code       int
		want       string
	}{
		{"healthy: updated now", "/healthz", func(*State) {}, nil, 200,
			`{"lastUpdated":"` + asked + `","currentTime":"` + asked + `","nodeEligible":true,"healthy":true,` + families(asked, "true") + `}`},
		{"the kubelet is not told of the node", "/livez", drained, nil, 200,
			`{"lastUpdated":"` + asked + `","currentTime":"` + asked + `","healthy":true,` + families(asked, "true") + `}`},
		{"drained: healthy all the same, updated when it last was", "/healthz", drained, nil, 503,
			`{"lastUpdated":"` + synced + `","currentTime":"` + asked + `","nodeEligible":false,"healthy":true,` + families(asked, "true") +
				`,"reason":"drained: taint:down"}`},
		{"drained by an order", "/healthz", func(*State) {}, &drain.Order{Reason: "disk"}, 503,
			`{"lastUpdated":"` + synced + `","currentTime":"` + asked + `","nodeEligible":false,"healthy":true,` + families(asked, "true") +
				`,"reason":"drained: ebb drain node: disk"}`},
		{"unhealthy and drained", "/healthz", func(s *State) { drained(s); s.Closing() }, nil, 503,
			`{"lastUpdated":"` + synced + `","currentTime":"` + asked + `","nodeEligible":false,"healthy":false,` + families(synced, "false") +
				`,"reason":"shutting down; drained: taint:down"}`},
		{"unhealthy", "/livez", (*State).Closing, nil, 503,
			`{"lastUpdated":"` + synced + `","currentTime":"` + asked + `","healthy":false,` + families(synced, "false") + `,"reason":"shutting down"}`},
		{"an uplink that is not served", "/healthz",
			func(s *State) { s.Unserved(map[string]string{"ib0": "link type", "eth1": "refused"}) }, nil, 200,
			`{"lastUpdated":"` + asked + `","currentTime":"` + asked + `","nodeEligible":true,"healthy":true,` + families(asked, "true") +
				`,"unservedUplinks":["eth1: refused","ib0: link type"]}`},
		{"warnings fail nothing", "/healthz",
			func(s *State) { s.Warn("node", "nobody"); s.Warn("conntrack", "refused"); s.Warn("node", "") }, nil, 200,
			`{"lastUpdated":"` + asked + `","currentTime":"` + asked + `","nodeEligible":true,"healthy":true,` + families(asked, "true") +
				`,"warnings":["conntrack: refused"]}`},
		{"connections, as far as they are known", "/livez",
			func(s *State) {
				s.Connections = func() map[service.Name]int { return map[service.Name]int{web: 2, {}: 3} }
			}, nil, 200,
			`{"lastUpdated":"` + asked + `","currentTime":"` + asked + `","healthy":true,` + families(asked, "true") + `,"liveConnections":5}`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := newState()
			tc.do(s)
			w := ask(NodeHandler(at(s, 5*time.Second, tc.order), nil), "GET", tc.path)
			if got := strings.TrimSpace(w.Body.String()); w.Code != tc.code || got != tc.want {
				t.Errorf("status %d, want %d (-want +got):\n%s", w.Code, tc.code, cmp.Diff(tc.want, got))
			}
		})
	}
}

func TestOnlyTheFamiliesOfTheNodeHaveAStatus(t *testing.T) {
	s := newState()
	s.Node(service.Node{Known: true, Addrs: addrs("2001:db8::1")})
	v, _ := s.View()
	if diff := cmp.Diff([]Family{IPv6}, v.Node.Families); diff != "" {
		t.Error(diff)
	}
}

func TestPathsMethodsAndHeaders(t *testing.T) {
	counts := map[string]int{}
	h := NodeHandler(at(newState(), 0, nil), func(probe string, code int) { counts[probe]++ })
	for path, want := range map[string]int{"/healthz": 200, "/livez": 200, "/": 404, "/healthz/": 404, "/metrics": 404} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "PROPFIND"} {
			w := ask(h, method, path)
			if w.Code != want {
				t.Errorf("%s %s: status %d, want %d", method, path, w.Code, want)
			}
			if want == 200 && (w.Header().Get("Content-Type") != "application/json" || w.Header().Get("X-Content-Type-Options") != "nosniff") {
				t.Errorf("%s %s: headers %v", method, path, w.Header())
			}
		}
	}
	if diff := cmp.Diff(map[string]int{"healthz": 5, "livez": 5}, counts); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

func TestHealthCheckNodePort(t *testing.T) {
	const ready4, ready6, ready4b = "10.0.0.1:80", "[fd00::1]:80", "10.0.0.2:80"
	node := `"serviceProxyHealthy":true,"drainingEndpoints":0,"nodeEligible":true`
	name := `{"service":{"namespace":"shop","name":"web"},"localEndpoints":`
	tests := []struct {
		name   string
		eps    []service.Endpoint
		do     func(*State)
		family Family
		code   int
		weight string
		want   string
	}{
		{"one ready", []service.Endpoint{endpoint(ready4, nil)}, nil, IPv4, 200, "1", name + `1,` + node + `}`},
		{"two ready", []service.Endpoint{endpoint(ready4, nil), endpoint(ready4b, nil)}, nil, IPv4, 200, "2", name + `2,` + node + `}`},
		{"those of another node", []service.Endpoint{endpoint(ready4, elsewhere)}, nil, IPv4, 503, "0",
			name + `0,` + node + `,"reason":"no ready endpoint on this node"}`},
		{"those of the other family", []service.Endpoint{endpoint(ready4, nil)}, nil, IPv6, 503, "0",
			name + `0,` + node + `,"reason":"no ready endpoint on this node"}`},
		{"IPv6", []service.Endpoint{endpoint(ready4, nil), endpoint(ready6, nil)}, nil, IPv6, 200, "1", name + `1,` + node + `}`},
		{"one terminates", []service.Endpoint{endpoint(ready4, terminating)}, nil, IPv4, 503, "0",
			name + `0,"serviceProxyHealthy":true,"drainingEndpoints":1,"nodeEligible":true,"reason":"no ready endpoint on this node"}`},
		{"the agent is unhealthy; the weight is sent all the same", []service.Endpoint{endpoint(ready4, nil)}, (*State).Closing, IPv4, 503, "1",
			name + `1,"serviceProxyHealthy":false,"drainingEndpoints":0,"nodeEligible":true,"reason":"shutting down"}`},
		{"a drained node still has its endpoints", []service.Endpoint{endpoint(ready4, nil)},
			func(s *State) { s.Rules.NeedObject = true; s.Node(service.Node{}) }, IPv4, 200, "1",
			name + `1,"serviceProxyHealthy":true,"drainingEndpoints":0,"nodeEligible":false}`},
		{"unless they are to be left too", []service.Endpoint{endpoint(ready4, nil)},
			func(s *State) { s.DrainServices, s.Rules.NeedObject = true, true; s.Node(service.Node{}) }, IPv4, 503, "1",
			name + `1,"serviceProxyHealthy":true,"drainingEndpoints":0,"nodeEligible":false,"reason":"drained: the cluster has no object of this node"}`},
		{"connections of the service", []service.Endpoint{endpoint(ready4, nil)},
			func(s *State) {
				s.Connections = func() map[service.Name]int { return map[service.Name]int{web: 2, {}: 3} }
			}, IPv4, 200, "1", name + `1,` + node + `,"liveConnections":2}`},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := newState()
			s.Synced(applied(probePort, tc.eps...))
			if tc.do != nil {
				tc.do(s)
			}
			w := ask(ServiceHandler(at(s, 0, nil), web, tc.family, probePort), "GET", "/any/path")
			if got := strings.TrimSpace(w.Body.String()); w.Code != tc.code || got != tc.want {
				t.Errorf("status %d, want %d (-want +got):\n%s", w.Code, tc.code, cmp.Diff(tc.want, got))
			}
			if got := w.Header().Get("X-Load-Balancing-Endpoint-Weight"); got != tc.weight {
				t.Errorf("weight %q, want %q", got, tc.weight)
			}
		})
	}
}

// A socket that is being closed may still have a request to answer: it must not
// say that all is well.
func TestAServiceThatLeftItsPortIsRefusedThere(t *testing.T) {
	s := newState()
	s.Synced(applied(probePort, endpoint("10.0.0.1:80", nil)))
	old := ServiceHandler(at(s, 0, nil), web, IPv4, probePort)
	for _, step := range []struct {
		name string
		a    Applied
		want int
	}{
		{"as it was", Applied{}, 200},
		{"on another port", applied(probePort+1, endpoint("10.0.0.1:80", nil)), 503},
		{"back", applied(probePort, endpoint("10.0.0.1:80", nil)), 200},
		{"without one", applied(0, endpoint("10.0.0.1:80", nil)), 503},
		{"back again", applied(probePort, endpoint("10.0.0.1:80", nil)), 200},
		{"deleted", Applied{Services: []service.View{{Name: web}}}, 503},
		{"back once more", applied(probePort, endpoint("10.0.0.1:80", nil)), 200},
		{"not among all there are", Applied{Full: true}, 503},
	} {
		s.Synced(step.a)
		if w := ask(old, "GET", "/"); w.Code != step.want || w.Body.Len() == 0 {
			t.Errorf("%s: status %d, want %d: %s", step.name, w.Code, step.want, w.Body)
		}
	}
}

func TestAddressesOfHealthCheckNodePorts(t *testing.T) {
	s := newState()
	s.Synced(Applied{NodePortAddrs: addrs("192.0.2.1")})
	if v, _ := s.View(); len(v.Listen) != 2 || !v.Listen[0].IsUnspecified() || !v.Listen[1].IsUnspecified() {
		t.Errorf("on %v, want all addresses of both families", v.Listen)
	}
	s.ChosenAddrs = true
	if v, _ := s.View(); len(v.Listen) != 1 || v.Listen[0] != addrs("192.0.2.1")[0] {
		t.Errorf("on %v, want the address that accepts node ports", v.Listen)
	}
}

// An agent that has just started knows nothing better than what is known already.
func TestOnlyWhatIsCertainIsSaid(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(*State)
		want bool
	}{
		"nothing happened":       {func(*State) {}, false},
		"attached":               {func(s *State) { s.Attached(nil) }, false},
		"synced":                 {func(s *State) { s.Synced(Applied{}) }, false},
		"synced and attached":    {func(s *State) { s.Synced(Applied{}); s.Attached(nil) }, true},
		"attaching has failed":   {func(s *State) { s.Attached(os.ErrInvalid) }, true},
		"shutting down already":  {(*State).Closing, true},
		"an attachment was lost": {func(s *State) { s.Synced(Applied{}); s.Attached(nil); s.Attached(os.ErrInvalid) }, true},
	} {
		s := &State{Timeout: time.Minute, Now: func() time.Time { return noon }}
		tc.do(s)
		if _, certain := s.View(); certain != tc.want {
			t.Errorf("%s: certain %v", name, certain)
		}
	}
}

// Whoever is told of a sync is told of its services, too: sockets are opened and
// closed after what is said.
func TestASyncIsNotSaidWithoutItsServices(t *testing.T) {
	s := &State{Timeout: time.Minute, Now: func() time.Time { return noon }}
	var wrong []View
	said := 0
	s.Notify = func() {
		v, certain := s.View()
		if certain {
			said++
		}
		if certain && !v.Unsynced && len(v.Services) != 1 {
			wrong = append(wrong, v)
		}
	}
	s.Attached(os.ErrInvalid)
	s.Attached(nil)
	s.Synced(applied(probePort, endpoint("10.0.0.1:80", nil)))
	s.Synced(Applied{})
	if said != 3 || len(wrong) > 0 {
		t.Errorf("said %d times, without the service: %+v", said, wrong)
	}
}

func TestOrderFile(t *testing.T) {
	f := OrderFileIn(filepath.Join(t.TempDir(), "state"))
	if o := f.Current(noon); o != nil {
		t.Errorf("without a file there is an order: %v", o)
	}
	if existed, err := f.Remove(); existed || err != nil {
		t.Errorf("remove nothing: %v, %v", existed, err)
	}
	want := drain.Order{Reason: "disk", Given: noon, Until: noon.Add(time.Minute)}
	for range 2 {
		if err := f.Write(want); err != nil {
			t.Fatal(err)
		}
	}
	if o := f.Current(noon.Add(time.Second)); o == nil || !cmp.Equal(*o, want) {
		t.Errorf("order %v, want %v", o, want)
	}
	if o := f.Current(noon.Add(time.Minute)); o != nil {
		t.Errorf("an order that has ended holds: %v", o)
	}
	if err := os.WriteFile(string(f), []byte("drain please"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := f.Current(noon); o == nil || !strings.Contains(o.Reason, string(f)) {
		t.Errorf("a file nobody understands: %v", o)
	}
	if existed, err := f.Remove(); !existed || err != nil || f.Current(noon) != nil {
		t.Errorf("removed: %v, %v", existed, err)
	}
}
