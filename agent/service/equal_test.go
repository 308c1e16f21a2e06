package service

import (
	"net/netip"
	"reflect"
	"testing"
)

// fill sets v to something that is not its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[netip.Addr]() {
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.1")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Struct:
		fill(t, v.Field(0))
	default:
		t.Fatalf("a field of type %v: teach fill about it", v.Type())
	}
}

// eachField calls f once per field of T, with a T in which it alone is set.
func eachField[T any](t *testing.T, f func(field string, v *T)) {
	t.Helper()
	typ := reflect.TypeFor[T]()
	for i := range typ.NumField() {
		v := new(T)
		fill(t, reflect.ValueOf(v).Elem().Field(i))
		f(typ.Field(i).Name, v)
	}
}

func TestEqualComparesEveryField(t *testing.T) {
	eachField(t, func(field string, v *Service) {
		if v.Equal(&Service{}) {
			t.Errorf("Service.%s does not count", field)
		}
	})
	eachField(t, func(field string, v *Slice) {
		if v.Equal(&Slice{}) {
			t.Errorf("Slice.%s does not count", field)
		}
	})
	eachField(t, func(field string, v *Node) {
		if v.Equal(Node{}) {
			t.Errorf("Node.%s does not count", field)
		}
	})
	if !(&Service{Ports: []Port{}}).Equal(&Service{}) {
		t.Error("no ports and an empty list of ports differ")
	}
}
