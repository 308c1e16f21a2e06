package maps

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/ebb-lb/ebb/bpf"
)

func TestEveryMapOfTheLayoutIsPartOfASet(t *testing.T) {
	spec, err := bpf.LoadLayout()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(mapNames()))); diff != "" {
		t.Errorf("maps of the layout, maps of a set:\n%s", diff)
	}
}

func TestDefaultSizesAreThoseOfTheLayout(t *testing.T) {
	want := Sizes{
		Frontends: 65536, ServicePorts: 65536, Backends: 1 << 15,
		Slots: 1 << 22, Flows: 1 << 18, HalfOpen: 1 << 16, Closed: 1 << 16, Affinity: 1 << 16, SourceRanges: 1 << 16,
	}
	if diff := cmp.Diff(want, DefaultSizes()); diff != "" {
		t.Error(diff)
	}
}

// TestNamesAndNumbersAreThoseOfTheDatapath compares what Go calls each value
// with the enums in the datapath's type information, so that a value added
// there and not here is found.
func TestNamesAndNumbersAreThoseOfTheDatapath(t *testing.T) {
	tests := []struct {
		enum, prefix string
		name         func(uint64) string
		notAName     []string
	}{
		{"verdict", "VERDICT_", func(v uint64) string { return Verdict(v).String() }, []string{"COUNT", "MAX"}},
		{"hook", "HOOK_", func(v uint64) string { return Hook(v).String() }, []string{"COUNT"}},
		{"backend_state", "BACKEND_", func(v uint64) string { return State(v).String() }, nil},
		{"flow_flag", "FLOW_", func(v uint64) string { return FlowFlags(v).String() }, nil},
		{"address_flag", "ADDRESS_", func(v uint64) string { return AddressFlags(v).String() }, nil},
	}
	spec, err := bpf.LoadLayout()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range tests {
		t.Run(tc.enum, func(t *testing.T) {
			var enum *btf.Enum
			if err := spec.Types.TypeByName(tc.enum, &enum); err != nil {
				t.Fatal(err)
			}
			for _, v := range enum.Values {
				name := strings.TrimPrefix(v.Name, tc.prefix)
				if slices.Contains(tc.notAName, name) {
					continue
				}
				want := strings.ReplaceAll(strings.ToLower(name), "_", "-")
				if got := tc.name(v.Value); got != want {
					t.Errorf("%s = %d is called %q, want %q", v.Name, v.Value, got, want)
				}
			}
		})
	}
}

