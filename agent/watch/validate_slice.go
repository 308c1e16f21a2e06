package watch

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateSlice(slice *discoveryv1.EndpointSlice) field.ErrorList {
	errs := validateMeta(slice.ObjectMeta, false)
	if slice.Labels[discoveryv1.LabelServiceName] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "labels").Key(discoveryv1.LabelServiceName),
			"names the service of the slice"))
	}
	errs = append(errs, validateTrigger(slice.Annotations)...)
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
		at := field.NewPath("endpoints").Index(i)
		errs = append(errs, validateEndpointAddrs(ep.Addresses, slice.AddressType, at.Child("addresses"))...)
		errs = append(errs, validateHints(ep.Hints, at.Child("hints"))...)
	}
	return errs
}

func validateTrigger(annotations map[string]string) field.ErrorList {
	text, ok := annotations[corev1.EndpointsLastChangeTriggerTime]
	if _, err := time.Parse(time.RFC3339Nano, text); ok && err != nil {
		path := field.NewPath("metadata", "annotations").Key(corev1.EndpointsLastChangeTriggerTime)
		return field.ErrorList{field.Invalid(path, text, "must be a time as in RFC 3339")}
	}
	return nil
}

func validateHints(hints *discoveryv1.EndpointHints, path *field.Path) field.ErrorList {
	if hints == nil {
		return nil
	}
	var errs field.ErrorList
	for i, z := range hints.ForZones {
		errs = append(errs, validateName(z.Name, path.Child("forZones").Index(i).Child("name"), validation.IsValidLabelValue)...)
	}
	for i, n := range hints.ForNodes {
		errs = append(errs, validateName(n.Name, path.Child("forNodes").Index(i).Child("name"), validation.IsDNS1123Subdomain)...)
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
