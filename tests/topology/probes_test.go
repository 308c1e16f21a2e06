package topology

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/responder"
	"github.com/ebb-lb/ebb/tests/lab"
)

const (
	probedPort = 32180 // a health check node port
	// proberEvery is how often each address is asked, in a test of restarts.
	proberEvery = 50 * time.Millisecond
	restarts    = 50
)

// publishProbed makes a service whose health check node port counts one pod.
func (w *world) publishProbed() {
	w.Helper()
	w.write("probed.yaml", fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: probed, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.81
  clusterIPs: [10.96.0.81, "fd00:10:96::81"]
  ipFamilies: [IPv4, IPv6]
  externalTrafficPolicy: Local
  healthCheckNodePort: %d
  ports: [{name: http, protocol: TCP, port: 80, nodePort: 30081}]
---
`, probedPort)+strings.ReplaceAll(
		sliceManifest("IPv4", w.pods[:1], func(p *lab.Pod) netip.Addr { return p.Addr4 })+"---\n"+
			sliceManifest("IPv6", w.pods[:1], func(p *lab.Pod) netip.Addr { return p.Addr6 }), "web", "probed"))
}

// startAgentAndResponder starts an agent that leaves a responder, which the test
// ends: after the agent, which would start another one.
func (w *world) startAgentAndResponder() *process {
	w.Helper()
	p := w.startAgentWith("--health-addr", fmt.Sprint(":", healthPort), "--health-responder", "start")
	w.Cleanup(func() {
		p.kill()
		w.endResponder()
	})
	return p
}

func (w *world) endResponder() {
	w.Helper()
	pid, err := responder.PID(w.state)
	if err != nil {
		w.Error(err)
	}
	if err := responder.Quit(w.state); err != nil {
		w.Error(err)
	}
	if pid != 0 {
		w.awaitEnd(pid)
	}
	if next, err := responder.PID(w.state); next != 0 || err != nil {
		w.Errorf("a responder is left: %d, %v", next, err)
	}
}

// awaitEnd waits until a process that is nobody's child here has ended.
func (w *world) awaitEnd(pid int) {
	w.Helper()
	w.poll(fmt.Sprintf("process %d to end", pid), func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ") || unix.Kill(pid, 0) == unix.ESRCH
	})
}

// probeURLs are the addresses balancers ask.
func (w *world) probeURLs() []string {
	var urls []string
	for _, node := range []netip.Addr{w.entry.Addr4, w.entry.Addr6} {
		urls = append(urls, "http://"+netip.AddrPortFrom(node, healthPort).String()+"/healthz",
			"http://"+netip.AddrPortFrom(node, probedPort).String()+"/")
	}
	return urls
}

// prober asks all addresses, each on its own, and counts.
type prober struct {
	w      *world
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	asked   map[string]int
	slowest time.Duration
	failed  []string
}

func (w *world) startProber() *prober {
	ctx, cancel := context.WithCancel(w.Context())
	p := &prober{w: w, cancel: cancel, asked: map[string]int{}}
	for _, url := range w.probeURLs() {
		p.ended.Go(func() { p.ask(ctx, url) })
	}
	w.Cleanup(func() { cancel(); p.ended.Wait() })
	return p
}

func (p *prober) ask(ctx context.Context, url string) {
	tick := time.NewTicker(proberEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		// The answer is waited for even if the test ends: cut off is not wrong.
		_, err := get(context.WithoutCancel(ctx), p.w.client(), url)
		p.mu.Lock()
		p.asked[url]++
		p.slowest = max(p.slowest, time.Since(began))
		if err != nil {
			p.failed = append(p.failed, fmt.Sprintf("%s: %v", url, err))
		}
		p.mu.Unlock()
	}
}

// finish ends the prober and fails the test if it was not always told 200.
func (p *prober) finish() {
	p.w.Helper()
	p.cancel()
	p.ended.Wait()
	total := 0
	for _, n := range p.asked {
		total += n
	}
	p.w.Logf("%d probes of %d addresses, slowest %s, %d refused or wrong", total, len(p.asked), p.slowest, len(p.failed))
	if len(p.asked) != len(p.w.probeURLs()) {
		p.w.Errorf("asked only %v", p.asked)
	}
	for _, f := range p.failed {
		p.w.Error(f)
	}
}

// An agent that ends, in whatever way and at whatever time, is not noticed by
// those who ask whether the node is healthy.
func TestNoProbeNoticesThatAnAgentIsRestarted(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	agent := w.startAgentAndResponder()
	for _, url := range w.probeURLs() {
		w.await("a first good answer", agent, func() error { _, err := get(t.Context(), w.client(), url); return err })
	}
	pid, err := responder.PID(w.state)
	if err != nil || pid == 0 {
		t.Fatalf("responder %d, %v", pid, err)
	}
	prober := w.startProber()
	for i := range restarts {
		if i%5 != 4 { // each fifth is still starting
			w.await("the agent to have synced", agent, func() error { return said(agent, "msg=synced") })
		}
		if i%2 == 0 {
			agent.kill()
		} else if err := agent.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		agent.ended()
		agent = w.startAgentAndResponder()
	}
	w.await("the last agent to have synced", agent, func() error { return said(agent, "msg=synced") })
	prober.finish()
	if now, err := responder.PID(w.state); err != nil || now != pid {
		t.Errorf("the responder was replaced: %d is %d, %v", pid, now, err)
	}
	if n := w.metric(`kubeproxy_proxy_healthz_total{code="200"}`); n < prober.asked[w.probeURLs()[0]] {
		t.Errorf("%d good answers counted, %d were given", n, prober.asked[w.probeURLs()[0]])
	}
}

// An upgrade also brings another responder, which takes over from the old one.
func TestAnAgentOfAnotherBuildReplacesTheResponder(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	agent := w.startAgentAndResponder()
	for _, url := range w.probeURLs() {
		w.await("a first good answer", agent, func() error { _, err := get(t.Context(), w.client(), url); return err })
	}
	before, err := responder.PID(w.state)
	if err != nil || before == 0 {
		t.Fatalf("responder %d, %v", before, err)
	}
	prober := w.startProber()
	agent.kill()
	w.binary = w.copyOfBinary()
	agent = w.startAgentAndResponder()
	w.await("the agent to have synced", agent, func() error { return said(agent, "msg=synced") })
	w.awaitEnd(before)
	if after, err := responder.PID(w.state); err != nil || after == 0 || after == before {
		t.Errorf("the responder is %d, was %d, %v", after, before, err)
	}
	prober.finish()
}

// copyOfBinary is another build: the same program with another time.
func (w *world) copyOfBinary() string {
	w.Helper()
	text, err := os.ReadFile(ebb)
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.TempDir(), "ebb")
	if err := os.WriteFile(path, text, 0o700); err != nil {
		w.Fatal(err)
	}
	return path
}

func said(p *process, text string) error {
	if out := p.out.String(); !strings.Contains(out, text) {
		return fmt.Errorf("it has not said %q", text)
	}
	return nil
}

// ended waits until the process has ended, however.
func (p *process) ended() {
	p.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		p.t.Fatalf("does not end\n%s", p.out)
	}
}

// health asks for /healthz and returns the status and the body.
func (w *world) health(path string) (int, map[string]any) {
	w.Helper()
	url := fmt.Sprintf("http://%s%s", netip.AddrPortFrom(w.entry.Addr4, healthPort), path)
	resp, err := httpClient(w.client()).Get(url)
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		w.Fatal(err)
	}
	return resp.StatusCode, body
}

func (w *world) wantHealthz(when string, code int, reason string) {
	w.Helper()
	got, body := w.health("/healthz")
	text, _ := body["reason"].(string)
	if got != code || !strings.Contains(text, reason) || reason == "" && text != "" {
		w.Errorf("%s: status %d, reason %q, want %d, %q", when, got, text, code, reason)
	}
}

// An order to drain is the node's: agents come and go.
func TestADrainedNodeIsOutOfRotationAlsoWithoutAnAgent(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	agent := w.startAgentAndResponder()
	w.await("a first good answer", agent, func() error { _, err := get(t.Context(), w.client(), w.probeURLs()[0]); return err })
	w.wantHealthz("at first", http.StatusOK, "")
	w.command(0, "drain", "node", "--for", "10m", "--reason", "kernel update", "--state-dir", w.state)
	w.wantHealthz("drained", http.StatusServiceUnavailable, "ebb drain node: kernel update (until ")
	agent.kill()
	w.wantHealthz("drained, without an agent", http.StatusServiceUnavailable, "kernel update")
	w.wantServed("drained")
	w.command(0, "undrain", "node", "--state-dir", w.state)
	w.wantHealthz("no longer drained", http.StatusOK, "")
	w.command(2, "drain", "node", "--for", "-1s", "--state-dir", w.state)
	w.command(2, "drain", "pod")
	w.command(1, "drain", "node", "--state-dir", "/dev/null/none")

	second := w.startAgentAndResponder()
	w.await("the next agent", second, func() error { return said(second, "msg=synced") })
	if err := second.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	second.ended()
	pid, err := responder.PID(w.state)
	if err != nil || pid == 0 {
		t.Fatalf("responder %d, %v", pid, err)
	}
	w.command(0, "cleanup", "--bpffs", bpffs, "--state-dir", w.state)
	w.awaitEnd(pid)
	if left, err := os.ReadDir(w.state); !os.IsNotExist(err) {
		t.Errorf("a cleanup leaves %v, %v", left, err)
	}
}

// command runs a command of ebb to its end.
func (w *world) command(want int, args ...string) {
	w.Helper()
	p := w.run(args...)
	if code := p.wait(); code != want {
		w.Errorf("ebb %v: exit code %d, want %d\n%s", args, code, want, p.out)
	}
}

// A node that is shut down says so first, and serves meanwhile.
func TestAnAgentThatDrainsGoesOnUntilItsTimeOrASecondSignal(t *testing.T) {
	w := newWorld(t)
	agent := w.startAgentWith("--health-addr", fmt.Sprint(":", healthPort), "--health-responder", "off", "--drain-delay", "1h")
	w.await("a first good answer", agent, func() error { _, err := get(t.Context(), w.client(), w.probeURLs()[0]); return err })
	if err := agent.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.await("the node to leave", agent, func() error {
		code, body := w.health("/healthz")
		if code != http.StatusServiceUnavailable || body["reason"] != "shutting down" {
			return fmt.Errorf("status %d, %v", code, body)
		}
		return nil
	})
	w.wantServed("while it drains")
	if err := agent.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	agent.ended()

	agent = w.startAgentWith("--health-addr", fmt.Sprint(":", healthPort), "--health-responder", "off", "--drain-delay", "300ms")
	w.await("a first good answer", agent, func() error { _, err := get(t.Context(), w.client(), w.probeURLs()[0]); return err })
	began := time.Now()
	if err := agent.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := agent.wait(); code != 0 || time.Since(began) < 300*time.Millisecond {
		t.Errorf("ended with code %d after %s", code, time.Since(began))
	}
}
