package responder

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ebb-lb/ebb/agent/drain"
	"github.com/ebb-lb/ebb/agent/endpoints"
	"github.com/ebb-lb/ebb/agent/health"
	"github.com/ebb-lb/ebb/agent/service"
)

var web = service.Name{Namespace: "shop", Name: "web"}

func newServer(t *testing.T) *Server {
	t.Helper()
	s := NewServer(health.OrderFileIn(t.TempDir()))
	t.Cleanup(s.Close)
	return s
}

// freePort returns one nobody listens on, in either family.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// healthy is an Update with one service on loopback of both families; port 0:
// without it.
func healthy(addr string, port uint16, ready4, ready6 int) Update {
	v := &health.View{
		Node:   health.Node{Healthy: true, Eligible: true, Families: []health.Family{health.IPv4, health.IPv6}},
		Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()},
	}
	if port != 0 {
		v.Services = []health.Service{{Name: web, Port: port, Endpoints: map[health.Family]endpoints.LocalCount{
			health.IPv4: {Ready: ready4}, health.IPv6: {Ready: ready6},
		}}}
	}
	return Update{Addr: addr, StaleAfter: time.Minute, View: v}
}

// ask returns the status and the body of an answer over a new connection.
func ask(url string) (int, map[string]any, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	var body map[string]any
	err = json.NewDecoder(resp.Body).Decode(&body)
	return resp.StatusCode, body, err
}

func wantStatus(t *testing.T, url string, want int) map[string]any {
	t.Helper()
	code, body, err := ask(url)
	if err != nil || code != want {
		t.Errorf("%s: status %d, %v, want %d: %v", url, code, err, want, body)
	}
	return body
}

func wantRefused(t *testing.T, url string) {
	t.Helper()
	if code, _, err := ask(url); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%s: status %d, %v, want the connection refused", url, code, err)
	}
}

func on4(port uint16) string { return fmt.Sprintf("http://127.0.0.1:%d/", port) }
func on6(port uint16) string { return fmt.Sprintf("http://[::1]:%d/", port) }

func TestEachFamilyHasItsSocketsAndItsCounts(t *testing.T) {
	s := newServer(t)
	node, port := freePort(t), freePort(t)
	if st := s.Apply(healthy(fmt.Sprint(":", node), port, 2, 0)); len(st.Failed) > 0 {
		t.Fatal(st.Failed)
	}
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	wantStatus(t, on6(node)+"livez", http.StatusOK)
	if body := wantStatus(t, on4(port), http.StatusOK); body["localEndpoints"] != 2.0 {
		t.Errorf("IPv4: %v", body)
	}
	if body := wantStatus(t, on6(port), http.StatusServiceUnavailable); body["localEndpoints"] != 0.0 {
		t.Errorf("IPv6: %v", body)
	}
}

func TestBeforeAnAgentKnowsAnythingTheAnswerIs503(t *testing.T) {
	s := newServer(t)
	node := freePort(t)
	s.Apply(Update{Addr: fmt.Sprint(":", node), StaleAfter: time.Minute})
	if body := wantStatus(t, on4(node)+"healthz", http.StatusServiceUnavailable); body["reason"] != "no complete sync yet" {
		t.Errorf("%v", body)
	}
}

// An agent that cannot attach says so before its first sync.
func TestWhatAnAgentDoesNotKnowYetStands(t *testing.T) {
	s := newServer(t)
	port := freePort(t)
	s.Apply(healthy("", port, 1, 1))
	v := health.View{Node: health.Node{Reason: "xdp is gone", Families: []health.Family{health.IPv4}}, Unsynced: true}
	for range 2 {
		s.Apply(Update{StaleAfter: time.Minute, View: &v})
		if body := wantStatus(t, on4(port), http.StatusServiceUnavailable); body["reason"] != "xdp is gone" {
			t.Errorf("%v", body)
		}
	}
	s.Apply(healthy("", port, 1, 1))
	wantStatus(t, on6(port), http.StatusOK)
	s.Apply(healthy("", 0, 0, 0))
	wantRefused(t, on4(port))
}

func TestAServiceMovesToItsNewPortAndLeavesTheOld(t *testing.T) {
	s := newServer(t)
	before, after := freePort(t), freePort(t)
	s.Apply(healthy("", before, 1, 1))
	wantStatus(t, on4(before), http.StatusOK)
	s.Apply(healthy("", after, 1, 1))
	wantStatus(t, on4(after), http.StatusOK)
	wantStatus(t, on6(after), http.StatusOK)
	wantRefused(t, on4(before))
	s.Apply(healthy("", 0, 0, 0))
	wantRefused(t, on4(after))
	wantRefused(t, on6(after))
}