func TestConstantsAreThoseOfTheDatapath(t *testing.T) {
	tests := []struct {
		name      string
		got, want int
	}{
		{"VerdictNone", int(VerdictNone), int(bpf.LayoutVerdictVERDICT_NONE)},
		{"VerdictNotIP", int(VerdictNotIP), int(bpf.LayoutVerdictVERDICT_NOT_IP)},
		{"VerdictNotL4", int(VerdictNotL4), int(bpf.LayoutVerdictVERDICT_NOT_L4)},
		{"VerdictMalformed", int(VerdictMalformed), int(bpf.LayoutVerdictVERDICT_MALFORMED)},
		{"VerdictFragment", int(VerdictFragment), int(bpf.LayoutVerdictVERDICT_FRAGMENT)},
		{"VerdictExtHeaders", int(VerdictExtHeaders), int(bpf.LayoutVerdictVERDICT_EXT_HEADERS)},
		{"VerdictNotService", int(VerdictNotService), int(bpf.LayoutVerdictVERDICT_NOT_SERVICE)},
		{"VerdictLeftToTC", int(VerdictLeftToTC), int(bpf.LayoutVerdictVERDICT_LEFT_TO_TC)},
		{"VerdictToLocal", int(VerdictToLocal), int(bpf.LayoutVerdictVERDICT_TO_LOCAL)},
		{"VerdictToRemote", int(VerdictToRemote), int(bpf.LayoutVerdictVERDICT_TO_REMOTE)},
		{"VerdictReplyLocal", int(VerdictReplyLocal), int(bpf.LayoutVerdictVERDICT_REPLY_LOCAL)},
		{"VerdictReplyRemote", int(VerdictReplyRemote), int(bpf.LayoutVerdictVERDICT_REPLY_REMOTE)},
		{"VerdictNoBackend", int(VerdictNoBackend), int(bpf.LayoutVerdictVERDICT_NO_BACKEND)},
		{"VerdictNoFlow", int(VerdictNoFlow), int(bpf.LayoutVerdictVERDICT_NO_FLOW)},
		{"VerdictSNATExhausted", int(VerdictSNATExhausted), int(bpf.LayoutVerdictVERDICT_SNAT_EXHAUSTED)},
		{"VerdictFlowConflict", int(VerdictFlowConflict), int(bpf.LayoutVerdictVERDICT_FLOW_CONFLICT)},
		{"VerdictMapFull", int(VerdictMapFull), int(bpf.LayoutVerdictVERDICT_MAP_FULL)},
		{"VerdictNoRoute", int(VerdictNoRoute), int(bpf.LayoutVerdictVERDICT_NO_ROUTE)},
		{"VerdictTTLExpired", int(VerdictTTLExpired), int(bpf.LayoutVerdictVERDICT_TTL_EXPIRED)},
		{"VerdictTooBig", int(VerdictTooBig), int(bpf.LayoutVerdictVERDICT_TOO_BIG)},
		{"VerdictRewriteFailed", int(VerdictRewriteFailed), int(bpf.LayoutVerdictVERDICT_REWRITE_FAILED)},
		{"VerdictLateAnswer", int(VerdictLateAnswer), int(bpf.LayoutVerdictVERDICT_LATE_ANSWER)},
		{"VerdictSourceRange", int(VerdictSourceRange), int(bpf.LayoutVerdictVERDICT_SOURCE_RANGE)},
		{"VerdictNoEndpoints", int(VerdictNoEndpoints), int(bpf.LayoutVerdictVERDICT_NO_ENDPOINTS)},
		{"VerdictRelated", int(VerdictRelated), int(bpf.LayoutVerdictVERDICT_RELATED)},
		{"VerdictHairpin", int(VerdictHairpin), int(bpf.LayoutVerdictVERDICT_HAIRPIN)},
		{"VerdictReplyHairpin", int(VerdictReplyHairpin), int(bpf.LayoutVerdictVERDICT_REPLY_HAIRPIN)},
		{"VerdictFragmentUnknown", int(VerdictFragmentUnknown), int(bpf.LayoutVerdictVERDICT_FRAGMENT_UNKNOWN)},
		{"VerdictNoPort", int(VerdictNoPort), int(bpf.LayoutVerdictVERDICT_NO_PORT)},
		{"VerdictUnallocated", int(VerdictUnallocated), int(bpf.LayoutVerdictVERDICT_UNALLOCATED)},
		{"VerdictBackendGone", int(VerdictBackendGone), int(bpf.LayoutVerdictVERDICT_BACKEND_GONE)},
		{"VerdictRejectLimited", int(VerdictRejectLimited), int(bpf.LayoutVerdictVERDICT_REJECT_LIMITED)},
		{"VerdictEcho", int(VerdictEcho), int(bpf.LayoutVerdictVERDICT_ECHO)},
		{"VerdictCount", int(VerdictCount), int(bpf.LayoutVerdictVERDICT_COUNT)},
		{"VerdictMax", int(VerdictMax), int(bpf.LayoutVerdictVERDICT_MAX)},

		{"SocketDialled", int(SocketDialled), int(bpf.LayoutSocketWaySOCKET_DIALLED)},
		{"SocketBackend", int(SocketBackend), int(bpf.LayoutSocketWaySOCKET_BACKEND)},
		{"Free", int(Free), int(bpf.LayoutBackendStateBACKEND_FREE)},
		{"Active", int(Active), int(bpf.LayoutBackendStateBACKEND_ACTIVE)},
		{"Draining", int(Draining), int(bpf.LayoutBackendStateBACKEND_DRAINING)},
		{"Gone", int(Gone), int(bpf.LayoutBackendStateBACKEND_GONE)},

		{"FlowReverse", int(FlowReverse), int(bpf.LayoutFlowFlagFLOW_REVERSE)},
		{"FlowRemote", int(FlowRemote), int(bpf.LayoutFlowFlagFLOW_REMOTE)},
		{"FlowFIN", int(FlowFIN), int(bpf.LayoutFlowFlagFLOW_FIN)},
		{"FlowPeerFIN", int(FlowPeerFIN), int(bpf.LayoutFlowFlagFLOW_PEER_FIN)},
		{"FlowRST", int(FlowRST), int(bpf.LayoutFlowFlagFLOW_RST)},
		{"FlowPeerRST", int(FlowPeerRST), int(bpf.LayoutFlowFlagFLOW_PEER_RST)},
		{"FlowClosed", int(FlowClosed), int(bpf.LayoutFlowFlagFLOW_CLOSED)},
		{"FlowReplied", int(FlowReplied), int(bpf.LayoutFlowFlagFLOW_REPLIED)},
		{"FlowPod", int(FlowPod), int(bpf.LayoutFlowFlagFLOW_POD)},
		{"FlowHairpin", int(FlowHairpin), int(bpf.LayoutFlowFlagFLOW_HAIRPIN)},

		{"AddressClusterIP", int(AddressClusterIP), int(bpf.LayoutAddressFlagADDRESS_CLUSTER_IP)},
		{"AddressExternal", int(AddressExternal), int(bpf.LayoutAddressFlagADDRESS_EXTERNAL)},
		{"AddressNode", int(AddressNode), int(bpf.LayoutAddressFlagADDRESS_NODE)},

		{"HookXDP", int(HookXDP), int(bpf.LayoutHookHOOK_XDP)},
		{"HookTCIngress", int(HookTCIngress), int(bpf.LayoutHookHOOK_TC_INGRESS)},
		{"HookTCEgress", int(HookTCEgress), int(bpf.LayoutHookHOOK_TC_EGRESS)},
		{"HookSocket", int(HookSocket), int(bpf.LayoutHookHOOK_SOCKET)},
		{"HookPodIngress", int(HookPodIngress), int(bpf.LayoutHookHOOK_POD_INGRESS)},
		{"HookPodEgress", int(HookPodEgress), int(bpf.LayoutHookHOOK_POD_EGRESS)},
		{"HookCount", int(HookCount), int(bpf.LayoutHookHOOK_COUNT)},

		{"LatencyBuckets", LatencyBuckets, len(bpf.LayoutBackendCounts{}.Handshake)},
		{"maxName+1", maxName + 1, len(bpf.LayoutServicePort{}.Namespace)},
	}
	for _, tc := range tests {
		if tc.got != tc.want {
			t.Errorf("%s is %d, the datapath has %d", tc.name, tc.got, tc.want)
		}
	}
}

