package sourceports

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// node runs fn on a thread in a network namespace of its own, thrown away with the
// thread, whose settings are these.
func node(t *testing.T, ephemeral, reserved string, fn func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: creates a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = set(ephemeralFile, ephemeral)
		}
		if err == nil {
			err = set(reservedFile, reserved)
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

func set(file, value string) error { return os.WriteFile(file, []byte(value+"\n"), 0o644) }

func get(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(reservedFile)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(string(text))
}

func wantReserved(t *testing.T, when, want string) {
	t.Helper()
	if got := get(t); got != want {
		t.Errorf("%s: %q is reserved, want %q", when, got, want)
	}
}

func (r Reservation) wantMade(t *testing.T, ports string, change bool) {
	t.Helper()
	changed, err := r.Make(mustParse(t, ports))
	if err != nil || changed != change {
		t.Errorf("reserve %s: changed %t, %v; want %t", ports, changed, err, change)
	}
}

func TestWhatOthersHaveReservedStays(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "22,8080,25000-35000", func() {
		for range 3 { // an agent that starts again and again
			n, err := r.Node()
			if err != nil || n.Ephemeral != (Range{1024, 65535}) || n.Reserved.String() != "22,8080,25000-35000" {
				t.Errorf("%s without %s, %v", n.Ephemeral, n.Reserved, err)
			}
			if _, err := r.Make(mustParse(t, "1024-29999")); err != nil {
				t.Error(err)
			}
			wantReserved(t, "made", "22,1024-35000")
		}
		r.wantMade(t, "1024-29999", false)
		r.wantMade(t, "5000-6000,40000-40010", true)
		wantReserved(t, "others", "22,5000-6000,8080,25000-35000,40000-40010")
		if err := set(reservedFile, get(t)+",9090"); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := r.Release(); err != nil {
				t.Error(err)
			}
			wantReserved(t, "released", "22,8080,9090,25000-35000")
		}
		if left, err := os.ReadDir(filepath.Dir(string(r))); err != nil || len(left) != 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

func TestAnEmptyReservationIsEmptyAgain(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "", func() {
		r.wantMade(t, "1024-29999", true)
		wantReserved(t, "made", "1024-29999")
		if err := r.Release(); err != nil {
			t.Error(err)
		}
		wantReserved(t, "released", "")
	})
}

// Somebody applies sysctl.d, which replaces the setting.
func TestWhatWasTakenAwayIsReservedAgain(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "", func() {
		r.wantMade(t, "1024-29999", true)
		if err := set(reservedFile, "8080,40000"); err != nil {
			t.Error(err)
		}
		r.wantMade(t, "1024-29999", true)
		wantReserved(t, "made again", "1024-29999,40000")
		if err := r.Release(); err != nil {
			t.Error(err)
		}
		wantReserved(t, "released", "40000")
	})
}

// Killed between noting and reserving, and between reserving and noting.
func TestAnAgentThatIsKilledLosesNothing(t *testing.T) {
	for when, reserved := range map[string]string{"before": "22", "after": "22,1024-29999"} {
		t.Run(when, func(t *testing.T) {
			r := ReservationIn(t.TempDir())
			node(t, "1024 65535", reserved, func() {
				if err := r.write(mustParse(t, "1024-29999")); err != nil {
					t.Error(err)
				}
				if _, err := r.Make(mustParse(t, "2000-3000")); err != nil {
					t.Error(err)
				}
				wantReserved(t, "made", "22,2000-3000")
				if err := r.Release(); err != nil {
					t.Error(err)
				}
				wantReserved(t, "released", "22")
			})
		})
	}
}

// After a reboot, or in another namespace, what is there is somebody else's.
func TestANoteOfAnotherNamespaceCountsAsNothing(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "", func() { r.wantMade(t, "1024-29999", true) })
	node(t, "1024 65535", "1024-29999", func() {
		r.wantMade(t, "1024-29999", false)
		if err := r.Release(); err != nil {
			t.Error(err)
		}
		wantReserved(t, "released", "1024-29999")
	})
}

// Neither TCP nor UDP, nor either family.
func TestSocketsAreNotGivenWhatIsReserved(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "20000 20999", "20990-20999", func() {
		r.wantMade(t, "20000-20899", true)
		free := SetOf(Range{20900, 20989})
		for _, network := range []string{"tcp4", "tcp6", "udp4", "udp6"} {
			for range 30 {
				port, err := someonesPort(network)
				if err != nil {
					t.Error(network, err)
					return
				}
				if !free.has(port) {
					t.Errorf("%s: a socket got port %d", network, port)
				}
			}
		}
	})
}

// someonesPort is what a socket is given, in the namespace of the calling thread.
func someonesPort(network string) (int, error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if strings.HasSuffix(network, "6") {
		family, any = unix.AF_INET6, &unix.SockaddrInet6{}
	}
	if strings.HasPrefix(network, "udp") {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, any); err != nil {
		return 0, err
	}
	name, err := unix.Getsockname(fd)
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return name.Port, err
	case *unix.SockaddrInet6:
		return name.Port, err
	}
	return 0, fmt.Errorf("%v: %w", name, net.ErrClosed)
}

// In a container /proc/sys is often read-only.
func TestASettingThatCannotBeWrittenIsAnErrorAndNothingIsNoted(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "22", func() {
		if err := Writable(); err != nil {
			t.Error(err)
		}
		if err := protect(); err != nil {
			t.Error(err)
			return
		}
		if err := Writable(); err == nil {
			t.Error("it is said to be writable")
		}
		if _, err := r.Make(mustParse(t, "1024-29999")); err == nil || !strings.Contains(err.Error(), reservedFile) {
			t.Errorf("error %v, want one with %s", err, reservedFile)
		}
		r.wantMade(t, "", false)
		wantReserved(t, "in the end", "22")
		if mine, err := r.mine(); err != nil || mine.Len() != 0 {
			t.Errorf("%s is noted, %v", mine, err)
		}
	})
}

// protect makes /proc/sys read-only for the calling thread.
func protect() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	const sys = "/proc/sys"
	if err := unix.Mount(sys, sys, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", sys, err)
	}
	return unix.Mount("", sys, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

func TestANoteThatCannotBeReadIsAnError(t *testing.T) {
	r := ReservationIn(t.TempDir())
	node(t, "1024 65535", "22", func() {
		for _, text := range []string{"{", `{"boot": 1}`} {
			if err := os.WriteFile(string(r), []byte(text), 0o600); err != nil {
				t.Error(err)
			}
			if _, err := r.Make(mustParse(t, "80")); err == nil || !strings.Contains(err.Error(), string(r)) {
				t.Errorf("%s: error %v", text, err)
			}
		}
		wantReserved(t, "in the end", "22")
	})
}
