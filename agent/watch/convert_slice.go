package watch

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/ebb-lb/ebb/agent/service"
)

// convertSlice returns what a proxy needs of slice; false if slice belongs to
// no service, names hosts instead of addresses, or is a headless service's.
//
// Whose business it is its Service decides, not the label the slice may have:
// that one follows the Service's only after a while, and slices written by hand
// need not have it.
func convertSlice(slice *discoveryv1.EndpointSlice) (*service.Slice, bool) {
	owner := slice.Labels[discoveryv1.LabelServiceName]
	_, headless := slice.Labels[corev1.IsHeadlessService]
	if owner == "" || headless || slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil, false
	}
	converted := &service.Slice{
		Key:     service.Name{Namespace: slice.Namespace, Name: slice.Name},
		Service: service.Name{Namespace: slice.Namespace, Name: owner},
		Ports:   slicePorts(slice.Ports),

		Triggered: triggerTime(slice.Annotations),
	}
	for _, ep := range slice.Endpoints {
		if e, ok := convertEndpoint(ep, slice); ok {
			converted.Endpoints = append(converted.Endpoints, e)
		}
	}
	return converted, true
}

// triggerTime is zero if the controller that wrote the slice does not say.
func triggerTime(annotations map[string]string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, annotations[corev1.EndpointsLastChangeTriggerTime])
	if err != nil {
		return time.Time{}
	}
	return at
}

func slicePorts(ports []discoveryv1.EndpointPort) []service.SlicePort {
	var converted []service.SlicePort
	for _, p := range ports {
		if p.Name == nil || p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
			continue
		}
		proto, ok := protocol(deref(p.Protocol, corev1.ProtocolTCP))
		if !ok {
			continue
		}
		converted = append(converted, service.SlicePort{
			PortKey: service.PortKey{Name: *p.Name, Proto: proto},
			Port:    uint16(*p.Port),
		})
	}
	return converted
}

// convertEndpoint uses the first address only: the API allows no other
// meaning for more than one. A condition that is absent is that of a healthy
// endpoint.
func convertEndpoint(ep discoveryv1.Endpoint, of *discoveryv1.EndpointSlice) (service.SliceEndpoint, bool) {
	if len(ep.Addresses) == 0 {
		return service.SliceEndpoint{}, false
	}
	addr, ok := parseAddr(ep.Addresses[0])
	if !ok || addr.Is4() != (of.AddressType == discoveryv1.AddressTypeIPv4) {
		return service.SliceEndpoint{}, false
	}
	return service.SliceEndpoint{
		Addr:        addr,
		NodeName:    deref(ep.NodeName, ""),
		Ready:       deref(ep.Conditions.Ready, true),
		Serving:     deref(ep.Conditions.Serving, true),
		Terminating: deref(ep.Conditions.Terminating, false),
		Pod:         podOf(ep.TargetRef, of.Namespace),
		ZoneHints:   zoneHints(ep.Hints),
		NodeHints:   nodeHints(ep.Hints),
	}, true
}

// podOf returns the pod behind an endpoint; zero if something else is.
func podOf(ref *corev1.ObjectReference, namespace string) service.Name {
	if ref == nil || ref.Kind != "Pod" {
		return service.Name{}
	}
	return service.Name{Namespace: cmp.Or(ref.Namespace, namespace), Name: ref.Name}
}

// nameless stands for a zone or node without a name, which is a hint, and for nobody:
// no name can have this form.
const nameless = "?"

func zoneHints(h *discoveryv1.EndpointHints) service.NameSet {
	if h == nil {
		return ""
	}
	var names []string
	for _, z := range h.ForZones {
		names = append(names, cmp.Or(z.Name, nameless))
	}
	return service.NewNameSet(names...)
}

func nodeHints(h *discoveryv1.EndpointHints) service.NameSet {
	if h == nil {
		return ""
	}
	var names []string
	for _, n := range h.ForNodes {
		names = append(names, cmp.Or(n.Name, nameless))
	}
	return service.NewNameSet(names...)
}
