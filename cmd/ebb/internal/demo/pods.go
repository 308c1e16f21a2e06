package demo

import (
	"context"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/ebb-lb/ebb/tests/lab"
	"github.com/ebb-lb/ebb/tests/lab/pod"
)

const (
	podStartBound = 10 * time.Second
	// podQuiet is how long a draining pod has nothing to do before it ends. It
	// must be longer than agents take to follow a manifest.
	podQuiet = 500 * time.Millisecond
	// podDrainBound is the terminationGracePeriod of the pods.
	podDrainBound = 15 * time.Second
)

// life is where a pod is between its start and its end.
type life int

const (
	starting life = iota
	ready
	terminating // but serving
	ended
)

// member is a pod of the show.
type member struct {
	*child
	pod  *lab.Pod
	life life
	// patience stretches the bounds of this file: see Config.Slow.
	patience func(time.Duration) time.Duration
}

// startPod starts the next pod on n. It is not in the manifests yet.
func (s *show) startPod(n *lab.Node) (*member, error) {
	name := fmt.Sprintf("web-%d", len(s.cast)+1)
	p, err := n.AddPod(name)
	if err != nil {
		return nil, err
	}
	c, err := s.start(p.NS, "pod "+name, []string{
		"demo-pod", "--name", name, "--quiet", s.cfg.patience(podQuiet).String(), "--bound", s.cfg.patience(podDrainBound).String(),
	}, nil)
	if err != nil {
		return nil, err
	}
	m := &member{child: c, pod: p, patience: s.cfg.patience}
	s.cast = append(s.cast, m)
	return m, nil
}

// awaitReady waits until the pod answers its node, as a kubelet would.
func (m *member) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.patience(podStartBound))
	defer cancel()
	for _, addr := range []netip.Addr{m.pod.Addr4, m.pod.Addr6} {
		url := "http://" + netip.AddrPortFrom(addr, pod.HTTPPort).String() + "/healthz"
		if err := awaitOK(ctx, m.pod.Node.NS, url, m.child); err != nil {
			return err
		}
	}
	m.life = ready
	return nil
}

// endpoint returns how the pod stands in the manifests, unless it does not.
func (m *member) endpoint() (endpoint, bool) {
	e := endpoint{node: m.pod.Node.Name(), v4: m.pod.Addr4, v6: m.pod.Addr6, terminating: m.life == terminating}
	return e, m.life == ready || m.life == terminating
}

// replace does what a rolling update does with one pod: a new one becomes
// ready, the old one is told to end, drains, ends, and leaves the manifests.
func (s *show) replace(ctx context.Context, old *member) error {
	fresh, err := s.startPod(old.pod.Node)
	if err != nil {
		return err
	}
	if err := fresh.awaitReady(ctx); err != nil {
		return err
	}
	if err := s.publish(); err != nil {
		return err
	}
	began := time.Now()
	old.life = terminating
	if err := s.publish(); err != nil {
		return err
	}
	if err := old.drain(ctx); err != nil {
		return err
	}
	s.out.event("%s replaced by %s on %s: old pod drained for %s",
		old.pod.Name(), fresh.pod.Name(), old.pod.Node.Name(), time.Since(began).Round(10*time.Millisecond))
	old.life = ended
	if err := s.publish(); err != nil {
		return err
	}
	return old.pod.Remove()
}

// drain asks the pod to end, and waits until it has.
func (m *member) drain(ctx context.Context) error {
	m.expected.Store(true)
	if err := m.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.patience(podDrainBound+probeTimeout))
	defer cancel()
	select {
	case <-m.Done():
	case <-ctx.Done():
		return fmt.Errorf("%s does not end: %w%s", m.name, context.Cause(ctx), m.log)
	}
	if m.Err() != nil {
		return m.ended()
	}
	return nil
}
