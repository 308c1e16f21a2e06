package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"

	"github.com/ebb-lb/ebb/agent/service"
)

// content is what a set of manifests says.
type content struct {
	service.Content
	// ignored says what was understood but is not balanced, and why.
	ignored []string
}

// parse reads all manifests. Its error joins everything that is wrong in any
// document; then the content must not be used.
func parse(files []manifestFile, opts Options) (content, error) {
	p := parser{opts: opts, places: map[string]string{}}
	p.content.Node = opts.unknownNode()
	p.content.ServiceCIDRs = map[string][]netip.Prefix{}
	for _, f := range files {
		for _, doc := range documents(f) {
			switch {
			case doc.err != nil:
				p.errs = append(p.errs, doc.err)
			case doc.json != nil:
				p.object(doc.place, doc.json)
			}
		}
	}
	return p.content, errors.Join(p.errs...)
}

type parser struct {
	opts    Options
	content content
	places  map[string]string // object → where it was found
	errs    []error
}

// header is what every object has.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

func (p *parser) object(place string, data []byte) {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &h); err != nil {
		p.fail(place, typeError(err))
		return
	}
	group, version := "", h.APIVersion
	if i := strings.IndexByte(version, '/'); i >= 0 {
		group, version = version[:i], version[i+1:]
	}
	switch {
	case h.Kind == "" || version == "":
		p.fail(place, errors.New("apiVersion and kind are required"))
	case (group + "/" + h.Kind) == "/List":
		p.only(place, h, version, p.list, data)
	case (group + "/" + h.Kind) == "/Service":
		p.only(place, h, version, p.service, data)
	case (group + "/" + h.Kind) == "/Node":
		p.only(place, h, version, p.node, data)
	case (group + "/" + h.Kind) == discoveryv1.GroupName+"/EndpointSlice":
		p.only(place, h, version, p.slice, data)
	case (group + "/" + h.Kind) == networkingv1.GroupName+"/ServiceCIDR":
		p.only(place, h, version, p.serviceCIDR, data)
	default:
		p.content.ignored = append(p.content.ignored,
			fmt.Sprintf("%s: kind %s of %s is not used", place, h.Kind, h.APIVersion))
	}
}

// only refuses other versions than v1 of a kind that is known: to ignore them
// would silently lose a service.
func (p *parser) only(place string, h header, version string, read func(place string, data []byte), data []byte) {
	if version != "v1" {
		p.fail(place+": "+h.Kind, fmt.Errorf("apiVersion %q: only v1 is supported", h.APIVersion))
		return
	}
	read(place, data)
}

func (p *parser) list(place string, data []byte) {
	var list struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   json.RawMessage   `json:"metadata"`
		Items      []json.RawMessage `json:"items"`
	}
	if !p.decode(place+": List", data, &list) {
		return
	}
	for i, item := range list.Items {
		p.object(fmt.Sprintf("%s: items[%d]", place, i), item)
	}
}

func (p *parser) service(place string, data []byte) {
	var svc corev1.Service
	id := identify(data, "Service", true)
	if !p.decode(place+": "+id, data, &svc) {
		return
	}
	if !p.accept(place, id, validateService(&svc)) {
		return
	}
	svc.Namespace = orDefault(svc.Namespace)
	converted, ok := convertService(&svc, p.opts.ServiceProxyName)
	if !ok {
		p.content.ignored = append(p.content.ignored,
			fmt.Sprintf("%s: %s is not balanced: %s", place, id, ignoredBecause(&svc, p.opts.ServiceProxyName)))
		return
	}
	p.content.Services = append(p.content.Services, converted)
}

func (p *parser) slice(place string, data []byte) {
	var slice discoveryv1.EndpointSlice
	id := identify(data, "EndpointSlice", true)
	if !p.decode(place+": "+id, data, &slice) {
		return
	}
	if !p.accept(place, id, validateSlice(&slice)) {
		return
	}
	slice.Namespace = orDefault(slice.Namespace)
	for i := range slice.Ports {
		if slice.Ports[i].Name == nil { // as the API server does
			slice.Ports[i].Name = new(string)
		}
	}
	if converted, ok := convertSlice(&slice); ok {
		p.content.Slices = append(p.content.Slices, converted)
	}
}

func (p *parser) node(place string, data []byte) {
	var node corev1.Node
	id := identify(data, "Node", false)
	if !p.decode(place+": "+id, data, &node) {
		return
	}
	if p.accept(place, id, validateNode(&node)) && node.Name == p.opts.NodeName {
		p.content.Node = convertNode(&node, p.opts)
	}
}

func (p *parser) serviceCIDR(place string, data []byte) {
	var cidr networkingv1.ServiceCIDR
	id := identify(data, "ServiceCIDR", false)
	if p.decode(place+": "+id, data, &cidr) && p.accept(place, id, validateServiceCIDR(&cidr)) {
		p.content.ServiceCIDRs[cidr.Name] = convertServiceCIDR(&cidr)
	}
}

// decode fills into and refuses fields it does not have.
func (p *parser) decode(where string, data []byte, into any) bool {
	strict, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		p.fail(where, typeError(err))
		return false
	}
	for _, err := range strict {
		p.fail(where, err)
	}
	return len(strict) == 0
}

// accept reports whether an object is valid and the first of its name.
func (p *parser) accept(place, id string, invalid field.ErrorList) bool {
	for _, err := range invalid {
		p.fail(place+": "+id, err)
	}
	if len(invalid) > 0 {
		return false
	}
	if first, ok := p.places[id]; ok {
		p.fail(place+": "+id, fmt.Errorf("already defined in %s", first))
		return false
	}
	p.places[id] = place
	return true
}

func (p *parser) fail(where string, err error) {
	p.errs = append(p.errs, fmt.Errorf("%s: %w", where, err))
}

// identify names an object in messages, even if it cannot be decoded.
func identify(data []byte, kind string, namespaced bool) string {
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &h); err != nil || h.Metadata.Name == "" {
		return kind
	}
	if !namespaced {
		return kind + " " + h.Metadata.Name
	}
	return kind + " " + orDefault(h.Metadata.Namespace) + "/" + h.Metadata.Name
}

func orDefault(namespace string) string {
	if namespace == "" {
		return corev1.NamespaceDefault
	}
	return namespace
}

// typeError says what the decoder says, with the field first as in the other
// errors.
func typeError(err error) error {
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &mismatch) {
		return err
	}
	if mismatch.Field == "" {
		return fmt.Errorf("%s where an object is wanted", mismatch.Value)
	}
	return fmt.Errorf("field %q: %s where %s is wanted", mismatch.Field, mismatch.Value, mismatch.Type)
}
