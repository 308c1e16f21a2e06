package loader

import (
	"errors"
	"fmt"
	stdmaps "maps"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ebb-lb/ebb/bpf"
	"github.com/ebb-lb/ebb/maps"
)

// Names of the programs in the objects.
const (
	programXDP       = "ebb_xdp"
	programTCIngress = "ebb_tc_ingress"
	programTCEgress  = "ebb_tc_egress"
	programPodIn     = "ebb_pod_ingress"
	programPodOut    = "ebb_pod_egress"
	programClock     = "ebb_clock"
	programCollect   = "ebb_collect"
)

// Programs are loaded programs, attached to nothing. The owner closes them;
// what an [Attacher] attached stays attached after that.
type Programs struct {
	// XDP is nil if the configuration switched XDP off.
	XDP                 *ebpf.Program
	TCIngress, TCEgress *ebpf.Program
	// PodIngress and PodEgress are nil until the configuration or somebody wants them.
	PodIngress, PodEgress *ebpf.Program
	// Sockets are the programs of sockets by name; nil if the configuration
	// switched them off.
	Sockets map[string]*ebpf.Program

	objects objectLoader // loads what is wanted later
	bare    *bare        // nil: none
}

// bare are the TC programs for devices without an Ethernet header. Few nodes have such
// a device, so they are loaded when one needs them.
type bare struct {
	load            func(ingress, egress **ebpf.Program) error
	mu              sync.Mutex
	ingress, egress *ebpf.Program
}

