package watch

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ticking is a clock that every look at it moves on.
func ticking() func() time.Time {
	now := time.Unix(1_000_000, 0)
	return func() time.Time { now = now.Add(time.Second); return now }
}

func TestAnAnswerIsContactAndARefusalIsNot(t *testing.T) {
	refuse := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if refuse {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprint(w, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	}))
	defer server.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n", server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	contact := &Contact{Now: ticking()}
	client, err := Connect(API{Kubeconfig: kubeconfig}, contact)
	if err != nil || !contact.Last().IsZero() {
		t.Fatalf("in touch at %v before anything was asked, error %v", contact.Last(), err)
	}
	services := client.CoreV1().Services("")
	if _, err := services.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	first := contact.Last()
	if first.IsZero() {
		t.Error("an answer was not noted")
	}
	refuse = true
	if _, err := services.List(t.Context(), metav1.ListOptions{}); err == nil || contact.Last() != first {
		t.Errorf("refused with %v, in touch at %v, want still %v", err, contact.Last(), first)
	}
	server.Close()
	if _, err := services.List(t.Context(), metav1.ListOptions{}); err == nil || contact.Last() != first {
		t.Errorf("server gone: %v, in touch at %v, want still %v", err, contact.Last(), first)
	}
}

func TestADirectoryInOrderIsContact(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "node.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	contact := &Contact{Now: ticking()}
	d := NewDir(dir, Options{NodeName: "n1", Contact: contact}, newHarness(t).store, slog.New(slog.DiscardHandler))
	put("apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n")
	step := func(what string, want bool, do func()) {
		t.Helper()
		before := contact.Last()
		do()
		if got := contact.Last() != before; got != want {
			t.Errorf("%s: in touch %v, want %v", what, got, want)
		}
	}
	step("a good load", true, d.load)
	step("a look that finds nothing new", true, func() { d.poll(nil) })
	put("apiVersion: [")
	step("a bad load", false, d.load)
	step("a look at what is still bad", false, func() { d.poll(nil) })
}
