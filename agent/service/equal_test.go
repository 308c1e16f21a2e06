package service

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// fill sets v to something that is not its zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Type() {
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.0.0.1")))
		return
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1, 0)))
		return
	}
	switch v.Kind() {
	case reflect.Int64:
		v.SetInt(1)
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
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
		if counts := field != "Triggered"; v.Equal(&Slice{}) == counts {
			t.Errorf("Slice.%s counts: want %v", field, counts)
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

// TestAChangeOfAnyFieldIsNews changes one field of what a Store knows, and
// changes it back.
func TestAChangeOfAnyFieldIsNews(t *testing.T) {
	eachField(t, func(field string, v *Service) {
		v.Name = web
		if field != "Name" {
			changeAndBack(t, "Service."+field, func(s *Store) { s.PutService(&Service{Name: web}) }, func(s *Store) { s.PutService(v) })
		}
	})
	eachField(t, func(field string, v *Port) {
		ports := func(p Port) func(*Store) {
			return func(s *Store) { s.PutService(&Service{Name: web, Ports: []Port{p}}) }
		}
		changeAndBack(t, "Port."+field, ports(Port{}), ports(*v))
	})
	eachField(t, func(field string, v *SlicePort) {
		ports := func(p SlicePort) func(*Store) {
			return func(s *Store) { s.PutSlice(&Slice{Service: web, Ports: []SlicePort{p}}) }
		}
		changeAndBack(t, "SlicePort."+field, ports(SlicePort{}), ports(*v))
	})
	eachField(t, func(field string, v *SliceEndpoint) {
		endpoints := func(e SliceEndpoint) func(*Store) {
			return func(s *Store) { s.PutSlice(&Slice{Service: web, Endpoints: []SliceEndpoint{e}}) }
		}
		changeAndBack(t, "SliceEndpoint."+field, endpoints(SliceEndpoint{}), endpoints(*v))
	})
	eachField(t, func(field string, v *Node) {
		changeAndBack(t, "Node."+field, func(s *Store) { s.PutNode(Node{Name: "n1"}) }, func(s *Store) { s.PutNode(*v) })
	})
}

func changeAndBack(t *testing.T, what string, put, change func(*Store)) {
	t.Helper()
	s, _ := newStore()
	s.SetSynced()
	put(s)
	for _, step := range []func(*Store){change, put} {
		s.Take()
		signalled(s)
		step(s)
		if !signalled(s) || s.Take().Empty() {
			t.Errorf("%s: a change is no news", what)
		}
	}
}

// TestEveryFieldOfAnEndpointReachesTheView compares by the fields' names.
func TestEveryFieldOfAnEndpointReachesTheView(t *testing.T) {
	eachField(t, func(field string, v *SliceEndpoint) {
		if field == "Addr" {
			return
		}
		got := reflect.ValueOf(v.at(netip.AddrPort{})).FieldByName(field)
		if !got.IsValid() || got.IsZero() {
			t.Errorf("SliceEndpoint.%s is lost", field)
		}
	})
}
