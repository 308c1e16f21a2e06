package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ebb-lb/ebb/tests/lab"
)

// worker runs one pod.
type worker struct {
	cfg    Config
	pod    *corev1.Pod // as it was first seen
	name   types.NamespacedName
	log    *slog.Logger
	status *reporter

	ending  sync.Once
	ended   chan time.Duration // receives the grace period, once
	lab     *lab.Pod
	process *lab.Process
	started chan struct{} // closed when lab is set
}

func newWorker(cfg Config, pod *corev1.Pod) *worker {
	name := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	return &worker{
		cfg: cfg, pod: pod, name: name, log: cfg.Log.With("pod", name.String(), "node", pod.Spec.NodeName),
		status: newReporter(cfg.Client, pod), ended: make(chan time.Duration, 1),
		started: make(chan struct{}),
	}
}

// end has the pod end within the given time. Only the first call counts.
func (w *worker) end(within time.Duration) {
	w.ending.Do(func() { w.ended <- within })
}

// run takes the pod through its life.
func (w *worker) run(ctx context.Context) {
	reports, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { w.status.run(reports) })
	if err := w.start(); err != nil {
		w.log.Error("start pod", "error", err)
		return
	}
	w.status.running(w.lab.Addr4, w.lab.Addr6)
	wg.Go(func() { w.probe(reports) })
	select {
	case within := <-w.ended:
		w.terminate(ctx, within)
	case <-w.process.Done():
		w.log.Error("pod ended by itself", "error", w.process.Err())
		w.status.ready(false)
		select {
		case <-w.ended:
		case <-ctx.Done():
		}
	case <-ctx.Done():
		return
	}
	stop()
	if err := w.lab.Remove(); err != nil {
		w.log.Error("remove pod", "error", err)
	}
	w.status.remove(ctx)
}

func (w *worker) start() (err error) {
	if w.lab, err = w.cfg.Node.AddPod(w.name.String()); err != nil {
		return err
	}
	close(w.started)
	cmd := exec.Command(w.cfg.Program)
	cmd.Env = append(os.Environ(), w.cfg.Env...)
	for _, e := range w.container().Env {
		cmd.Env = append(cmd.Env, e.Name+"="+e.Value)
	}
	cmd.Env = append(cmd.Env, "POD_NAME="+w.name.Name)
	told := &lines{tell: func(line string) { w.cfg.Told(w.name, line) }}
	cmd.Stdout, cmd.Stderr = told, told
	w.process, err = w.lab.Start(cmd)
	return err
}

// where returns the pod's namespace, nil if it has none yet.
func (w *worker) where() *lab.NS {
	select {
	case <-w.started:
		return w.lab.NS
	default:
		return nil
	}
}

// container is the only one of the pod.
func (w *worker) container() corev1.Container { return w.pod.Spec.Containers[0] }

// terminate does what a kubelet does: preStop, SIGTERM, and SIGKILL after the
// grace period, which preStop counts for.
func (w *worker) terminate(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case <-time.After(w.preStop()):
	case <-w.process.Done():
	case <-ctx.Done():
	}
	if err := w.process.Stop(ctx); err != nil {
		w.log.Error("stop pod", "error", err)
	}
}

// preStop is how long the hook takes; of hooks there is sleep only.
func (w *worker) preStop() time.Duration {
	l := w.container().Lifecycle
	if l == nil || l.PreStop == nil || l.PreStop.Sleep == nil {
		return 0
	}
	return time.Duration(l.PreStop.Sleep.Seconds) * time.Second
}

// probe keeps asking whether the pod is ready, also while it ends. A pod
// without a probe is ready from the start.
func (w *worker) probe(ctx context.Context) {
	probe := w.container().ReadinessProbe
	if probe == nil {
		w.status.ready(true)
		return
	}
	client := w.prober(time.Duration(max(1, probe.TimeoutSeconds)) * time.Second)
	failures := int32(0)
	for began := true; ; began = false {
		err := w.ask(ctx, client, probe.HTTPGet)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			w.status.ready(true)
		default:
			if failures++; failures >= max(1, probe.FailureThreshold) {
				w.status.ready(false)
			}
		}
		if !pause(ctx, pauseBetween(probe, began, err)) {
			return
		}
	}
}

// pauseBetween is the period of the probe, but a program that has just been started
// is asked again soon, so that tests need not wait for what they do not test.
func pauseBetween(probe *corev1.Probe, began bool, err error) time.Duration {
	const soon = 50 * time.Millisecond
	if began && err != nil {
		return soon
	}
	return time.Duration(max(1, probe.PeriodSeconds)) * time.Second
}

// prober asks from the node, as a kubelet does.
func (w *worker) prober(timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return w.cfg.Node.Dial(ctx, network, addr)
		},
	}}
}

func (w *worker) ask(ctx context.Context, client *http.Client, get *corev1.HTTPGetAction) error {
	target := netip.AddrPortFrom(w.lab.Addr4, uint16(get.Port.IntValue()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target.String()+get.Path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

// pause reports whether d passed before ctx was done.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
