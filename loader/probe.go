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

// MinimumKernel is the oldest release the tests run on. All that ebb cannot do
// without is older than that.
const MinimumKernel = "6.1"

// TestedKernels are the releases the tests run on.
func TestedKernels() []string { return []string{"6.1", "6.12", "6.18", "7.3"} }

// Features is what the running kernel has beyond what ebb needs.
type Features struct {
	// TCX: several TC programs per device by bpf_link (6.6); else clsact.
	TCX bool
	// XDPFrags: XDP on devices with jumbo frames (5.18).
	XDPFrags bool
	// MPTCP: MPTCP sockets (5.19).
	MPTCP bool
	// JIT: programs are compiled. Without it they run many times slower.
	JIT bool
}

// Warnings returns what an operator should know about f, one sentence each.
func (f Features) Warnings() []string {
	var w []string
	if !f.JIT {
		w = append(w, "the BPF JIT compiler is off (sysctl net.core.bpf_jit_enable): programs run many times slower")
	}
	if !f.XDPFrags {
		w = append(w, "no XDP with fragments (Linux 5.18): devices with jumbo frames cannot use XDP")
	}
	return w
}

// Feature is one thing of the kernel that ebb uses.
type Feature struct {
	Name     string
	Since    string // first release of Linux that has it
	Fallback string // what ebb does without it; empty: nothing, it is required
	Present  bool
}

// Required reports whether ebb cannot do without f.
func (f Feature) Required() bool { return f.Fallback == "" }

// requirement is one thing ebb cannot do without.
type requirement struct {
	name  string
	since string // first release of Linux that has it
	probe func() error
}

func helper(t ebpf.ProgramType, f asm.BuiltinFunc) func() error {
	return func() error { return features.HaveProgramHelper(t, f) }
}

// requirements lists what is youngest in each area: bpf_link for XDP (5.9) or
// per-CPU maps need no probe where these are there.
func requirements() []requirement {
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
		{"bpf_for_each_map_elem", "5.13", helper(ebpf.XDP, asm.FnForEachMapElem)},
		{"bpf_loop", "5.17", helper(ebpf.XDP, asm.FnLoop)},
	}
}

// socketRequirements are what programs on sockets need beyond that.
func socketRequirements() []requirement {
	return []requirement{
		{"programs on sockets' addresses", "4.17", func() error { return features.HaveProgramType(ebpf.CGroupSockAddr) }},
		{"bpf_set_retval in them", "6.1", probeSetRetval},
		{"socket storage in them", "5.8", helper(ebpf.CGroupSockAddr, asm.FnSkStorageGet)},
	}
}

// Wants is what an agent is to do of what it may leave.
type Wants struct {
	Sockets bool // programs on sockets: --east-west is not off
}

// option is one thing ebb has a fallback for.
type option struct {
	requirement
	fallback string
	present  func(*Features) *bool
}

func options() []option {
	return []option{
		{requirement{"tcx links", "6.6", probeTCX}, "clsact filters, which anybody may remove",
			func(f *Features) *bool { return &f.TCX }},
		{requirement{"XDP with fragments", "5.18", probeXDPFrags}, "TC alone on devices with jumbo frames",
			func(f *Features) *bool { return &f.XDPFrags }},
		{requirement{"MPTCP", "5.19", probeMPTCP}, "nothing: no program has MPTCP sockets",
			func(f *Features) *bool { return &f.MPTCP }},
		{requirement{"BPF JIT compiler", "3.16", probeJIT}, "the interpreter, many times slower",
			func(f *Features) *bool { return &f.JIT }},
	}
}

// Survey asks the kernel for each feature ebb uses, required ones first. A
// missing feature is no error, a probe that fails is one. It attaches nothing.
func Survey(w Wants) ([]Feature, error) {
	if err := probePrivilege(); err != nil {
		return nil, fmt.Errorf("probe kernel: %w", err)
	}
	var all []Feature
	var errs []error
	add := func(r requirement, fallback string) {
		ok, err := supported(r.probe())
		if err != nil {
			errs = append(errs, fmt.Errorf("probe kernel: %s: %w", r.name, err))
		}
		all = append(all, Feature{Name: r.name, Since: r.since, Fallback: fallback, Present: ok})
	}
	for _, r := range requirements() {
		add(r, "")
	}
	for _, r := range socketRequirements() {
		if w.Sockets {
			add(r, "")
		} else {
			add(r, "nothing: --east-west=off")
		}
	}
	for _, o := range options() {
		add(o.requirement, o.fallback)
	}
	return all, errors.Join(errs...)
}

// Probe finds out what the running kernel can do. The error names everything that
// is missing, with the first release of Linux that has it. It attaches nothing.
func Probe(w Wants) (Features, error) {
	if err := probePrivilege(); err != nil {
		return Features{}, fmt.Errorf("probe kernel: %w", err)
	}
	needed := requirements()
	if w.Sockets {
		needed = append(needed, socketRequirements()...)
	}
	if err := check(needed); err != nil {
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
	for _, o := range options() {
		ok, err := supported(o.probe())
		if err != nil {
			return f, fmt.Errorf("%s: %w", o.name, err)
		}
		*o.present(&f) = ok
	}
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

// probeSetRetval asks whether a program may say why a call of a socket fails.
func probeSetRetval() error {
	return probeConnect(asm.Instructions{
		asm.Mov.Imm(asm.R1, -int32(unix.ECONNREFUSED)),
		asm.FnSetRetval.Call(),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	})
}

// probeConnect asks whether the kernel takes a program on connect that does this.
func probeConnect(code asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:         ebpf.CGroupSockAddr,
		AttachType:   ebpf.AttachCGroupInet4Connect,
		License:      "GPL",
		Instructions: code,
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES) {
		return ebpf.ErrNotSupported
	}
	if err != nil {
		return err
	}
	return p.Close()
}

// probeMPTCP asks whether the kernel has MPTCP, and tells of which MPTCP socket a
// subflow is.
func probeMPTCP() error {
	return probeConnect(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, sockAddrSocket, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "end"),
		asm.FnSkcToMptcpSock.Call(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("end"),
		asm.Return(),
	})
}

// sockAddrSocket is the offset of sk in struct bpf_sock_addr.
const sockAddrSocket = 64

// probeJIT asks whether programs are compiled. Kernels built to always compile
// may lack the switch.
func probeJIT() error {
	b, err := os.ReadFile("/proc/sys/net/core/bpf_jit_enable")
	if err == nil && strings.TrimSpace(string(b)) == "0" {
		return ebpf.ErrNotSupported
	}
	return nil
}
