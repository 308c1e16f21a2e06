package holders

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9613 1 ffff8 100 0 0 10 0
   1: 0A00000A:01BB 0B00000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 9614 1 ffff8 20 4 30 10 -1
`

const tcp6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:2810 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9700 1 ffff8 100 0 0 10 0
   1: B80D0120000000000000000001000000:7918 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9701 1 ffff8 100 0 0 10 0
`

func TestListeningSocketsAreReadAndOthersAreNot(t *testing.T) {
	for text, want := range map[string][]string{tcp: {"127.0.0.1:10249"}, tcp6: {"[::]:10256", "[2001:db8::1]:31000"}} {
		all, err := parseListeners(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, l := range all {
			got = append(got, l.Addr.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestALineThatIsNoneIsAnErrorThatQuotesIt(t *testing.T) {
	_, err := parseListeners("0: 01007F:2809 0:0 0A 0 0 0 0 0 9613\n")
	if err == nil || err.Error() != `"01007F:2809": no address` {
		t.Error(err)
	}
}

// The test binary holds a socket, and leaves itself out of the list of processes.
func TestTheHolderOfASocketIsFound(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	self := Process{PID: os.Getpid(), Name: "test"}
	all, err := Listeners([]Process{self})
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(l.Addr().String())
	i := slices.IndexFunc(all, func(l Listener) bool { return l.Addr == addr })
	if i < 0 {
		t.Fatalf("%v is not among %v", addr, all)
	}
	if diff := cmp.Diff(Listener{Addr: addr, Owner: self}, all[i], cmpopts.IgnoreUnexported(Listener{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestProcessesAreThoseOfThisNamespaceWithoutThisOne(t *testing.T) {
	all, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(all, func(p Process) bool { return p.PID == os.Getpid() }) {
		t.Error("this process is among them")
	}
	if !slices.ContainsFunc(all, func(p Process) bool { return p.PID == os.Getppid() }) {
		t.Error("its parent is not among them")
	}
}