// The port of a service that is deleted may be that of one that comes with it.
func TestAPortCanPassFromOneServiceToAnother(t *testing.T) {
	s := newServer(t)
	port := freePort(t)
	s.Apply(healthy("", port, 1, 1))
	u := healthy("", port, 1, 1)
	u.View.Services[0].Name.Name = "other"
	if st := s.Apply(u); len(st.Failed) > 0 {
		t.Error(st.Failed)
	}
	if body := wantStatus(t, on4(port), http.StatusOK); !strings.Contains(fmt.Sprint(body["service"]), "other") {
		t.Errorf("%v", body)
	}
}

func TestAPortSomebodyElseHasIsReportedAndTriedAgain(t *testing.T) {
	s := newServer(t)
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(other.Addr().(*net.TCPAddr).Port)
	st := s.Apply(healthy("", port, 1, 1))
	if len(st.Failed) != 1 || st.Failed[0].Service != web || !strings.Contains(st.Failed[0].Error, "in use") {
		t.Fatalf("failed: %v", st.Failed)
	}
	wantStatus(t, on6(port), http.StatusOK) // the other family does not suffer
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if st := s.Apply(healthy("", port, 1, 1)); len(st.Failed) > 0 {
		t.Errorf("failed: %v", st.Failed)
	}
	wantStatus(t, on4(port), http.StatusOK)
}

func TestAnswersAreCounted(t *testing.T) {
	s := newServer(t)
	node := freePort(t)
	u := healthy(fmt.Sprint("127.0.0.1:", node), 0, 0, 0)
	s.Apply(u)
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	u.View.Node = u.View.Node.Unhealthy("test")
	s.Apply(u)
	wantStatus(t, on4(node)+"livez", http.StatusServiceUnavailable)
	want := map[Answers]bool{
		{"healthz", 200, 2}: true, {"healthz", 503, 0}: true, {"livez", 200, 0}: true, {"livez", 503, 1}: true,
	}
	for _, a := range s.Apply(u).Answers {
		if !want[a] {
			t.Errorf("counted %+v", a)
		}
		delete(want, a)
	}
	if len(want) > 0 {
		t.Errorf("not counted: %v", want)
	}
}

// What an agent said last stands for a bounded time, whether there is one that
// does not know better or none.
func TestLastWordsAreGoodForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(health.OrderFileIn(t.TempDir()))
		u := healthy("", 0, 0, 0)
		s.Apply(u)
		wantHealthy := func(when string, want bool) {
			t.Helper()
			if c := s.current(); c.Node.Healthy != want {
				t.Errorf("%s: %+v", when, c.Node)
			}
		}
		time.Sleep(59 * time.Second) // of the bubble's clock
		s.Apply(Update{StaleAfter: time.Minute})
		wantHealthy("a minute is not over", true)
		time.Sleep(2 * time.Second)
		wantHealthy("it is", false)
		s.Apply(u)
		wantHealthy("a new word", true)
	})
}

func TestAnOrderToDrainIsSeenAtOnce(t *testing.T) {
	orders := health.OrderFileIn(filepath.Join(t.TempDir(), "state"))
	s := NewServer(orders)
	t.Cleanup(s.Close)
	node := freePort(t)
	s.Apply(healthy(fmt.Sprint("127.0.0.1:", node), 0, 0, 0))
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
	if err := orders.Write(drain.Order{Reason: "disk"}); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, on4(node)+"healthz", http.StatusServiceUnavailable)
	wantStatus(t, on4(node)+"livez", http.StatusOK)
	if _, err := orders.Remove(); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, on4(node)+"healthz", http.StatusOK)
}

// An agent that answers itself says that it is closing before it is gone.
func TestServingInTheAgentEndsWithIt(t *testing.T) {
	node := freePort(t)
	told := make(chan Update, 10)
	ctx, cancel := context.WithCancel(t.Context())
	c := &Client{
		Update: func() Update { u := healthy(fmt.Sprint("127.0.0.1:", node), 0, 0, 0); told <- u; return u },
		Report: func(Status) {}, Changed: make(chan struct{}),
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Serve(ctx, NewServer(health.OrderFileIn(t.TempDir()))) }()
	<-told
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(told) == 0 {
		t.Error("the last word was not asked for")
	}
	wantRefused(t, on4(node)+"healthz")
}

// A node's address may come later than its services.
func TestASocketCanWaitForItsAddress(t *testing.T) {
	s := newServer(t)
	u := healthy("", freePort(t), 1, 1)
	u.View.Listen = []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")}
	if st := s.Apply(u); len(st.Failed) > 0 {
		t.Errorf("failed: %v", st.Failed)
	}
}
