package endpoints

import (
	"testing"

	"github.com/ebb-lb/ebb/agent/service"
)

func TestCountLocal(t *testing.T) {
	tests := []struct {
		name        string
		http, https string
		v4, v6      LocalCount
	}{
		{"no endpoints", "", "", LocalCount{}, LocalCount{}},
		{"ready ones of this node, per family", "Lr Rr Ur Lr6 Rr6", "", LocalCount{Ready: 1}, LocalCount{Ready: 1}},
		{"an address counts once, whatever its ports", "Lr", "Lr", LocalCount{Ready: 1}, LocalCount{}},
		{"addresses of all ports count", "Lr", "Lrt", LocalCount{Ready: 2}, LocalCount{}},
		{"serving and terminating is draining, never ready", "Lst Rr Lst6 Lst62", "Lst", LocalCount{Draining: 1}, LocalCount{Draining: 2}},
		{"terminating and not serving is draining too", "Lt", "", LocalCount{Draining: 1}, LocalCount{}},
		{"neither ready nor terminating is none of both", "Lx Ls", "", LocalCount{}, LocalCount{}},
		{"ready although terminating is ready", "Lrt", "", LocalCount{Ready: 1}, LocalCount{}},
		{"ready on one port is ready", "Lrt", "Lt@Lrt", LocalCount{Ready: 1}, LocalCount{}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			ports := map[service.PortKey][]service.Endpoint{
				{Name: "http", Proto: service.TCP}: pick(tc.http), {Name: "https", Proto: service.TCP}: pick(tc.https),
			}
			if got := CountLocal(ports, node, true); got != tc.v4 {
				t.Errorf("IPv4: %+v, want %+v", got, tc.v4)
			}
			if got := CountLocal(ports, node, false); got != tc.v6 {
				t.Errorf("IPv6: %+v, want %+v", got, tc.v6)
			}
		})
	}
}
