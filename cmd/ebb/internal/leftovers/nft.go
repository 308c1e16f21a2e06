package leftovers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const proxyTable = "kube-proxy"

// nftList is what nft -j list says.
type nftList struct {
	Objects []struct {
		Table *nftTable
		Chain *nftChain
	} `json:"nftables"`
}

type nftTable struct{ Family, Name string }

type nftChain struct {
	Family, Table, Name, Type string
}

// nft is the ruleset of nftables, as far as it matters here.
type nft struct {
	known  bool // whether nft is there
	proxy  []NFTable
	others []nftTable
	chains []nftChain // of others
}

func listNFT(ctx context.Context, m Machine) (nft, error) {
	if !m.Has("nft") {
		return nft{}, nil
	}
	var list nftList
	for _, what := range []string{"tables", "chains"} {
		out, err := m.Run(ctx, "", "nft", "-j", "list", what)
		if err != nil {
			return nft{}, err
		}
		var l nftList
		if err := json.Unmarshal([]byte(out), &l); err != nil {
			return nft{}, fmt.Errorf("nft -j list %s: %w", what, err)
		}
		list.Objects = append(list.Objects, l.Objects...)
	}
	return list.read(), nil
}

func (l nftList) read() nft {
	n := nft{known: true}
	counts, endpoints := map[string]int{}, map[string]int{}
	for _, o := range l.Objects {
		if c := o.Chain; c != nil && kubeProxys(c.Family, c.Table) {
			counts[c.Family]++
			if strings.HasPrefix(c.Name, "endpoint-") || strings.HasPrefix(c.Name, "service-") && strings.Contains(c.Name, "/") {
				endpoints[c.Family]++
			}
		} else if c != nil {
			n.chains = append(n.chains, *c)
		}
	}
	for _, o := range l.Objects {
		if t := o.Table; t != nil && kubeProxys(t.Family, t.Name) {
			n.proxy = append(n.proxy, NFTable{Family: t.Family, Chains: counts[t.Family], Endpoints: endpoints[t.Family]})
		} else if t != nil {
			n.others = append(n.others, *t)
		}
	}
	return n
}

func kubeProxys(family, table string) bool {
	return table == proxyTable && (family == "ip" || family == "ip6")
}

// translates reports whether another table than kube-proxy's has a chain for NAT of a
// family.
func (n nft) translates(family string) bool {
	for _, c := range n.chains {
		if c.Type == "nat" && (c.Family == family || c.Family == "inet") {
			return true
		}
	}
	return false
}

// owned returns the tables of a family in which iptables has put chains of
// kube-proxy.
func (n nft) owned(family string) []string {
	var tables []string
	for _, c := range n.chains {
		if c.Family == family && owned(c.Table, c.Name) && !slices.Contains(tables, c.Table) {
			tables = append(tables, c.Table)
		}
	}
	return tables
}
