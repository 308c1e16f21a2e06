package datapath

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

// Every program of every object is put through the verifier.
func TestEveryProgramPassesTheVerifier(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){
		"layout": bpf.LoadLayout, "xdp": bpf.LoadXDP, "tc": bpf.LoadTC, "pod": bpf.LoadPod, "clock": bpf.LoadClock, "sock": bpf.LoadSock,
		"tc without Ethernet": loadBare,
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := load()
			if err != nil {
				t.Fatal(err)
			}
			coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogSizeStart: 1 << 24}})
			if ve := (*ebpf.VerifierError)(nil); errors.As(err, &ve) {
				t.Fatalf("%+v", ve)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer coll.Close()
			for n, p := range coll.Programs {
				i, _ := p.Info()
				x, _ := i.VerifiedInstructions()
				t.Logf("%s: %d verified insns", n, x)
			}
		})
	}
}

// loadBare is what devices without an Ethernet header get.
func loadBare() (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadTC()
	if err != nil {
		return nil, err
	}
	return spec, spec.Variables["cfg_no_ethernet"].Set(uint8(1))
}
