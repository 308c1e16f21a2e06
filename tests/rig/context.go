package rig

import (
	"encoding/binary"
	"errors"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// Context is what a test may say about the packet beside its bytes.
type Context struct {
	Ifindex  uint32 // where it came in; 0: the uplink
	GSOSize  uint32 // TC only: segment size of a packet that stands for several
	GSOCount uint32
}

// Offsets in struct __sk_buff, and its size (include/uapi/linux/bpf.h).
const (
	skbIfindex  = 40
	skbGSOSegs  = 164
	skbGSOSize  = 176
	skbSize     = 192
	xdpDataEnd  = 4
	xdpIfindex  = 12
	xdpMetaSize = 24
)

// Bytes is the context as the kernel wants it: struct xdp_md or struct __sk_buff.
func (c Context) Bytes(hook maps.Hook, frame int, uplink uint32) []byte {
	if c.Ifindex == 0 {
		c.Ifindex = uplink
	}
	if hook == maps.HookXDP {
		b := make([]byte, xdpMetaSize)
		binary.NativeEndian.PutUint32(b[xdpDataEnd:], uint32(frame))
		binary.NativeEndian.PutUint32(b[xdpIfindex:], c.Ifindex)
		return b
	}
	b := make([]byte, skbSize)
	binary.NativeEndian.PutUint32(b[skbIfindex:], c.Ifindex)
	binary.NativeEndian.PutUint32(b[skbGSOSegs:], c.GSOCount)
	binary.NativeEndian.PutUint32(b[skbGSOSize:], c.GSOSize)
	return b
}

// Flags of a test run: BPF_F_TEST_SKB_CHECKSUM_COMPLETE (include/uapi/linux/bpf.h),
// and one that no kernel knows.
const (
	testSummed  = 1 << 2
	testUnknown = 1 << 31
)

// Sums reports whether the kernel does what RunSummed asks for. Old ones refuse
// it, or run the program as if they were not asked.
func (r *Rig) Sums() bool {
	frame := make([]byte, etherMin)
	return r.runFlags(maps.HookTCIngress, frame, testSummed) == nil &&
		errors.Is(r.runFlags(maps.HookTCIngress, frame, testUnknown), unix.EINVAL)
}

// etherMin is the least length of a frame.
const etherMin = 60

// RunSummed puts frame through a TC program as if a NIC had summed it up
// (CHECKSUM_COMPLETE). The error is EBADMSG if the sum is not that of what the
// program made of the frame.
func (r *Rig) RunSummed(hook maps.Hook, frame []byte) error {
	return r.runFlags(hook, frame, testSummed)
}

// runFlags puts frame through the program of hook, whatever comes of it.
func (r *Rig) runFlags(hook maps.Hook, frame []byte, flags uint32) error {
	r.counts = nil
	opts := r.options(hook, frame, Context{})
	opts.Flags = flags
	return r.World.Do(func() error {
		_, err := r.Program(hook).Run(opts)
		return err
	})
}

// options is what the kernel wants to know to run the program of hook on frame.
func (r *Rig) options(hook maps.Hook, frame []byte, ctx Context) *ebpf.RunOptions {
	data := pad(frame)
	return &ebpf.RunOptions{Data: data, Context: ctx.Bytes(hook, len(data), r.World.Uplink)}
}
