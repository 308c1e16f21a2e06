package topology

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
)

// runInContainer runs ebb as the first process of a PID namespace of its own: what
// it has started ends with it.
func (w *world) runInContainer(args ...string) *process {
	w.Helper()
	cmd := exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc", w.binary}, args...)...)
	return w.start(cmd)
}

func (w *world) startContainedAgent(responder string) *process {
	w.Helper()
	return w.runInContainer(slices.Concat(w.agentArgs(), []string{"--source", "dir:" + w.manifests,
		"--health-addr", fmt.Sprint(":", healthPort), "--health-responder", responder})...)
}

func (w *world) startContainedResponder() *process {
	w.Helper()
	return w.runInContainer("health-responder", "--state-dir", w.state)
}

func (w *world) awaitGoodAnswers(p *process) {
	w.Helper()
	for _, url := range w.probeURLs() {
		w.await("a good answer", p, func() error { _, err := get(w.Context(), w.client(), url); return err })
	}
}

// The agent and the responder of one node, in pods of their own.
func TestAResponderInAPodOfItsOwnOutlivesTheAgentsPod(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	responder := w.startContainedResponder()
	agent := w.startContainedAgent("external")
	w.awaitGoodAnswers(agent)
	prober := w.startProber()
	for range 10 {
		w.await("the agent to have synced", agent, func() error { return said(agent, "msg=synced") })
		agent.kill()
		agent.ended()
		agent = w.startContainedAgent("external")
	}
	w.await("the last agent to have synced", agent, func() error { return said(agent, "msg=synced") })
	if responder.Err() != nil {
		t.Errorf("the responder: %v\n%s", responder.Err(), responder.out)
	}
	prober.finish()
}

// maxSurge 1: the next responder is there before the last one is told to go.
func TestAResponderTakesOverFromThatOfAnotherPod(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	first := w.startContainedResponder()
	agent := w.startContainedAgent("external")
	w.awaitGoodAnswers(agent)
	prober := w.startProber()
	for range 60 {
		next := w.startContainedResponder()
		first.ended() // having handed over its sockets
		first = next
	}
	w.awaitGoodAnswers(agent)
	prober.finish()
}

// Its responder ended with it; what both have left behind is in nobody's way.
func TestAnAgentsPodMayBeReplacedWithItsResponder(t *testing.T) {
	w := newWorld(t)
	w.publishProbed()
	for range 3 {
		agent := w.startContainedAgent("start")
		w.awaitGoodAnswers(agent)
		agent.kill()
		agent.ended()
		for _, url := range w.probeURLs() {
			// The kernel ends the pod's processes after the one that was killed.
			w.poll(url+" to be answered by nobody, everything in the pod having ended", func() bool {
				_, err := get(t.Context(), w.client(), url)
				return err != nil
			})
		}
	}
}
