package leftovers

import (
	"slices"
	"strings"
)

// Chains of kube-proxy by table, those of its IPVS mode too. All chains of the kubelet
// (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, and KUBE-MARK-DROP of old)
// and of network plugins have other names.
func fixedChains(table string) []string {
	switch table {
	case "nat":
		return []string{
			"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY",
			"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT",
		}
	case "filter":
		return []string{
			"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL",
			"KUBE-PROXY-CANARY", "KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
		}
	case "mangle":
		return []string{"KUBE-PROXY-CANARY"}
	}
	return nil
}

// hashLength is how much of a hash names the chain of a service port or an endpoint.
const hashLength = 16

// owned reports whether a chain is kube-proxy's.
func owned(table, chain string) bool {
	if slices.Contains(fixedChains(table), chain) {
		return true
	}
	if table != "nat" {
		return false
	}
	for _, prefix := range []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"} {
		if hash, ok := strings.CutPrefix(chain, prefix); ok {
			return len(hash) == hashLength && strings.Trim(hash, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
		}
	}
	return false
}

// entries are the chains of kube-proxy that it jumps to from chains of the kernel.
func entry(chain string) bool {
	return slices.Contains([]string{
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-POSTROUTING", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL",
		"KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
	}, chain)
}

const (
	markChain       = "KUBE-MARK-MASQ"
	masqueradeChain = "KUBE-POSTROUTING"
)

// split says what of a table is kube-proxy's and goes, and which of its chains stay
// because a rule of somebody else leads there.
func (s saved) split() (gone Table) {
	gone.Name = s.name
	kept := s.kept()
	for _, c := range s.chains {
		switch by, ok := kept[c.name]; {
		case ok:
			gone.Kept = append(gone.Kept, Kept{Chain: c.name, For: by})
		case owned(s.name, c.name):
			gone.Chains = append(gone.Chains, c.name)
		}
	}
	for _, r := range s.rules {
		if _, stays := kept[r.target]; !stays && owned(s.name, r.target) && !owned(s.name, r.chain) {
			gone.Jumps = append(gone.Jumps, "-D "+r.chain+" "+r.spec)
		}
	}
	return gone
}

// kept returns the chains of kube-proxy that rules of others lead to, with the chain
// such a rule is in. A mark needs who masquerades what has it.
func (s saved) kept() map[string]string {
	kept := map[string]string{}
	builtin := map[string]bool{}
	for _, c := range s.chains {
		builtin[c.name] = c.builtin()
	}
	var keep func(name, by string)
	keep = func(name, by string) {
		if kept[name] != "" || !owned(s.name, name) {
			return
		}
		kept[name] = by
		if name == markChain && slices.ContainsFunc(s.chains, func(c chain) bool { return c.name == masqueradeChain }) {
			keep(masqueradeChain, by)
		}
		for _, r := range s.rules {
			if r.chain == name {
				keep(r.target, by)
			}
		}
	}
	for _, r := range s.rules {
		if owned(s.name, r.target) && !owned(s.name, r.chain) && !(builtin[r.chain] && entry(r.target)) {
			keep(r.target, r.chain)
		}
	}
	return kept
}
