package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// driverMode is XDP_FLAGS_DRV_MODE of linux/if_link.h.
const driverMode = 1 << 2

// AttachPass puts an XDP program that passes everything on dev, in the
// namespace of the calling thread. It stays until dev is gone.
//
// A veth needs one where its peer sends by XDP_TX: the kernel wakes the
// receiver of such packets only if it has a program (veth_xdp_flush in
// drivers/net/veth.c), whatever GRO says. It also gives the veth the receive
// queue that a test run of a program wants to name.
func AttachPass(dev string) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "pass",
		Type:         ebpf.XDP,
		Flags:        unix.BPF_F_XDP_HAS_FRAGS,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load pass program: %w", err)
	}
	defer prog.Close()
	l, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if err := netlink.LinkSetXdpFdWithFlags(l, prog.FD(), driverMode); err != nil {
		return fmt.Errorf("attach pass program to %s: %w", dev, err)
	}
	return nil
}
