// Package leftovers knows what kube-proxy leaves in the kernel of a node: its
// nftables table, its iptables chains and the jumps to them, its IPVS virtual
// servers, sets and device. It finds all of that, and removes it and nothing
// else, by the programs of the machine.
package leftovers
