package watch

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The rules here are those of the API server that a proxy relies on; a
// directory has no API server in front of it.

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

// validateName is for names that must be there.
func validateName(name string, path *field.Path, check func(string) []string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return invalid(path, name, check(name))
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

func validatePrefix(text string, path *field.Path) field.ErrorList {
	if _, ok := parsePrefix(text); !ok {
		return field.ErrorList{field.Invalid(path, text, "must be a range such as 10.0.0.0/8 or 2001:db8::/32")}
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
