package leftovers

import (
	"context"
	"fmt"
	"net/netip"
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
		if err := f.lookAll(ctx, m, n, &found); err != nil {
			return found, fmt.Errorf("look for rules of %s: %w", f.program, err)
		}
	}
	if err := lookIPVS(ctx, m, spared, &found); err != nil {
		return found, fmt.Errorf("look for IPVS: %w", err)
	}
	return found, nil
}

// lookAll adds what the backends of f have, and whether the kernel goes on translating
// without it.
func (f family) lookAll(ctx context.Context, m Machine, n nft, found *Found) error {
	left, err := f.look(ctx, m, n, found)
	if err != nil || !found.translates(f.name) {
		return err
	}
	others, err := n.remains(ctx, m, f.name)
	if left = left.or(others); !left.translates || !left.tracks {
		found.NoOtherNAT = append(found.NoOtherNAT, f.name)
	}
	return err
}
