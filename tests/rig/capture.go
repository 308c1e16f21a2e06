package rig

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// captureTimeout bounds the wait for a frame that was sent to the uplink.
const captureTimeout = 5 * time.Second

// Capture returns what waits for the next n frames that programs let come in
// by the uplink, beside the one they are run on. tb's end closes it.
func (r *Rig) Capture(tb testing.TB) func(n int) [][]byte {
	tb.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8 // in network order
	var f *os.File
	r.must(tb, r.World.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "packets of the uplink")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(r.World.Uplink)})
	}))
	tb.Cleanup(func() { r.must(tb, f.Close()) })
	return func(n int) (frames [][]byte) {
		tb.Helper()
		r.must(tb, f.SetReadDeadline(time.Now().Add(captureTimeout)))
		for len(frames) < n {
			frame := make([]byte, 1<<16)
			size, err := f.Read(frame)
			if err != nil {
				r.must(tb, fmt.Errorf("frame %d of %d: %w", len(frames), n, err))
			}
			if bytes.HasPrefix(frame, NodeMAC) { // the kernel may send it on
				frames = append(frames, frame[:size])
			}
		}
		return frames
	}
}
