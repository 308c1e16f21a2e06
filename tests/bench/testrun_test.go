package bench

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const bpfProgTestRun = 10 // enum bpf_cmd

// testRun is the test member of union bpf_attr (include/uapi/linux/bpf.h).
type testRun struct {
	progFD, retval          uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         uint64
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           uint64
	flags, cpu              uint32
	batchSize, _            uint32
}

// runTimed runs p n times on frame and returns the nanoseconds of one run as
// the kernel measured them. Unlike a stopwatch around the call that leaves out
// the set-up, which for XDP waits for RCU and so for the timer tick, and the
// time in which other tasks had the CPU.
func runTimed(p *ebpf.Program, frame, ctx []byte, n int) (uint32, error) {
	attr := testRun{
		progFD:     uint32(p.FD()),
		dataSizeIn: uint32(len(frame)), dataIn: address(frame),
		ctxSizeIn: uint32(len(ctx)), ctxIn: address(ctx),
		repeat: uint32(n),
	}
	for {
		_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		runtime.KeepAlive(frame)
		runtime.KeepAlive(ctx)
		switch errno {
		case 0:
			return attr.duration, nil
		case unix.EINTR: // a signal of the runtime; nothing was measured
			continue
		}
		return 0, fmt.Errorf("test run: %w", errno)
	}
}

func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
