package watch

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebb-lb/ebb/agent/service"
)

// The rules here are those of the API server that a proxy relies on; a
// directory has no API server in front of it.

func validateService(svc *corev1.Service) field.ErrorList {
	errs := validateMeta(svc.ObjectMeta, true)
	spec := field.NewPath("spec")
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return errs
	}
	errs = append(errs, validateClusterIPs(svc, spec)...)
	errs = append(errs, validateAddrs(svc.Spec.ExternalIPs, spec.Child("externalIPs"))...)
	for i, in := range svc.Status.LoadBalancer.Ingress {
		path := field.NewPath("status", "loadBalancer", "ingress").Index(i)
		if in.IP != "" {
			errs = append(errs, validateAddr(in.IP, path.Child("ip"))...)
		}
		if in.IPMode != nil {
			errs = append(errs, oneOf(*in.IPMode, path.Child("ipMode"),
				corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy)...)
		}
	}
	errs = append(errs, oneOf(svc.Spec.ExternalTrafficPolicy, spec.Child("externalTrafficPolicy"), "",
		corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	errs = append(errs, oneOf(deref(svc.Spec.InternalTrafficPolicy, ""), spec.Child("internalTrafficPolicy"), "",
		corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	errs = append(errs, oneOf(svc.Spec.Type, spec.Child("type"), "", corev1.ServiceTypeClusterIP,
		corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)...)
	return append(errs, validateServicePorts(svc.Spec.Ports, spec.Child("ports"))...)
}

func validateClusterIPs(svc *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	first := svc.Spec.ClusterIP
	if ips := svc.Spec.ClusterIPs; len(ips) > 0 && first != "" && ips[0] != first {
		errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), ips[0], "must be spec.clusterIP"))
	}
	if first != "" && first != corev1.ClusterIPNone {
		errs = append(errs, validateAddr(first, spec.Child("clusterIP"))...)
	}
	if !slices.Equal(svc.Spec.ClusterIPs, []string{corev1.ClusterIPNone}) {
		errs = append(errs, validateAddrs(svc.Spec.ClusterIPs, spec.Child("clusterIPs"))...)
	}
	return errs
}

func validateServicePorts(ports []corev1.ServicePort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[service.PortKey]bool{}
	numbers := map[service.SlicePort]bool{}
	for i, p := range ports {
		at := path.Index(i)
		errs = append(errs, validatePortName(p.Name, at.Child("name"))...)
		errs = append(errs, validatePort(p.Port, at.Child("port"))...)
		if p.NodePort != 0 {
			errs = append(errs, validatePort(p.NodePort, at.Child("nodePort"))...)
		}
		errs = append(errs, validateProtocol(p.Protocol, at.Child("protocol"))...)
		proto, ok := protocol(p.Protocol)
		if !ok {
			continue
		}
		name := service.PortKey{Name: p.Name, Proto: proto}
		number := service.SlicePort{PortKey: service.PortKey{Proto: proto}, Port: uint16(p.Port)}
		if names[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		if numbers[number] {
			errs = append(errs, field.Duplicate(at.Child("port"), p.Port))
		}
		names[name], numbers[number] = true, true
	}
	return errs
}

func validateSlice(slice *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validateMeta(slice.ObjectMeta, false)
	if slice.Labels[discoveryv1.LabelServiceName] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "labels").Key(discoveryv1.LabelServiceName),
			"names the service of the slice"))
	}
	errs = append(errs, oneOf(slice.AddressType, field.NewPath("addressType"), discoveryv1.AddressTypeIPv4,
		discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN)...)
	for i, p := range slice.Ports {
		at := field.NewPath("ports").Index(i)
		errs = append(errs, validatePortName(deref(p.Name, ""), at.Child("name"))...)
		errs = append(errs, validateProtocol(deref(p.Protocol, ""), at.Child("protocol"))...)
		if p.Port != nil {
			errs = append(errs, validatePort(*p.Port, at.Child("port"))...)
		}
	}
	if slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 {
		return errs
	}
	for i, ep := range slice.Endpoints {
		at := field.NewPath("endpoints").Index(i).Child("addresses")
		errs = append(errs, validateEndpointAddrs(ep.Addresses, slice.AddressType, at)...)
	}
	return errs
}

func validateEndpointAddrs(addrs []string, family discoveryv1.AddressType, path *field.Path) field.ErrorList {
	if len(addrs) == 0 {
		return field.ErrorList{field.Required(path, "must contain an address")}
	}
	errs := validateAddrs(addrs, path)
	for i, text := range addrs {
		addr, ok := parseAddr(text)
		if ok && addr.Is4() != (family == discoveryv1.AddressTypeIPv4) {
			errs = append(errs, field.Invalid(path.Index(i), text, "must be of addressType "+string(family)))
		}
	}
	return errs
}

func validateNode(node *corev1.Node) field.ErrorList {
	errs := validateMeta(node.ObjectMeta, false)
	for i, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			path := field.NewPath("status", "addresses").Index(i).Child("address")
			errs = append(errs, validateAddr(a.Address, path)...)
		}
	}
	return errs
}

// validateMeta bounds the names that reach the maps to what fits there: label
// names a service, otherwise a name may have dots.
func validateMeta(meta metav1.ObjectMeta, label bool) field.ErrorList {
	path := field.NewPath("metadata")
	if meta.Name == "" {
		return field.ErrorList{field.Required(path.Child("name"), "")}
	}
	check := validation.IsDNS1123Subdomain
	if label {
		check = validation.IsDNS1123Label
	}
	errs := invalid(path.Child("name"), meta.Name, check(meta.Name))
	if meta.Namespace != "" {
		errs = append(errs, invalid(path.Child("namespace"), meta.Namespace, validation.IsDNS1123Label(meta.Namespace))...)
	}
	return errs
}

func validatePortName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return nil
	}
	return invalid(path, name, validation.IsDNS1123Label(name))
}

func validatePort(port int32, path *field.Path) field.ErrorList {
	return invalid(path, port, validation.IsValidPortNum(int(port)))
}

func validateProtocol(p corev1.Protocol, path *field.Path) field.ErrorList {
	return oneOf(p, path, "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
}

func validateAddrs(texts []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, text := range texts {
		errs = append(errs, validateAddr(text, path.Index(i))...)
	}
	return errs
}

func validateAddr(text string, path *field.Path) field.ErrorList {
	addr, err := netip.ParseAddr(text)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(path, text, "must be an IP address")}
	case addr.Zone() != "" || addr.Is4In6() || addr.IsUnspecified() || addr.IsMulticast():
		return field.ErrorList{field.Invalid(path, text, "must be a unicast IP address without zone")}
	}
	return nil
}

// oneOf lists the allowed values, except the empty one, which means absent.
func oneOf[T ~string](v T, path *field.Path, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, v) {
		return nil
	}
	named := slices.DeleteFunc(slices.Clone(allowed), func(a T) bool { return a == "" })
	return field.ErrorList{field.NotSupported(path, v, named)}
}

func invalid[T any](path *field.Path, value T, reasons []string) field.ErrorList {
	var errs field.ErrorList
	for _, reason := range reasons {
		errs = append(errs, field.Invalid(path, value, reason))
	}
	return errs
}
