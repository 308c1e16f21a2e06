package migrate

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A process counts by what it was started as, and if it is in this network namespace.
func TestRulesStayWhileKubeProxyRuns(t *testing.T) {
	w := newWorld(t)
	w.must(w.rules(families()[0], "kube-proxy.nft"), "nft", "-f", "-")
	const why = "kube-proxy, pid "
	if said := w.migrate(3, "finish"); strings.Contains(said.err, why) {
		t.Errorf("before it runs: %s", said.err)
	}
	w.startKubeProxy()
	if said := w.migrate(3, "finish"); !strings.Contains(said.err, why) {
		t.Error(said.err)
	}
	if said := w.migrate(3, "check"); !strings.Contains(said.out, why) {
		t.Error(said.out)
	}
	w.migrate(0, "finish", "--force")
	w.migrate(3, "check") // the process is left
}

// startKubeProxy starts a program of that name that does nothing.
func (w *world) startKubeProxy() {
	w.Helper()
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		w.Fatal(err)
	}
	path := filepath.Join(w.TempDir(), "kube-proxy")
	if err := os.Symlink(sleep, path); err != nil {
		w.Fatal(err)
	}
	p, err := w.node.Start(exec.Command(path, "1000"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := p.Kill(); err != nil {
			w.Error(err)
		}
	})
}

func TestRulesStayWhileSomebodyElseHasThePortOfHealthz(t *testing.T) {
	w := newWorld(t)
	w.must(w.rules(families()[0], "kube-proxy.nft"), "nft", "-f", "-")
	l, err := w.node.Listen(t.Context(), "tcp", "0.0.0.0:10256")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// This process is in another namespace, so that it cannot be seen from there.
	const why = "a process that cannot be seen from here"
	if said := w.migrate(3, "finish"); !strings.Contains(said.err, "port 10256, kube-proxy's and ebb's, is that of "+why) {
		t.Error(said.err)
	}
	if said := w.migrate(3, "check"); !strings.Contains(said.out, "10256 (healthz): "+why) {
		t.Error(said.out)
	}
}

// Without a program nobody knows what there is.
func TestWhatCannotBeLookedAtIsAFailure(t *testing.T) {
	w := newWorld(t)
	w.load(families()[0], "-nft", "kube-proxy.iptables")
	dir := w.TempDir()
	for _, args := range [][]string{{"check"}, {"finish", "--force"}} {
		r := w.run("", "unshare", "--mount", "sh", "-ec",
			"for d in /usr/sbin /sbin; do mount --bind "+dir+" $d; done; exec \"$@\"", "sh", ebb, "migrate", args[0])
		if r.code != 1 || !strings.Contains(r.out+r.err, "nft is not in PATH; install the package nftables") {
			t.Errorf("%v: exit code %d\n%s%s", args, r.code, r.out, r.err)
		}
	}
}
