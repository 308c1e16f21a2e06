package drain

import (
	"fmt"
	"strings"

	"github.com/ebb-lb/ebb/agent/service"
)

// Kind is where on a Node object a signal is.
type Kind string

// The kinds of signals.
const (
	Taint      Kind = "taint"
	Label      Kind = "label"
	Annotation Kind = "annotation"
)

// Signal is something on a Node object that drains the node.
type Signal struct {
	Kind Kind
	Key  string
	// Value is the only value that counts; nil: any.
	Value *string
}

// ParseSignal reads KIND:KEY or KIND:KEY=VALUE.
func ParseSignal(text string) (Signal, error) {
	kind, rest, _ := strings.Cut(text, ":")
	key, value, hasValue := strings.Cut(rest, "=")
	s := Signal{Kind: Kind(kind), Key: key}
	switch s.Kind {
	case Taint, Label, Annotation:
	default:
		return Signal{}, fmt.Errorf("drain signal %q: want KIND:KEY with a kind of taint, label or annotation", text)
	}
	if key == "" || strings.ContainsAny(rest, " \t:") {
		return Signal{}, fmt.Errorf("drain signal %q: want KIND:KEY or KIND:KEY=VALUE", text)
	}
	if hasValue {
		s.Value = &value
	}
	return s, nil
}

// String formats s as ParseSignal reads it.
func (s Signal) String() string {
	text := string(s.Kind) + ":" + s.Key
	if s.Value != nil {
		text += "=" + *s.Value
	}
	return text
}

func (s Signal) isOn(n service.Node) bool {
	switch s.Kind {
	case Taint: // whatever its effect
		for _, t := range n.Taints {
			if t.Key == s.Key && s.accepts(t.Value) {
				return true
			}
		}
		return false
	case Label:
		return s.isIn(n.Labels)
	case Annotation:
		return s.isIn(n.Annotations)
	}
	return false
}

func (s Signal) isIn(entries map[string]string) bool {
	value, ok := entries[s.Key]
	return ok && s.accepts(value)
}

func (s Signal) accepts(value string) bool { return s.Value == nil || *s.Value == value }

// Keys returns the keys of the signals of one kind: what a source has to keep.
func Keys(signals []Signal, kind Kind) []string {
	var keys []string
	for _, s := range signals {
		if s.Kind == kind {
			keys = append(keys, s.Key)
		}
	}
	return keys
}
