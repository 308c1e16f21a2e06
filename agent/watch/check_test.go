package watch

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const checkedService = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}
`

func TestWhatIsNotTakenIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"web.yaml": checkedService, "old.txt": checkedService, "README": "words", ".web.yaml.swp": "x", "map.yml": "apiVersion: v1\nkind: ConfigMap\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"more", "folder.yaml", ".git"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Check(dir, Options{NodeName: "n"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"README: not taken", "folder.yaml: folders are not looked into", "more: folders are not looked into", "old.txt: not taken", "map.yml: document 1: kind ConfigMap",
	}
	ok := len(c.Ignored) == len(want)
	for i := range min(len(want), len(c.Ignored)) {
		ok = ok && strings.HasPrefix(c.Ignored[i], filepath.Join(dir, want[i]))
	}
	if c.Services != 1 || !ok {
		t.Errorf("%+v; want one service, and %q", c, want)
	}
}

func TestCheckRefusesWhatAnAgentWould(t *testing.T) {
	dir := t.TempDir()
	bad := strings.Replace(checkedService, "port: 80", "port: 70000", 1)
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(dir, Options{}); err == nil || !strings.Contains(err.Error(), "spec.ports[0].port") {
		t.Errorf("port 70000: %v", err)
	}
	if _, err := Check(filepath.Join(dir, "gone"), Options{}); err == nil {
		t.Error("a directory that is not there was accepted")
	}
}

// TestADirectoryNamesWhatItDoesNotTake: a manifest that is renamed to .txt takes its
// service away.
func TestADirectoryNamesWhatItDoesNotTake(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web.txt"), []byte(checkedService), 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHarness(t)
	var log bytes.Buffer
	d := NewDir(dir, Options{NodeName: "n"}, h.store, slog.New(slog.NewTextHandler(&log, nil)))
	d.load()
	d.load()
	if n := strings.Count(log.String(), "web.txt: not taken"); n != 1 {
		t.Errorf("web.txt was named %d times, want once:\n%s", n, log.String())
	}
}
