package topology

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// Capabilities as deploy/helm/ebb gives them; docs/security.md says what each is for.
const (
	agentRights     = "bpf net_admin perfmon"
	responderRights = ""
)

// runWith runs ebb as in a pod: root with these capabilities and no way to more, which
// sees its own processes only.
func (w *world) runWith(rights string, args ...string) *process {
	w.Helper()
	set := "-all"
	for _, r := range strings.Fields(rights) {
		set += ",+" + r
	}
	return w.start(exec.Command("unshare", append([]string{"--pid", "--fork", "--kill-child", "--mount-proc",
		"setpriv", "--bounding-set=" + set, "--inh-caps=-all", "--no-new-privs", w.binary}, args...)...))
}

func (w *world) agentWith(rights, xdp, responder string) *process {
	w.Helper()
	return w.runWith(rights, slices.Concat(w.agentArgs(), []string{"--source", "dir:" + w.manifests, "--xdp", xdp, "--health-responder", responder})...)
}

// TestAnAgentNeedsThreeCapabilities also has a responder without any, and cleans up.
func TestAnAgentNeedsThreeCapabilities(t *testing.T) {
	for _, xdp := range []string{"native", "off"} {
		t.Run("XDP "+xdp, func(t *testing.T) {
			w := newWorld(t)
			responder := w.runWith(responderRights, "health-responder", "--state-dir", w.state)
			agent := w.agentWith(agentRights, xdp, "external")
			w.await("the agent to be ready", agent, w.healthy)
			w.await("the service to answer", agent, w.ask)
			agent.kill()
			agent.ended()
			if log := agent.out.String(); strings.Contains(log, "level=ERROR") {
				t.Errorf("it may do what it tries:\n%s", log)
			}
			cleanup := w.runWith(agentRights, "cleanup", "--bpffs", bpffs, "--state-dir", w.state)
			if cleanup.ended(); cleanup.Err() != nil {
				t.Errorf("cleanup: %v\n%s", cleanup.Err(), cleanup.out)
			}
			responder.ended()
			w.wantNoPins()
			if got := w.attached(); got != nothingAttached {
				t.Errorf("after cleanup: %s", got)
			}
		})
	}
}

func TestWithoutOneOfThemAnAgentSaysWhatIsMissing(t *testing.T) {
	for missing, want := range map[string]string{"bpf": "CAP_BPF", "net_admin": "CAP_NET_ADMIN", "perfmon": "permission denied"} {
		t.Run(missing, func(t *testing.T) {
			w := newWorld(t)
			agent := w.agentWith(strings.ReplaceAll(agentRights, missing, ""), "off", "off")
			agent.ended()
			if agent.Err() == nil || !strings.Contains(agent.out.String(), want) {
				t.Errorf("%v, want %q in\n%s", agent.Err(), want, agent.out)
			}
		})
	}
}
