package topology

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// nobody is a cluster whose API server does not answer.
const nobody = `apiVersion: v1
kind: Config
current-context: nobody
clusters: [{name: nobody, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]
users: [{name: nobody, user: {}}]
`

var completeSync = regexp.MustCompile(`"lastCompleteSync":"([^"]+)"`)

// Without an API server an agent serves what is pinned, and says how old it is.
func TestAnAgentWithoutASourceServesWhatIsPinnedAndSaysHowOldItIs(t *testing.T) {
	w := newWorld(t)
	begin := time.Now()
	first := w.startReadyAgent()
	w.wantServed("with an agent")
	before := w.snapshot()
	first.kill()
	end := time.Now()

	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, []byte(nobody), 0o600); err != nil {
		t.Fatal(err)
	}
	second := w.startAgentOf("--source", "kubernetes", "--kubeconfig", kubeconfig, "--health-responder", "off")
	var at time.Time
	w.await("the age of what is pinned", second, func() (err error) {
		body := w.healthy()
		if body == nil {
			return errors.New("healthy before anything was synced")
		}
		m := completeSync.FindStringSubmatch(body.Error())
		if m == nil {
			return body
		}
		at, err = time.Parse(time.RFC3339Nano, m[1])
		return err
	})
	if at.Before(begin) || at.After(end) {
		t.Errorf("last complete sync at %v, want between %v and %v", at, begin, end)
	}
	if !strings.Contains(second.out.String(), "serving what is pinned") {
		t.Errorf("the log does not say so:\n%s", second.out)
	}
	w.wantServed("without an API server")
	w.wantSame("without an API server", before, w.snapshot())
}
