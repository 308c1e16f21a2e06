package rig

import (
	"encoding/binary"

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
