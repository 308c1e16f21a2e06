package ids

import (
	"errors"
	"strings"
	"testing"

	"github.com/ebb-lb/ebb/maps"
)

func portName(service string) maps.ServicePort {
	return maps.ServicePort{Namespace: "shop", Service: service, Port: "http", Proto: maps.TCP}
}

func takePort(t *testing.T, p *Ports, service string, want maps.ServicePortID) {
	t.Helper()
	got, err := p.Take(portName(service))
	if err != nil || got != want {
		t.Errorf("take %s: id %d, error %v; want id %d", service, got, err, want)
	}
}

func TestAServicePortKeepsItsIDOverARestart(t *testing.T) {
	p := NewPorts(8, map[maps.ServicePortID]maps.ServicePort{2: portName("b"), 5: portName("e")})
	for service, want := range map[string]maps.ServicePortID{"b": 2, "e": 5} {
		if got, ok := p.Lookup(portName(service)); !ok || got != want {
			t.Errorf("%s has id %d, %v; want %d", service, got, ok, want)
		}
	}
	// What is free is handed out lowest first, around what is in use.
	takePort(t, p, "x", 1)
	takePort(t, p, "y", 3)
	takePort(t, p, "z", 4)
	takePort(t, p, "w", 6)
}

func TestOfTwoIDsOfANameTheLowestCounts(t *testing.T) {
	p := NewPorts(8, map[maps.ServicePortID]maps.ServicePort{7: portName("a"), 3: portName("a"), 5: portName("a")})
	if got, _ := p.Lookup(portName("a")); got != 3 {
		t.Errorf("id %d, want 3", got)
	}
	p.Release(5) // one of the others must not take the name away
	if got, ok := p.Lookup(portName("a")); !ok || got != 3 {
		t.Errorf("after the release of another id: %d, %v; want 3", got, ok)
	}
}

func TestAnIDIsFreeOnceNobodyHoldsIt(t *testing.T) {
	p := NewPorts(8, nil)
	takePort(t, p, "a", 1)
	p.Hold(1) // a backend entry
	p.Release(1)
	if _, ok := p.Lookup(portName("a")); ok {
		t.Error("the name outlives its release")
	}
	takePort(t, p, "b", 2)
	p.Unhold(1)
	takePort(t, p, "c", 1)
}

func TestAnIDHeldFromTheStartIsNotHandedOut(t *testing.T) {
	p := NewPorts(8, nil)
	p.Hold(1)
	p.Hold(1) // two backends that are gone
	takePort(t, p, "a", 2)
	p.Unhold(1)
	takePort(t, p, "b", 3)
	p.Unhold(1)
	takePort(t, p, "c", 1)
}

func TestServicePortsRunOutWithAnErrorThatNamesTheFlag(t *testing.T) {
	p := NewPorts(2, map[maps.ServicePortID]maps.ServicePort{1: portName("a")})
	takePort(t, p, "b", 2)
	_, err := p.Take(portName("c"))
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "shop/c:http/TCP") || !strings.Contains(err.Error(), "--max-frontends") {
		t.Errorf("error %v", err)
	}
	p.Release(1)
	takePort(t, p, "c", 1)
}

func TestAnUnknownIDIsReleasedWithoutEffect(t *testing.T) {
	p := NewPorts(8, nil)
	p.Release(1)
	takePort(t, p, "a", 1)
	p.Release(1)
	p.Release(1)
	takePort(t, p, "b", 1)
	takePort(t, p, "c", 2)
}
