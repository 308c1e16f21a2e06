package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/loader"
)

func TestPreflightFailsOnlyWithoutARequiredFeature(t *testing.T) {
	required := loader.Feature{Name: "walking", Since: "2.6", Present: true}
	optional := loader.Feature{Name: "flying", Since: "7.0", Fallback: "walking"}
	missing := loader.Feature{Name: "breathing", Since: "1.0"}
	for _, tc := range []struct {
		name   string
		survey []loader.Feature
		want   error
		says   string
	}{
		{"an optional one is missing", []loader.Feature{required, optional}, nil, "Linux 6.1.0 suffices"},
		{"a required one is missing", []loader.Feature{required, missing}, errSilent, "Linux 6.1.0 does not suffice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			err := printPreflight(&out, newPreflightReport("6.1.0", tc.survey, preflightPorts{Flows: "1024-29999"}, preflightUplinks{Devices: []string{"eth0"}}), "table")
			if !errors.Is(err, tc.want) || !strings.Contains(out.String(), tc.says) {
				t.Errorf("error %v, want %v; output lacks %q:\n%s", err, tc.want, tc.says, out.String())
			}
		})
	}
}

func TestPreflightAsJSONHasEveryFeature(t *testing.T) {
	survey := []loader.Feature{
		{Name: "walking", Since: "2.6", Present: true},
		{Name: "flying", Since: "7.0", Fallback: "walking"},
	}
	var out bytes.Buffer
	if err := printPreflight(&out, newPreflightReport("6.1.0", survey, preflightPorts{Flows: "1024-29999", Left: 28232}, preflightUplinks{Devices: []string{"eth0"}, Warnings: []preflightUplink{{"eth0", "it is unplugged"}}}), "json"); err != nil {
		t.Fatal(err)
	}
	var got preflightReport
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := preflightReport{
		Kernel: "6.1.0", MinimumKernel: loader.MinimumKernel, OK: true,
		Features: []preflightFeature{
			{Name: "walking", Since: "2.6", Required: true, Present: true},
			{Name: "flying", Since: "7.0", Fallback: "walking"},
		},
		SourcePorts: preflightPorts{Flows: "1024-29999", Left: 28232},
		Uplinks:     preflightUplinks{Devices: []string{"eth0"}, Warnings: []preflightUplink{{"eth0", "it is unplugged"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestPreflightSaysWhatBecomesOfSourcePorts(t *testing.T) {
	apart := preflightPorts{Flows: "1024-29999", Sockets: "32768-60999", Left: 28232}
	overlap := preflightPorts{Flows: "1024-29999", Sockets: "1024-65535", Reserve: "1024-29999", Left: 35536, Warnings: []string{"the moon is full"}}
	refused := preflightPorts{Sockets: "1024-65535", Error: "--snat-ports 1024-65535 leaves none"}
	for _, tc := range []struct {
		name  string
		ports preflightPorts
		want  error
		says  string
	}{
		{"apart", apart, nil, "\nSource ports: flows to other nodes get 1024-29999, sockets of the node 32768-60999.\n"},
		{"overlapping", overlap, nil, "reserves 1024-29999 (net.ipv4.ip_local_reserved_ports), which leaves sockets 35536.\nWarning: the moon is full.\n"},
		{"refused", refused, errSilent, "Linux 6.1.0 suffices; ebb is tested on 6.1 and later.\n\nSource ports: --snat-ports 1024-65535 leaves none.\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			err := printPreflight(&out, newPreflightReport("6.1.0", nil, tc.ports, preflightUplinks{}), "table")
			if !errors.Is(err, tc.want) || !strings.Contains(out.String(), tc.says) {
				t.Errorf("error %v, want %v; output lacks %q:\n%s", err, tc.want, tc.says, out.String())
			}
		})
	}
}

func TestPreflightNamesUplinksThatWillDropPackets(t *testing.T) {
	for _, tc := range []struct {
		uplinks preflightUplinks
		says    string
	}{
		{preflightUplinks{}, "\nUplinks: none is known without --uplink or --node-addresses.\n"},
		{preflightUplinks{Devices: []string{"eth0", "eth1"}}, "\nUplinks: eth0, eth1.\n"},
		{preflightUplinks{Devices: []string{"eth0"}, Warnings: []preflightUplink{{"eth0", "it is unplugged"}}}, "\nUplinks: eth0.\nWarning: eth0: it is unplugged.\n"},
		{preflightUplinks{Error: "the dog ate it"}, "Warning: the dog ate it.\n"},
	} {
		var out bytes.Buffer
		err := printPreflight(&out, newPreflightReport("6.1.0", nil, preflightPorts{Flows: "1024-29999"}, tc.uplinks), "table")
		if err != nil || !strings.Contains(out.String(), tc.says) {
			t.Errorf("error %v; output lacks %q:\n%s", err, tc.says, out.String())
		}
	}
}
