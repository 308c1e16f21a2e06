package watch

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/ebb-lb/ebb/agent/service"
)

// convertNode returns what a proxy needs of its own node.
func convertNode(node *corev1.Node, opts Options) service.Node {
	converted := service.Node{
		Name:        node.Name,
		Known:       true,
		Deleting:    node.DeletionTimestamp != nil,
		Addrs:       nodeAddrs(node.Status.Addresses),
		PodCIDRs:    parsePrefixes(podCIDRs(node.Spec)),
		Zone:        node.Labels[corev1.LabelTopologyZone],
		Labels:      entriesOf(opts.NodeLabels, node.Labels),
		Annotations: entriesOf(opts.NodeAnnotations, node.Annotations),
	}
	for _, t := range node.Spec.Taints {
		converted.Taints = append(converted.Taints, service.Taint{Key: t.Key, Value: t.Value, Effect: string(t.Effect)})
	}
	return converted
}

// nodeAddrs puts the internal addresses first.
func nodeAddrs(addresses []corev1.NodeAddress) []netip.Addr {
	var addrs []netip.Addr
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range addresses {
			addr, ok := parseAddr(a.Address)
			if a.Type == kind && ok && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// podCIDRs is spec.podCIDRs; hand-written objects may have only the older
// spec.podCIDR.
func podCIDRs(spec corev1.NodeSpec) []string {
	if len(spec.PodCIDRs) == 0 && spec.PodCIDR != "" {
		return []string{spec.PodCIDR}
	}
	return spec.PodCIDRs
}

// entriesOf returns those of the entries that have one of the keys.
func entriesOf(keys []string, entries map[string]string) map[string]string {
	var kept map[string]string
	for _, key := range keys {
		if value, ok := entries[key]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}

// convertServiceCIDR returns the ranges of c. Its conditions do not count: as
// long as it exists, addresses of it may be in use.
func convertServiceCIDR(c *networkingv1.ServiceCIDR) []netip.Prefix {
	return parsePrefixes(c.Spec.CIDRs)
}
