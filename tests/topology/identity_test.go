package topology

import (
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/tests/lab"
)

// A node name that is nobody's, or another node's, is said, and fails no probe.
func TestAnAgentWithTheNameOfNobodySaysSo(t *testing.T) {
	w := newWorldIn(t, lab.Config{})
	other := w.lab.Nodes[1]
	w.write("other.yaml", nodeManifest(other))
	for name, want := range map[string]string{
		"nobody":       `no Node object`,
		other.Name():   "is on this machine",
		w.entry.Name(): "",
	} {
		agent := w.startAgentWith("--health-responder", "off", "--xdp", "off", "--node-name", name)
		w.await("the agent to be ready", agent, w.healthy)
		body, err := get(w.Context(), w.entry.NS, healthURL)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Contains(agent.out.String(), "the node is not this machine")
		if said != (want != "") || strings.Contains(body, `"warnings":["node: `) != said || !strings.Contains(body, want) {
			t.Errorf("%s: said %t; %s", name, said, body)
		}
		agent.kill()
	}
}
