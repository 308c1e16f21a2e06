package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/ebb-lb/ebb/tests/lab/suite"
)

// missingError says that a contender needs something that is not there.
type missingError struct{ what string }

func (e *missingError) Error() string { return e.what }

const (
	// servicesAtOnce is how many Services are loaded in one transaction: its duration
	// grows with the square of their number.
	servicesAtOnce = 500
)

// installRules loads the rules on the node. Every turn begins with an empty
// connection table: it has a limit, and flows of earlier turns would fill it.
func installRules(ctx context.Context, w *world) error {
	if _, err := exec.LookPath("nft"); err != nil {
		return &missingError{"nft is not installed"}
	}
	if err := suite.Nft(ctx, w.node.NS, "list tables"); err != nil {
		return &missingError{fmt.Sprintf("the kernel may have no nftables: %v", err)}
	}
	if err := suite.Nft(ctx, w.node.NS, fmt.Sprintf(tableOfKubeProxy, w.node.Addr4, serviceCIDR)); err != nil {
		return fmt.Errorf("load rules: %w", err)
	}
	for some := range slices.Chunk(clusterServices(w), servicesAtOnce) {
		if err := suite.Nft(ctx, w.node.NS, serviceRules(some)); err != nil {
			return fmt.Errorf("load rules of Services: %w", err)
		}
	}
	w.forget = func() error {
		return w.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	}
	return nil
}

// serviceRules returns what kube-proxy adds to its table for Services: a map leads to
// the chain of a port, which goes at random to that of an endpoint, which translates.
func serviceRules(services []service) string {
	var clusterIPs, serviceIPs, chains []string
	for _, s := range services {
		clusterIPs = append(clusterIPs, s.addr.String())
		for _, proto := range s.protocols {
			chain := fmt.Sprintf("service-%s/%s", s.name, proto)
			serviceIPs = append(serviceIPs, fmt.Sprintf("%s . %s . %d : goto %s", s.addr, proto, servicePort, chain))
			chains = append(chains, serviceChains(chain, proto, s))
		}
	}
	return fmt.Sprintf(`table ip kube-proxy {
	set cluster-ips {
		type ipv4_addr
		elements = { %s }
	}
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { %s }
	}
%s}
`, strings.Join(clusterIPs, ", "), strings.Join(serviceIPs, ", "), strings.Join(chains, ""))
}

// serviceChains returns the chain of a port of s and those of its endpoints.
func serviceChains(chain, proto string, s service) string {
	var endpoints strings.Builder
	var choice []string
	for i, e := range s.endpoints {
		name := fmt.Sprintf("endpoint-%s/%s__%s/%d", s.name, proto, e.addr, podPort)
		choice = append(choice, fmt.Sprintf("%d : goto %s", i, name))
		fmt.Fprintf(&endpoints, `	chain %s {
		ip saddr %s jump mark-for-masquerade
		meta l4proto %s dnat to %s:%d
	}
`, name, e.addr, proto, e.addr, podPort)
	}
	return fmt.Sprintf(`	chain %s {
		ip daddr %s %s dport %d ip saddr != %s jump mark-for-masquerade
		numgen random mod %d vmap { %s }
	}
%s`, chain, s.addr, proto, servicePort, clusterCIDR, len(choice), strings.Join(choice, ", "), endpoints.String())
}

// tableOfKubeProxy is the table that kube-proxy --proxy-mode=nftables makes before it
// adds Services. Maps that stay empty with the Services of the benchmark are
// looked up as well.
const tableOfKubeProxy = `table ip kube-proxy {
	set cluster-ips { type ipv4_addr; }
	set nodeport-ips {
		type ipv4_addr
		elements = { %s }
	}
	map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
	map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
	map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
	map service-nodeports { type inet_proto . inet_service : verdict; }
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
	chain filter-prerouting-pre-dnat {
		type filter hook prerouting priority -110
		ct state new jump firewall-check
	}
	chain filter-output-pre-dnat {
		type filter hook output priority -110
		ct state new jump firewall-check
	}
	chain filter-forward {
		type filter hook forward priority 0
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}
	chain filter-input {
		type filter hook input priority 0
		ct state new jump nodeport-endpoints-check
		ct state new jump service-endpoints-check
	}
	chain filter-output {
		type filter hook output priority 0
		ct state new jump service-endpoints-check
		ct state new jump cluster-ips-check
	}
	chain nat-prerouting {
		type nat hook prerouting priority -100
		jump services
	}
	chain nat-output {
		type nat hook output priority -100
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority 100
		jump masquerading
	}
	chain firewall-check {
		ip daddr . meta l4proto . th dport vmap @firewall-ips
	}
	chain service-endpoints-check {
		ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}
	chain nodeport-endpoints-check {
		ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
	}
	chain cluster-ips-check {
		ip daddr @cluster-ips reject
		ip daddr { %s } drop
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
		ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
	}
	chain masquerading {
		meta mark & 0x4000 == 0 return
		meta mark set meta mark ^ 0x4000
		masquerade fully-random
	}
	chain mark-for-masquerade {
		meta mark set meta mark | 0x4000
	}
}
`
