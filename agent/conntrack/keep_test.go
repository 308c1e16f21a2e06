package conntrack

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/agent/noted"
)

// node runs fn on a thread in a network namespace of its own, thrown away with the
// thread, with these settings.
func node(t *testing.T, values map[string]int, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates a network namespace")
	}
	if _, err := os.Stat(fileOf(closeWait)); err != nil {
		t.Skipf("missing feature: netfilter's connection tracking: %v", err)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Unshare(unix.CLONE_NEWNET)
		for name, v := range values {
			if err == nil {
				err = os.WriteFile(fileOf(name), []byte(strconv.Itoa(v)), 0o644)
			}
		}
		if err == nil {
			fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func wantValue(t *testing.T, when, name string, want int) {
	t.Helper()
	if got, err := noted.ReadValue(fileOf(name)); err != nil || got != want {
		t.Errorf("%s: %s is %d, want %d, %v", when, name, got, want, err)
	}
}

func raise(t *testing.T, k Kept, l Limits, changes int) {
	t.Helper()
	made, err := k.Raise(l)
	if err != nil || len(made) != changes {
		t.Errorf("changed %v, %v; want %d changes", made, err, changes)
	}
}

// timeouts are kube-proxy's. The upstream test of CLOSE_WAIT wants 3600 s within 60.
var timeouts = Limits{TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}

func TestTimeoutsAreRaisedOnceAndGivenBack(t *testing.T) {
	k := KeptIn(t.TempDir())
	node(t, map[string]int{closeWait: 60, established: 432000}, func() {
		raise(t, k, timeouts, 1)
		wantValue(t, "raised", closeWait, 3600)
		wantValue(t, "longer than wanted", established, 432000)
		raise(t, k, timeouts, 0) // an agent that starts again
		if err := k.Release(); err != nil {
			t.Error(err)
		}
		wantValue(t, "given back", closeWait, 60)
		if _, err := os.Stat(string(k)); !os.IsNotExist(err) {
			t.Errorf("the note is still there: %v", err)
		}
	})
}

func TestSettingsOfOthersStay(t *testing.T) {
	k := KeptIn(t.TempDir())
	node(t, map[string]int{closeWait: 60, established: 3600}, func() {
		raise(t, k, timeouts, 2)
		if err := os.WriteFile(fileOf(closeWait), []byte("7200"), 0o644); err != nil {
			t.Error(err)
		}
		raise(t, k, timeouts, 0)
		if err := k.Release(); err != nil {
			t.Error(err)
		}
		wantValue(t, "set by somebody else meanwhile", closeWait, 7200)
		wantValue(t, "ours", established, 3600)
	})
}

func TestSettingsThatAreNotWantedAnyMoreAreGivenBack(t *testing.T) {
	k := KeptIn(t.TempDir())
	node(t, map[string]int{closeWait: 60, udpTimeout: 30, udpStream: 120, beLiberal: 0}, func() {
		raise(t, k, Limits{TCPCloseWait: time.Hour, UDP: time.Minute, UDPStream: 5 * time.Minute, TCPBeLiberal: true}, 4)
		wantValue(t, "asked for", beLiberal, 1)
		wantValue(t, "asked for", udpTimeout, 60)
		raise(t, k, Limits{TCPCloseWait: time.Minute * 10}, 4)
		wantValue(t, "not asked for any more", beLiberal, 0)
		wantValue(t, "not asked for any more", udpStream, 120)
		wantValue(t, "asked for less", closeWait, 600)
		raise(t, k, Limits{}, 1)
		wantValue(t, "left as it is", closeWait, 60)
	})
}

// The limit is of the whole machine, and read-only in other namespaces.
func TestOneSettingThatIsRefusedKeepsNoOtherFromBeingSet(t *testing.T) {
	k := KeptIn(t.TempDir())
	node(t, map[string]int{closeWait: 60}, func() {
		limits := timeouts
		limits.MaxPerCore, limits.Min = 1<<20, 1<<20
		now, err := noted.ReadValue(fileOf(maxName))
		if err != nil || now >= mostEntries {
			t.Skipf("%s is %d already, %v", maxName, now, err)
		}
		made, err := k.Raise(limits)
		if err == nil || !strings.Contains(err.Error(), maxName) || strings.Contains(err.Error(), bucketsName) {
			t.Errorf("error %v, want one about %s alone", err, maxName)
		}
		if len(made) != 1 || made[0].Name != closeWait {
			t.Errorf("changed %v, want %s", made, closeWait)
		}
		if err := k.Release(); err != nil {
			t.Error(err)
		}
		wantValue(t, "in the end", closeWait, 60)
	})
}

func TestANoteOfAnotherNamespaceIsNobodys(t *testing.T) {
	k := KeptIn(t.TempDir())
	node(t, map[string]int{closeWait: 60}, func() { raise(t, k, timeouts, 1) })
	node(t, map[string]int{closeWait: 3600}, func() {
		if err := k.Release(); err != nil {
			t.Error(err)
		}
		wantValue(t, "of another namespace", closeWait, 3600)
	})
}

func TestEntriesFollowTheCores(t *testing.T) {
	for _, tc := range []struct {
		perCore, least uint32
		cores, want    int
	}{
		{32768, 131072, 2, 131072},
		{32768, 131072, 8, 262144},
		{32768, 131072, 256, 1048576},
		{0, 131072, 8, 0},
		{32768, 0, 1, 32768},
	} {
		if got := (Limits{MaxPerCore: tc.perCore, Min: tc.least}).entries(tc.cores); got != tc.want {
			t.Errorf("%+v: %d", tc, got)
		}
	}
}

func TestCPUsAreCountedFromTheKernelsList(t *testing.T) {
	for list, want := range map[string]int{"0-3\n": 4, "0": 1, "0-1,4,6-7": 5, "": 0, "x": 0, "3-1": 0} {
		if got := countCPUs(list); got != want {
			t.Errorf("%q: %d CPUs, want %d", list, got, want)
		}
	}
}
