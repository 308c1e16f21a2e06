package watch

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/ebb-lb/ebb/agent/service"
)

func validateService(svc *corev1.Service) field.ErrorList {
	errs := validateMeta(svc.ObjectMeta, true)
	spec := field.NewPath("spec")
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return errs
	}
	errs = append(errs, validateClusterIPs(svc, spec)...)
	errs = append(errs, validateAddrs(svc.Spec.ExternalIPs, spec.Child("externalIPs"))...)
	errs = append(errs, validateLoadBalancer(svc, spec)...)
	errs = append(errs, validateAffinity(svc.Spec, spec)...)
	errs = append(errs, oneOf(svc.Spec.ExternalTrafficPolicy, spec.Child("externalTrafficPolicy"), "",
		corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	errs = append(errs, oneOf(deref(svc.Spec.InternalTrafficPolicy, ""), spec.Child("internalTrafficPolicy"), "",
		corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	errs = append(errs, oneOf(svc.Spec.Type, spec.Child("type"), "", corev1.ServiceTypeClusterIP,
		corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)...)
	return append(errs, validateServicePorts(svc.Spec.Ports, spec.Child("ports"))...)
}

func validateLoadBalancer(svc *corev1.Service, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, text := range svc.Spec.LoadBalancerSourceRanges {
		errs = append(errs, validatePrefix(text, spec.Child("loadBalancerSourceRanges").Index(i))...)
	}
	if p := svc.Spec.HealthCheckNodePort; p != 0 {
		errs = append(errs, validatePort(p, spec.Child("healthCheckNodePort"))...)
	}
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
	return errs
}

func validateAffinity(svc corev1.ServiceSpec, spec *field.Path) field.ErrorList {
	errs := oneOf(svc.SessionAffinity, spec.Child("sessionAffinity"), "",
		corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	path := spec.Child("sessionAffinityConfig")
	c := svc.SessionAffinityConfig
	if c != nil && svc.SessionAffinity != corev1.ServiceAffinityClientIP {
		errs = append(errs, field.Forbidden(path, "must be absent unless sessionAffinity is ClientIP"))
	}
	if c == nil || c.ClientIP == nil {
		return errs
	}
	if s := deref(c.ClientIP.TimeoutSeconds, defaultAffinityTimeout); s < 1 || s > maxAffinityTimeout {
		errs = append(errs, field.Invalid(path.Child("clientIP", "timeoutSeconds"), s,
			fmt.Sprintf("must be between 1 and %d", maxAffinityTimeout)))
	}
	return errs
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
