package watch

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateNode(node *corev1.Node) field.ErrorList {
	errs := validateMeta(node.ObjectMeta, false)
	for i, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			path := field.NewPath("status", "addresses").Index(i).Child("address")
			errs = append(errs, validateAddr(a.Address, path)...)
		}
	}
	errs = append(errs, validateZone(node.Labels)...)
	errs = append(errs, validatePodCIDRs(node.Spec)...)
	for i, t := range node.Spec.Taints {
		errs = append(errs, validateTaint(t, field.NewPath("spec", "taints").Index(i))...)
	}
	return errs
}

func validateZone(labels map[string]string) field.ErrorList {
	path := field.NewPath("metadata", "labels").Key(corev1.LabelTopologyZone)
	zone := labels[corev1.LabelTopologyZone]
	return invalid(path, zone, validation.IsValidLabelValue(zone))
}

func validatePodCIDRs(node corev1.NodeSpec) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec")
	if node.PodCIDR != "" {
		errs = validatePrefix(node.PodCIDR, path.Child("podCIDR"))
	}
	for i, text := range node.PodCIDRs {
		errs = append(errs, validatePrefix(text, path.Child("podCIDRs").Index(i))...)
	}
	return errs
}

func validateTaint(t corev1.Taint, path *field.Path) field.ErrorList {
	errs := validateName(t.Key, path.Child("key"), validation.IsQualifiedName)
	errs = append(errs, invalid(path.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
	return append(errs, oneOf(t.Effect, path.Child("effect"), corev1.TaintEffectNoSchedule,
		corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
}

func validateServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	errs := validateMeta(c.ObjectMeta, false)
	path := field.NewPath("spec", "cidrs")
	if len(c.Spec.CIDRs) == 0 {
		errs = append(errs, field.Required(path, "must contain a range"))
	}
	seen := map[bool]bool{} // by family
	for i, text := range c.Spec.CIDRs {
		p, ok := parsePrefix(text)
		v4 := p.Addr().Is4()
		switch {
		case !ok:
			errs = append(errs, validatePrefix(text, path.Index(i))...)
		case seen[v4]:
			errs = append(errs, field.Invalid(path.Index(i), text, "must be the only range of its family"))
		default:
			seen[v4] = true
		}
	}
	return errs
}
