package maps

import "fmt"

// Verdict is why a packet left ebb the way it did (enum verdict in
// bpf/abi/types.h). Values are ABI: they are counter indexes.
type Verdict uint8

// The verdicts, in the order of their counters.
const (
	VerdictNone Verdict = iota // never counted

	// Passed untouched.
	VerdictNotIP
	VerdictNotL4     // a protocol ebb does not balance
	VerdictMalformed // truncated or contradictory headers
	VerdictFragment
	VerdictExtHeaders // IPv6 extension headers beyond what is parsed
	VerdictNotService
	VerdictLeftToTC // XDP cannot finish it; TC on the same device will

	// Translated.
	VerdictToLocal     // to a backend on this node
	VerdictToRemote    // to a backend on another node
	VerdictReplyLocal  // from a backend on this node to its client
	VerdictReplyRemote // from a backend on another node to its client

	// Dropped.
	VerdictNoBackend     // no candidates for this client, endpoints elsewhere
	VerdictNoFlow        // the middle of a connection nobody knows
	VerdictSNATExhausted // no source port left towards this backend
	VerdictFlowConflict  // the other half's tuple belongs to another flow now
	VerdictMapFull       // a flow entry could not be written
	VerdictNoRoute
	VerdictTTLExpired    // answered with ICMP time exceeded
	VerdictTooBig        // answered with ICMP fragmentation needed or packet too big
	VerdictRewriteFailed // the kernel refused to change the packet
	VerdictLateAnswer    // another backend answered this handshake before
	VerdictSourceRange   // the client is in none of the ranges allowed
	VerdictNoEndpoints   // the service has no endpoints at all

	// Translated.
	VerdictRelated      // an ICMP error about a flow, and what it quotes
	VerdictHairpin      // back to the pod it comes from
	VerdictReplyHairpin // from a pod to itself

	// Dropped.
	VerdictFragmentUnknown // the first fragment of the datagram was not seen
	VerdictNoPort          // a Service's address, but no port of it
	VerdictUnallocated     // in a range of service addresses, but nobody's
	VerdictBackendGone     // answered with RST: the backend of the connection is gone
	VerdictRejectLimited   // would be rejected, but too many were answered already
	VerdictEcho            // answered: a ping to a load balancer's address
	VerdictSNATUnknown     // of a backend, to a source port of ours that is no flow's
	VerdictBackendAstray   // of a backend, in a connection ebb has no flow of any more

	// Passed untouched.
	VerdictNotOurs // in a frame to another station, or of a VLAN the node is not in

	// Dropped.
	VerdictMartian // to begin a flow, from an address that cannot be a client's

	// Sent on in pieces.
	VerdictFragmented // larger than the way; each piece has a verdict of its own
	VerdictPassedOn   // the middle of a connection, as it is, to the node its backend is on

	// VerdictCount is the number of verdicts with a name.
	VerdictCount
	// VerdictMax is the number of counters per hook.
	VerdictMax Verdict = 64
)

// verdictNames are indexed by verdict.
var verdictNames = [VerdictCount]string{
	VerdictNone:            "none",
	VerdictNotIP:           "not-ip",
	VerdictNotL4:           "not-l4",
	VerdictMalformed:       "malformed",
	VerdictFragment:        "fragment",
	VerdictExtHeaders:      "ext-headers",
	VerdictNotService:      "not-service",
	VerdictLeftToTC:        "left-to-tc",
	VerdictToLocal:         "to-local",
	VerdictToRemote:        "to-remote",
	VerdictReplyLocal:      "reply-local",
	VerdictReplyRemote:     "reply-remote",
	VerdictNoBackend:       "no-backend",
	VerdictNoFlow:          "no-flow",
	VerdictSNATExhausted:   "snat-exhausted",
	VerdictFlowConflict:    "flow-conflict",
	VerdictMapFull:         "map-full",
	VerdictNoRoute:         "no-route",
	VerdictTTLExpired:      "ttl-expired",
	VerdictTooBig:          "too-big",
	VerdictRewriteFailed:   "rewrite-failed",
	VerdictLateAnswer:      "late-answer",
	VerdictSourceRange:     "source-range",
	VerdictNoEndpoints:     "no-endpoints",
	VerdictRelated:         "related",
	VerdictHairpin:         "hairpin",
	VerdictReplyHairpin:    "reply-hairpin",
	VerdictFragmentUnknown: "fragment-unknown",
	VerdictNoPort:          "no-port",
	VerdictUnallocated:     "unallocated",
	VerdictBackendGone:     "backend-gone",
	VerdictRejectLimited:   "reject-limited",
	VerdictEcho:            "echo",
	VerdictSNATUnknown:     "snat-unknown",
	VerdictBackendAstray:   "backend-astray",
	VerdictNotOurs:         "not-ours",
	VerdictMartian:         "martian",
	VerdictFragmented:      "fragmented",
	VerdictPassedOn:        "passed-on",
}

// String returns the verdict as metrics and tables show it, such as
// "to-local"; "verdict(40)" for one of a newer datapath.
func (v Verdict) String() string {
	if v < VerdictCount {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// known reports whether v has a name and is counted.
func (v Verdict) known() bool { return v > VerdictNone && v < VerdictCount }
