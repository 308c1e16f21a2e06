package loader

import (
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/maps"
)

// BenchmarkIngress is the whole way of a small frame: a send by a raw socket,
// a veth, and a TC program that drops it, once per way of attaching. What
// differs between the two is what the fallback costs.
func BenchmarkIngress(b *testing.B) {
	for name, attach := range map[string]func(testing.TB, netlink.Link, *ebpf.Program){
		"tcx":    attachTCXForBenchmark,
		"clsact": attachClsactForBenchmark,
	} {
		b.Run(name, func(b *testing.B) {
			newNetns(b)
			up := addVeth(b, "up0")
			attach(b, up, dropProgram(b))
			send := frameSender(b, "up0p")
			for b.Loop() {
				send()
			}
		})
	}
}

func attachTCXForBenchmark(tb testing.TB, dev netlink.Link, p *ebpf.Program) {
	needTCX(tb)
	at, err := attachTCX(dev, maps.HookTCIngress, p, newBPFFS(tb))
	must(tb, "attach", err)
	tb.Cleanup(func() { at.close() })
}

func attachClsactForBenchmark(tb testing.TB, dev netlink.Link, p *ebpf.Program) {
	_, err := attachClsact(dev, maps.HookTCIngress, p)
	must(tb, "attach", err)
}

func dropProgram(tb testing.TB) *ebpf.Program {
	const shot = 2 // TC_ACT_SHOT
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, shot), asm.Return()},
	})
	must(tb, "load", err)
	tb.Cleanup(func() { p.Close() })
	return p
}

// frameSender returns a function that sends one frame out of device.
func frameSender(tb testing.TB, device string) func() {
	dev, err := net.InterfaceByName(device)
	must(tb, "find device", err)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	must(tb, "raw socket", err)
	tb.Cleanup(func() { unix.Close(fd) })
	must(tb, "bypass qdisc", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
	to := &unix.SockaddrLinklayer{Ifindex: dev.Index}
	frame := make([]byte, 64)
	copy(frame[12:], []byte{0x08, 0x00})
	return func() {
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			tb.Fatal(err)
		}
	}
}