// program returns the program for hook; nil if there is none, which is so for XDP.
func (b *bare) program(hook maps.Hook) (*ebpf.Program, error) {
	if b == nil {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ingress == nil {
		if err := b.load(&b.ingress, &b.egress); err != nil {
			return nil, err
		}
	}
	switch hook {
	case maps.HookTCIngress:
		return b.ingress, nil
	case maps.HookTCEgress:
		return b.egress, nil
	}
	return nil, nil
}

// Load puts the programs into the kernel, working on the maps of set, which
// stay the caller's. A rejection by the verifier is wrapped as
// *[ebpf.VerifierError].
func Load(cfg Config, set *maps.Set) (*Programs, error) {
	return load(cfg, set.Replacements())
}

func load(cfg Config, replacements map[string]*ebpf.Map) (*Programs, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	hz, err := KernelHZ()
	if err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	mptcp, err := supported(probeMPTCP())
	if err != nil {
		return nil, fmt.Errorf("load programs: probe MPTCP: %w", err)
	}
	l := objectLoader{vars: append(cfg.variables(hz), variable{"cfg_mptcp", flag(mptcp)}), maps: replacements}
	p := &Programs{objects: l, bare: &bare{load: l.bare}}
	// To verify an object takes most of a second of one CPU.
	var objects errgroup.Group
	objects.Go(func() error {
		return l.object("tc", bpf.LoadTC, map[string]**ebpf.Program{
			programTCIngress: &p.TCIngress,
			programTCEgress:  &p.TCEgress,
		})
	})
	if cfg.XDP != XDPOff {
		objects.Go(func() error {
			return l.object("xdp", bpf.LoadXDP, map[string]**ebpf.Program{programXDP: &p.XDP})
		})
	}
	if cfg.PodLinks {
		objects.Go(p.loadPodLinks)
	}
	if cfg.Sockets {
		objects.Go(func() error { return l.sockets(p) })
	}
	err = objects.Wait()
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// bare loads the programs for devices without an Ethernet header.
func (l objectLoader) bare(ingress, egress **ebpf.Program) error {
	l.vars = append(slices.Clone(l.vars), variable{"cfg_no_ethernet", flag(true)})
	return l.object("tc", bpf.LoadTC, map[string]**ebpf.Program{programTCIngress: ingress, programTCEgress: egress})
}

// loadPodLinks loads the programs for pods' links, unless they are loaded. Nobody must
// use them meanwhile.
func (p *Programs) loadPodLinks() error {
	if p.PodIngress != nil && p.PodEgress != nil {
		return nil
	}
	return p.objects.object("pod", bpf.LoadPod, map[string]**ebpf.Program{
		programPodIn:  &p.PodIngress,
		programPodOut: &p.PodEgress,
	})
}

// sockets loads the programs of sockets into p.
func (l objectLoader) sockets(p *Programs) error {
	loaded := make(map[string]**ebpf.Program)
	for _, h := range socketHooks() {
		loaded[h.program] = new(*ebpf.Program)
	}
	err := l.object("sock", bpf.LoadSock, loaded)
	p.Sockets = make(map[string]*ebpf.Program)
	for name, prog := range loaded {
		p.Sockets[name] = *prog
	}
	return err
}

// Close releases the programs. Those that are attached keep running.
func (p *Programs) Close() error {
	var errs []error
	all := slices.Collect(stdmaps.Values(p.Sockets))
	if p.bare != nil {
		all = append(all, p.bare.ingress, p.bare.egress)
	}
	for _, prog := range append(all, p.XDP, p.TCIngress, p.TCEgress, p.PodIngress, p.PodEgress) {
		if prog != nil {
			errs = append(errs, prog.Close())
		}
	}
	return errors.Join(errs...)
}

// For returns the program for hook on a device whose packets begin with an Ethernet
// header, or with their IP header; nil if it is not loaded. It stays p's.
func (p *Programs) For(hook maps.Hook, ethernet bool) (*ebpf.Program, error) {
	if !ethernet {
		return p.bare.program(hook)
	}
	return p.program(hook), nil
}

// program returns the program for hook; nil if it is not loaded.
func (p *Programs) program(hook maps.Hook) *ebpf.Program {
	switch hook {
	case maps.HookXDP:
		return p.XDP
	case maps.HookTCIngress:
		return p.TCIngress
	case maps.HookTCEgress:
		return p.TCEgress
	case maps.HookPodIngress:
		return p.PodIngress
	case maps.HookPodEgress:
		return p.PodEgress
	}
	return nil
}

// objectLoader loads objects with the same settings and the same maps. It is safe for
// concurrent use.
type objectLoader struct {
	vars []variable
	maps map[string]*ebpf.Map
}

// object loads the object called name and hands out the wanted programs.
func (l objectLoader) object(name string, open func() (*ebpf.CollectionSpec, error), want map[string]**ebpf.Program) error {
	spec, err := open()
	if err != nil {
		return fmt.Errorf("load object %s: %w", name, err)
	}
	if err := setVariables(spec, l.vars); err != nil {
		return fmt.Errorf("load object %s: %w", name, err)
	}
	if err := adaptPrograms(spec); err != nil {
		return fmt.Errorf("load object %s: %w", name, err)
	}
	if err := newPrograms(spec, l.maps, want); err != nil {
		return fmt.Errorf("load object %s: %w", name, err)
	}
	return nil
}

// adaptPrograms makes spec loadable wherever its programs can run. TC programs
// lose their attach type: kernels without tcx refuse it, kernels with tcx do
// not ask for it, so one program serves tcx and clsact. XDP programs lose the
// frags flag where the kernel does not know it; jumbo frames then need TC.
func adaptPrograms(spec *ebpf.CollectionSpec) error {
	for _, p := range spec.Programs {
		switch {
		case p.Type == ebpf.SchedCLS:
			p.AttachType = ebpf.AttachNone
		case p.Type == ebpf.XDP && p.Flags&unix.BPF_F_XDP_HAS_FRAGS != 0:
			frags, err := supported(probeXDPFrags())
			if err != nil {
				return fmt.Errorf("probe XDP frags: %w", err)
			}
			if !frags {
				p.Flags &^= unix.BPF_F_XDP_HAS_FRAGS
			}
		}
	}
	return nil
}

// newPrograms loads spec with the pinned maps in place of its own of the same name, and
// moves the wanted programs out of the collection.
func newPrograms(spec *ebpf.CollectionSpec, pinned map[string]*ebpf.Map, want map[string]**ebpf.Program) error {
	use := make(map[string]*ebpf.Map)
	for name, ms := range spec.Maps {
		m, ok := pinned[name]
		if !ok {
			continue
		}
		// Sizes are the operator's choice; all else must agree with the object.
		ms.MaxEntries = m.MaxEntries()
		use[name] = m
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: use})
	if err != nil {
		return err
	}
	defer coll.Close()
	for name, target := range want {
		if *target = coll.DetachProgram(name); *target == nil {
			return fmt.Errorf("the object has no program %s", name)
		}
	}
	return nil
}
