package kubeproxy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// kind is the type of a key.
type kind int

const (
	str            kind = iota
	ownAddress          // a string; an unspecified address is none
	boolean             // false is none
	trueBoolean         // true is none
	number              // 0 is none
	optionalNumber      // 0 is a value
	duration            // 0 is none
	optionalDuration
	list // of strings
	mapping
	anything
)

func (k kind) String() string {
	return map[kind]string{
		str: "a string", ownAddress: "a string", boolean: "true or false", trueBoolean: "true or false", number: "a number", optionalNumber: "a number",
		duration: "a duration as 30s or 1h", optionalDuration: "a duration as 30s or 1h", list: "a list of strings", mapping: "a map",
		anything: "anything",
	}[k]
}

// value is a value of the kind that its key has.
type value struct {
	text string // as a person writes it
	list []string
	set  bool // neither null nor what stands for the default
}

// parse takes what JSON has.
func (k kind) parse(raw any) (value, error) {
	if raw == nil {
		return value{}, nil
	}
	switch k {
	case str, ownAddress:
		s, ok := raw.(string)
		return value{text: s, set: s != "" && (k == str || !unspecified(s))}, k.must(ok, raw)
	case boolean, trueBoolean:
		b, ok := raw.(bool)
		return value{text: fmt.Sprint(b), set: b == (k == boolean)}, k.must(ok, raw)
	case number, optionalNumber:
		n, ok := raw.(json.Number)
		return value{text: n.String(), set: k == optionalNumber || n.String() != "0"}, k.must(ok, raw)
	case duration, optionalDuration:
		return k.parseDuration(raw)
	case list:
		return k.parseList(raw)
	}
	text, err := json.Marshal(raw)
	return value{text: string(text), set: !slices.Contains([]string{"{}", "[]", "0", `"0"`, `"0s"`, `""`}, string(text))}, err
}

func unspecified(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsUnspecified()
}

func (k kind) must(ok bool, raw any) error {
	if ok {
		return nil
	}
	text, err := json.Marshal(raw)
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: must be %v", text, k)
}

func (k kind) parseDuration(raw any) (value, error) {
	s, ok := raw.(string)
	d, err := time.ParseDuration(s)
	return value{text: d.String(), set: k == optionalDuration || d != 0}, k.must(ok && err == nil, raw)
}

func (k kind) parseList(raw any) (value, error) {
	items, ok := raw.([]any)
	var v value
	for _, item := range items {
		s, isString := item.(string)
		ok = ok && isString
		v.list = append(v.list, s)
	}
	v.text, v.set = strings.Join(v.list, ","), len(v.list) > 0
	return v, k.must(ok, raw)
}
