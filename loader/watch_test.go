package loader

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// startWatch runs watch in the network namespace of the calling thread. The
// channel has one value per call.
func startWatch(t *testing.T, ctx context.Context, watch func(context.Context, func()) error) (calls chan struct{}, done chan error) {
	t.Helper()
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, "open namespace", err)
	calls, done = make(chan struct{}, 100), make(chan error, 1)
	go func() {
		defer unix.Close(ns)
		runtime.LockOSThread() // never unlocked: the thread stays in the namespace
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- watch(ctx, func() { calls <- struct{}{} })
	}()
	return calls, done
}

func await(t *testing.T, what string, calls <-chan struct{}, done <-chan error) {
	t.Helper()
	select {
	case <-calls:
	case err := <-done:
		t.Fatalf("%s: watch ended: %v", what, err)
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: not called back", what)
	}
}

func TestWatchCallsBackOnChangesUntilItIsCancelled(t *testing.T) {
	newNetns(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls, done := startWatch(t, ctx, Watch)
	await(t, "start", calls, done)
	up := addVeth(t, "up0")
	await(t, "device", calls, done)
	addAddr(t, up, "192.0.2.1/24")
	await(t, "address", calls, done)
	addRoute(t, up, "0.0.0.0/0")
	await(t, "default route", calls, done)
	cancel()
	select {
	case err := <-done:
		must(t, "watch", err)
	case <-time.After(10 * time.Second):
		t.Fatal("watch did not end")
	}
}

// route is a netlink message about a route with a prefix of that many bits, and a
// device or a gateway.
func route(typ uint16, table, bits byte, attr byte) syscall.NetlinkMessage {
	return syscall.NetlinkMessage{
		Header: syscall.NlMsghdr{Type: typ},
		Data:   []byte{unix.AF_INET, bits, 0, 0, table, 0, 0, 0, 0, 0, 0, 0, 8, 0, attr, 0, 10, 0, 0, 1},
	}
}

func TestOnlyRoutesThatLeadOutsideMatter(t *testing.T) {
	const main, local = unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL
	pod, def := route(unix.RTM_NEWROUTE, main, 32, unix.RTA_OIF), route(unix.RTM_DELROUTE, main, 0, unix.RTA_OIF)
	dev := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.RTM_NEWLINK}}
	for _, tc := range []struct {
		name string
		msgs []syscall.NetlinkMessage
		want bool
	}{
		{"the route to a pod", []syscall.NetlinkMessage{pod, route(unix.RTM_DELROUTE, main, 24, unix.RTA_OIF)}, false},
		{"a route by a gateway", []syscall.NetlinkMessage{pod, route(unix.RTM_DELROUTE, main, 24, unix.RTA_GATEWAY)}, true},
		{"a default route of another table", []syscall.NetlinkMessage{route(unix.RTM_NEWROUTE, local, 0, unix.RTA_GATEWAY)}, false},
		{"a default route among others", []syscall.NetlinkMessage{pod, def}, true},
		{"a device", []syscall.NetlinkMessage{dev}, true},
		{"a truncated message", []syscall.NetlinkMessage{{Header: syscall.NlMsghdr{Type: unix.RTM_NEWROUTE}}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := anyRelevant(tc.msgs); got != tc.want {
				t.Errorf("got %t, want %t", got, tc.want)
			}
		})
	}
}

func TestABurstOfChangesIsOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		events := make(chan struct{})
		var calls []time.Duration
		start := time.Now()
		done := make(chan error, 1)
		go func() {
			done <- coalesce(ctx, events, nil, func() { calls = append(calls, time.Since(start)) })
		}()
		for range 5 {
			events <- struct{}{}
			<-time.After(settle / 10)
		}
		<-time.After(10 * settle)
		events <- struct{}{}
		<-time.After(2 * settle)
		cancel()
		<-done
		if len(calls) != 2 || calls[0] != settle {
			t.Errorf("called at %v, want once per burst, the first at %s", calls, settle)
		}
	})
}
