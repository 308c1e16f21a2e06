package leftovers

import (
	"fmt"
	"slices"
)

// Modes of kube-proxy.
const (
	ModeNFTables = "nftables"
	ModeIPTables = "iptables"
	ModeIPVS     = "ipvs"
)

// Found is what kube-proxy has left on a node, and what was seen beside it.
type Found struct {
	NFTables []NFTable  `json:"nftables,omitempty"`
	IPTables []IPTables `json:"iptables,omitempty"`
	IPVS     IPVS       `json:"ipvs,omitzero"`
	// NoOtherNAT are the families ("ip", "ip6") for which nobody else has netfilter
	// translate and track connections: those that kube-proxy has translated end with it.
	NoOtherNAT []string `json:"noOtherNAT,omitempty"`
	// Notes are what an operator should know of it, a sentence each.
	Notes []string `json:"notes,omitempty"`
	// Unknown are what could not be looked at and how to change that, a sentence each.
	Unknown []string `json:"unknown,omitempty"`
}

// NFTable is a table of kube-proxy's nftables mode.
type NFTable struct {
	Family string `json:"family"`
	Chains int    `json:"chains"`
	// Endpoints counts chains that lead to endpoints: those of endpoints, and since
	// Kubernetes 1.37, which has none, those of Services with endpoints.
	Endpoints int `json:"endpoints"`
}

// IPTables is what one backend of iptables has of one family.
type IPTables struct {
	Backend string  `json:"backend"` // "nf_tables", "legacy"
	Family  string  `json:"family"`  // "ip", "ip6"
	Tables  []Table `json:"tables"`
	restore string  // the program that changes it
}

// Table is what is kube-proxy's in one table.
type Table struct {
	Name   string   `json:"name"`
	Chains []string `json:"chains,omitempty"`
	Jumps  []string `json:"-"` // as iptables-restore removes them
	Kept   []Kept   `json:"kept,omitempty"`
}

// Kept is a chain of kube-proxy that a chain of somebody else uses.
type Kept struct {
	Chain string `json:"chain"`
	For   string `json:"for"`
}

func (t Table) empty() bool { return len(t.Chains) == 0 && len(t.Jumps) == 0 }

// IPVS is what kube-proxy's IPVS mode has left.
type IPVS struct {
	Device  bool     `json:"device"` // kube-ipvs0
	Servers []Server `json:"servers,omitempty"`
	Sets    []string `json:"sets,omitempty"`
}

// Active returns how many connections end with the virtual servers.
func (v IPVS) Active() int {
	n := 0
	for _, s := range v.Servers {
		n += s.Active
	}
	return n
}

// Empty reports whether there is nothing to remove.
func (f Found) Empty() bool {
	return len(f.NFTables) == 0 && !f.IPVS.Device && len(f.IPVS.Sets) == 0 &&
		!slices.ContainsFunc(f.IPTables, func(i IPTables) bool {
			return slices.ContainsFunc(i.Tables, func(t Table) bool { return !t.empty() })
		})
}

// Modes returns the modes in which kube-proxy has run: after a change of mode, several.
func (f Found) Modes() []string {
	var modes []string
	if len(f.NFTables) > 0 {
		modes = append(modes, ModeNFTables)
	}
	switch {
	case f.IPVS.Device:
		modes = append(modes, ModeIPVS)
	case f.has("KUBE-SERVICES"):
		modes = append(modes, ModeIPTables)
	}
	return modes
}

// has reports whether there is such a chain for NAT.
func (f Found) has(chain string) bool {
	return slices.ContainsFunc(f.IPTables, func(i IPTables) bool {
		return slices.ContainsFunc(i.Tables, func(t Table) bool { return t.Name == "nat" && slices.Contains(t.Chains, chain) })
	})
}

// Summary says what there is to remove, a line for each table and so on.
func (f Found) Summary() []string {
	var all []string
	for _, t := range f.NFTables {
		all = append(all, t.String())
	}
	for _, i := range f.IPTables {
		for _, t := range i.Tables {
			if !t.empty() {
				all = append(all, fmt.Sprintf("iptables (%s) %s table %s: chains %d, jumps to them %d", i.Backend, i.Family, t.Name, len(t.Chains), len(t.Jumps)))
			}
		}
	}
	if n := len(f.IPVS.Servers); n > 0 {
		all = append(all, fmt.Sprintf("%d IPVS virtual servers", n))
	}
	if n := len(f.IPVS.Sets); n > 0 {
		all = append(all, fmt.Sprintf("%d IP sets", n))
	}
	if f.IPVS.Device {
		all = append(all, "device "+ipvsDevice)
	}
	return all
}

// String formats t as nft does.
func (t NFTable) String() string {
	return fmt.Sprintf("nftables table %s %s (%d chains)", t.Family, proxyTable, t.Chains)
}
