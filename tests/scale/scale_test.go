package main

import (
	"testing"
	"time"
)

func TestEveryRowIsMeasured(t *testing.T) {
	s := size{services: 20, endpoints: 3, rate: 100, lasting: 300 * time.Millisecond, interval: 10 * time.Millisecond}
	for _, name := range []string{"store", "informers", "floor"} {
		r, err := measure(t.Context(), s, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.First <= 0 || r.Changes == 0 || r.P50 <= 0 || r.P50 > r.P99 || r.P99 > r.Most {
			t.Errorf("%s: %+v", name, r)
		}
		// A frontend, its address, a service port, a table and the backends of each service.
		if floor := name == "floor"; floor != (r.FirstWrites == s.services*(4+s.endpoints)) || floor != (r.ChangeFloor > 0) {
			t.Errorf("%s: %d writes in the first sync, %v for a change", name, r.FirstWrites, r.ChangeFloor)
		}
	}
	if _, err := measure(t.Context(), s, "none"); err == nil {
		t.Error("a row that is not there was measured")
	}
}
