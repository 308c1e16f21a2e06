package leftovers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
)

// Look finds what kube-proxy has left on m. It changes nothing. IPVS virtual servers at
// addresses in spared are not counted. What cannot be looked at is in Found.Unknown; the
// error is that of a program that failed.
func Look(ctx context.Context, m Machine, spared []netip.Prefix) (Found, error) {
	var found Found
	n, err := listNFT(ctx, m)
	if err != nil {
		return found, fmt.Errorf("look for rules of nftables: %w", err)
	}
	if !n.known {
		found.Unknown = append(found.Unknown, "tables of nftables are not known: nft is not in PATH; install the package nftables")
	}
	found.NFTables = n.proxy
	for _, f := range families() {
		if err := f.look(ctx, m, n, &found); err != nil {
			return found, fmt.Errorf("look for rules of %s: %w", f.program, err)
		}
		last, err := f.lastNAT(m, n)
		if err != nil {
			return found, err
		}
		if last {
			found.NoOtherNAT = append(found.NoOtherNAT, f.name)
		}
	}
	if err := lookIPVS(ctx, m, spared, &found); err != nil {
		return found, fmt.Errorf("look for IPVS: %w", err)
	}
	return found, nil
}

// lastNAT reports whether the kernel stops translating connections of f with the
// table of kube-proxy.
func (f family) lastNAT(m Machine, n nft) (bool, error) {
	if !slices.ContainsFunc(n.proxy, func(t NFTable) bool { return t.Family == f.name }) || n.translates(f.name) {
		return false, nil
	}
	legacy, err := f.legacyTables(m)
	return !slices.Contains(legacy, "nat"), err
}
