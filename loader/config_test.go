package loader

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/ebb-lb/ebb/bpf"
)

func TestXDPModesParseAsTheyPrint(t *testing.T) {
	for _, m := range []XDPMode{XDPAuto, XDPNative, XDPGeneric, XDPOff} {
		if got, err := ParseXDPMode(m.String()); err != nil || got != m {
			t.Errorf("%s: got %s, %v", m, got, err)
		}
	}
	if _, err := ParseXDPMode("offload"); err == nil || !strings.Contains(err.Error(), `"offload"`) {
		t.Errorf("offload: %v", err)
	}
}

func TestWhatBecomesOfUnknownFlowsParsesAsItPrints(t *testing.T) {
	for _, u := range []UnknownFlow{UnknownReset, UnknownDrop, UnknownPass} {
		if got, err := ParseUnknownFlow(u.String()); err != nil || got != u {
			t.Errorf("%s: got %s, %v", u, got, err)
		}
	}
	if _, err := ParseUnknownFlow("ignore"); err == nil || !strings.Contains(err.Error(), `"ignore"`) {
		t.Errorf("ignore: %v", err)
	}
}

func validConfig() Config {
	return Config{SNATMin: 1024, SNATMax: 29999}
}

func TestConfigIsValidated(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"the usual range is accepted", func(*Config) {}, ""},
		{"one port is a range", func(c *Config) { c.SNATMax = c.SNATMin }, ""},
		{"port 0 is no source port", func(c *Config) { c.SNATMin = 0 }, "first SNAT port is 0"},
		{"an empty range is refused", func(c *Config) { c.SNATMax = 1023 }, "1024-1023: the range is empty"},
		{"a rate of nothing is one", func(c *Config) { c.RejectRate = 0 }, ""},
		{"a rate above the highest is refused", func(c *Config) { c.RejectRate = MaxRejectRate + 1 }, "1000001 answers"},
		{"an unknown mode is refused", func(c *Config) { c.XDP = 9 }, "xdpmode(9)"},
		{"unknown flows are passed at most", func(c *Config) { c.UnknownFlow = UnknownPass }, ""},
		{"beyond that there is nothing", func(c *Config) { c.UnknownFlow = 4 }, "unknownflow(4)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := validConfig()
			tc.change(&c)
			err := c.validate()
			if got := errString(err); !strings.Contains(got, tc.want) || (tc.want == "") != (err == nil) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSettingsReachTheObjects(t *testing.T) {
	for name, open := range map[string]func() (*ebpf.CollectionSpec, error){"xdp": bpf.LoadXDP, "tc": bpf.LoadTC} {
		t.Run(name, func(t *testing.T) {
			spec, err := open()
			must(t, "open", err)
			c := Config{
				SNATMin: 2000, SNATMax: 3000, UnknownFlow: UnknownPass,
				RejectRate: 500, RejectTCPReset: true, ResetGone: true, VIPEcho: true,
			}
			must(t, "set", setVariables(spec, c.variables(1000)))
			var shift, hz uint32
			var low, high uint16
			var unknown, reset, gone, echo uint8
			var interval uint64
			for v, target := range map[string]any{
				"cfg_tick_shift": &shift, "cfg_hz": &hz, "cfg_snat_min": &low, "cfg_snat_max": &high, "cfg_unknown_flow": &unknown,
				"cfg_answer_interval": &interval, "cfg_reject_reset": &reset, "cfg_gone_reset": &gone, "cfg_vip_echo": &echo,
			} {
				must(t, "get "+v, spec.Variables[v].Get(target))
			}
			if shift != 10 || hz != 1000 || low != 2000 || high != 3000 || unknown != 2 {
				t.Errorf("object has %d, %d, %d, %d, %d", shift, hz, low, high, unknown)
			}
			if interval != 2_000_000 || reset != 1 || gone != 1 || echo != 1 {
				t.Errorf("object has %d, %d, %d, %d", interval, reset, gone, echo)
			}
		})
	}
}

func TestVariableTheObjectLacksIsAnError(t *testing.T) {
	spec, err := bpf.LoadTC()
	must(t, "open", err)
	err = setVariables(spec, []variable{{"cfg_colour", uint8(1)}})
	if got := errString(err); got != "set cfg_colour: the object has no such variable" {
		t.Errorf("got %q", got)
	}
}
