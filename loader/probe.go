package loader

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// MinimumKernel is the first release with everything ebb cannot do without.
const MinimumKernel = "5.14"

// Features is what the running kernel has beyond what ebb needs.
type Features struct {
	// TCX: several TC programs per device by bpf_link (6.6); else clsact.
	TCX bool
	// XDPFrags: XDP on devices with jumbo frames (5.18).
	XDPFrags bool
	// XDPLink: XDP by bpf_link (5.9); without it there is no XDP.
	XDPLink bool
	// JIT: programs are compiled. Without it they run many times slower.
	JIT bool
}

// Warnings returns what an operator should know about f, one sentence each.
func (f Features) Warnings() []string {
	var w []string
	if !f.JIT {
		w = append(w, "the BPF JIT compiler is off (sysctl net.core.bpf_jit_enable): programs run many times slower")
	}
	if !f.XDPLink {
		w = append(w, "no bpf_link for XDP (Linux 5.9): XDP cannot be used")
	}
	if !f.XDPFrags {
		w = append(w, "no XDP with fragments (Linux 5.18): devices with jumbo frames cannot use XDP")
	}
	return w
}

// requirement is one thing ebb cannot do without.
type requirement struct {
	name  string
	since string // first release of Linux that has it
	probe func() error
}

func requirements() []requirement {
	helper := func(t ebpf.ProgramType, f asm.BuiltinFunc) func() error {
		return func() error { return features.HaveProgramHelper(t, f) }
	}
	program := func(t ebpf.ProgramType) func() error {
		return func() error { return features.HaveProgramType(t) }
	}
	return []requirement{
		{"TC programs", "4.1", program(ebpf.SchedCLS)},
		{"XDP programs", "4.8", program(ebpf.XDP)},
		{"syscall programs", "5.14", program(ebpf.Syscall)},
		{"LRU hash maps", "4.10", func() error { return features.HaveMapType(ebpf.LRUHash) }},
		{"mmap of array maps", "5.5", func() error { return features.HaveMapFlag(features.BPF_F_MMAPABLE) }},
		{"bpf_fib_lookup in TC", "4.18", helper(ebpf.SchedCLS, asm.FnFibLookup)},
		{"bpf_fib_lookup in XDP", "4.18", helper(ebpf.XDP, asm.FnFibLookup)},
		{"bpf_redirect_neigh", "5.10", helper(ebpf.SchedCLS, asm.FnRedirectNeigh)},
		{"bpf_jiffies64", "5.6", helper(ebpf.SchedCLS, asm.FnJiffies64)},
		{"bpf_skb_change_tail", "4.9", helper(ebpf.SchedCLS, asm.FnSkbChangeTail)},
	}
}

// Probe finds out what the running kernel can do. The error names everything that
// is missing, with the first release of Linux that has it. It attaches nothing.
func Probe() (Features, error) {
	if err := probePrivilege(); err != nil {
		return Features{}, fmt.Errorf("probe kernel: %w", err)
	}
	if err := check(requirements()); err != nil {
		return Features{}, fmt.Errorf("probe kernel: %w", err)
	}
	f, err := probeOptional()
	if err != nil {
		return Features{}, fmt.Errorf("probe kernel: %w", err)
	}
	return f, nil
}

// check returns one error for all that is missing.
func check(reqs []requirement) error {
	var missing []string
	var errs []error
	for _, r := range reqs {
		ok, err := supported(r.probe())
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", r.name, err))
		case !ok:
			missing = append(missing, fmt.Sprintf("%s (Linux %s)", r.name, r.since))
		}
	}
	if len(missing) > 0 {
		errs = append(errs, fmt.Errorf("ebb needs Linux %s or later; this kernel lacks %s: %w",
			MinimumKernel, strings.Join(missing, ", "), ebpf.ErrNotSupported))
	}
	return errors.Join(errs...)
}

// supported turns the answer of a probe into yes, no, or an error.
func supported(err error) (bool, error) {
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	return err == nil, err
}

func probeOptional() (Features, error) {
	var f Features
	var err error
	if f.TCX, err = supported(probeTCX()); err != nil {
		return f, fmt.Errorf("tcx: %w", err)
	}
	if f.XDPFrags, err = supported(probeXDPFrags()); err != nil {
		return f, fmt.Errorf("XDP with fragments: %w", err)
	}
	if f.XDPLink, err = supported(probeXDPLink()); err != nil {
		return f, fmt.Errorf("XDP link: %w", err)
	}
	f.JIT = jitEnabled()
	return f, nil
}

// probePrivilege tells a missing privilege from a missing feature.
func probePrivilege() error {
	p, err := emptyProgram(ebpf.SchedCLS, 0)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("no permission to use BPF: ebb needs root, or CAP_BPF and CAP_NET_ADMIN: %w", err)
	}
	if err != nil {
		return fmt.Errorf("load a TC program: %w", err)
	}
	return p.Close()
}

// noDevice is an ifindex no device has: attaching to it fails either because the
// kernel does not know the way of attaching, or because there is no such device.
const noDevice = math.MaxInt32

func probeTCX() error {
	p, err := emptyProgram(ebpf.SchedCLS, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = link.AttachTCX(link.TCXOptions{Interface: noDevice, Program: p, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func probeXDPLink() error {
	p, err := emptyProgram(ebpf.XDP, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	_, err = link.AttachXDP(link.XDPOptions{Interface: noDevice, Program: p})
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil
	case errors.Is(err, unix.EINVAL):
		return ebpf.ErrNotSupported
	}
	return err
}

func probeXDPFrags() error {
	p, err := emptyProgram(ebpf.XDP, unix.BPF_F_XDP_HAS_FRAGS)
	if errors.Is(err, unix.EINVAL) {
		return ebpf.ErrNotSupported
	}
	if err != nil {
		return err
	}
	return p.Close()
}

// emptyProgram loads a program that does nothing.
func emptyProgram(t ebpf.ProgramType, flags uint32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         t,
		Flags:        flags,
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}

// jitEnabled reports whether programs are compiled. Kernels built to always
// compile may lack the switch.
func jitEnabled() bool {
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	return err != nil || strings.TrimSpace(string(b)) != "0"
}