func TestValuesWithoutANameShowTheirNumber(t *testing.T) {
	tests := []struct {
		value fmt.Stringer
		want  string
	}{
		{VerdictCount, "verdict(39)"},
		{Verdict(255), "verdict(255)"},
		{State(4), "state(4)"},
		{HookCount, "hook(6)"},
		{Proto(1), "protocol(1)"},
		{FlowFlags(0), "-"},
		{AddressExternal | AddressNode, "external,node"},
		{FlowRemote | FlowClosed | 1<<20, "remote,closed,bit(20)"},
	}
	for _, tc := range tests {
		if got := tc.value.String(); got != tc.want {
			t.Errorf("%#v is shown as %q, want %q", tc.value, got, tc.want)
		}
	}
}

func TestMapsDividedAmongCPUsHaveEnoughForEach(t *testing.T) {
	for _, tc := range []struct{ entries, cpus, want uint32 }{
		{1 << 16, 2, 1 << 16},
		{1 << 16, 3, 65538},        // a multiple
		{1 << 16, 64, perCPU * 64}, // not 1024 for each
		{256, 64, 256},             // asked to be small
		{1000, 64, 1024},
	} {
		if got := shared(tc.entries, tc.cpus); got != tc.want {
			t.Errorf("%d entries on %d CPUs become %d, want %d", tc.entries, tc.cpus, got, tc.want)
		}
	}
	sizes := DefaultSizes()
	set, err := Create(sizes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close() })
	granted, err := sizes.Granted()
	if err != nil {
		t.Fatal(err)
	}
	if got := set.Sizes(); got != granted {
		t.Errorf("maps have the sizes %+v, want %+v", got, granted)
	}
}
