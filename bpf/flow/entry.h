/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One entry of a flow: its key, its other half, its backend, and where it acts.
 *
 * Invariants
 *  1. A flow is two entries, one per direction, each with all its direction
 *     needs. Key and value of an entry determine its counterpart (flow_mirror).
 *  2. A reverse tuple belongs to one flow. It is claimed by inserting into
 *     half_open with BPF_NOEXIST and looking into flows and closed *afterwards*
 *     (claim.h). A flow gets into flows only while its tuple is held in half_open,
 *     and is written there *before* that is let go; on its way to closed it is
 *     written there before it leaves flows. So of two flows that want one tuple,
 *     at least one sees the other. Who looks in flows, half_open and closed for a
 *     flow on its way may meet it in none: it looks in flows once more.
 *  3. flows holds what is proved (handshake.h): a packet whose sender knows what
 *     the other end said. What is in it is never evicted; both halves come and go
 *     together (life.h), each coming counted as opened, each going as closed.
 *  4. Everything else that makes entries, proved or not, writes to LRU maps of its
 *     own: half_open for beginnings, closed for ends. A flood of one evicts the same.
 *  5. An established packet does one lookup. What needs the other half is done
 *     once a tick (flow_refresh), or on SYN, FIN and RST (state.h).
 *
 * An SCTP association is such a connection: INIT is its SYN, INIT ACK its
 * SYN-ACK, ABORT and SHUTDOWN COMPLETE its RST, see parse_sctp().
 *
 * Functions that are not inlined are global, so that the verifier looks at each
 * once and not once per caller; it wants their pointers checked. Before Linux
 * 6.2 it does not take such a pointer for a key or value of a map ("R2 type=mem
 * expected=fp, pkt, pkt_meta, map_key, map_value"): those are copied.
 *
 * Errors of map helpers are compared as int: before Linux 6.4 the functions
 * behind them returned one, and left the upper half of the register as it was.
 */
#ifndef EBB_FLOW_ENTRY_H
#define EBB_FLOW_ENTRY_H

#include "abi/config.h"
#include "abi/maps.h"
#include "wire/csum.h"
#include "wire/parse.h"
#include "route/route.h"

#define E2BIG  7
#define EEXIST 17

#define FLOW_RESET (FLOW_RST | FLOW_PEER_RST)

/* Seconds in ticks, rounded up. */
static __always_inline __u32 ticks(__u32 seconds)
{
	return (seconds * cfg_hz + (1u << cfg_tick_shift) - 1) >> cfg_tick_shift;
}

/* Ticks from then to now. Another CPU may be a tick ahead: that counts as now. */
static __always_inline __u32 ticks_between(__u32 then, __u32 now)
{
	__s32 n = now - then;

	return n < 0 ? 0 : n;
}

static __always_inline bool addr_equal(const union ip_addr *a, const union ip_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline bool addr_absent(const union ip_addr *a)
{
	return !a->w[0] && !a->w[1] && !a->w[2] && !a->w[3];
}

/* Tells keys apart, not certainly but at next to no cost. */
static __always_inline __u32 tuple_tag(const struct flow_key *k)
{
	__u32 dst = k->dst.w[3];

	return k->src.w[3] ^ (dst << 16 | dst >> 16) ^ ((__u32)k->sport << 16 | k->dport);
}

/*
 * Whether f is still the entry of k. An element whose flow has ended is used again
 * at once; a packet that another CPU was rewriting by it meanwhile may have got a bit
 * of both. Asked once that is done: it goes nowhere then.
 */
static __always_inline bool flow_is_of(const struct flow *f, const struct flow_key *k)
{
	return *(volatile const __u32 *)&f->tag == tuple_tag(k);
}

/* Whether peer, found under the counterpart's key, is the other half of key. */
static __always_inline bool flow_pairs(const struct flow_key *key, const struct flow *peer)
{
	return addr_equal(&peer->dst, &key->src) && addr_equal(&peer->src, &key->dst) &&
	       peer->dport == key->sport && peer->sport == key->dport;
}

static __always_inline void flow_mirror_key(const struct flow *f, __u8 proto, struct flow_key *out)
{
	out->src = f->dst;
	out->dst = f->src;
	out->sport = f->dport;
	out->dport = f->sport;
	out->proto = proto;
	out->pad[0] = 0;
	out->pad[1] = 0;
	out->pad[2] = 0;
}

static __always_inline __u32 flags_mirror(__u32 flags)
{
	__u32 out =
		(flags & (FLOW_REMOTE | FLOW_POD | FLOW_HAIRPIN | FLOW_REPLIED | FLOW_STREAM |
			  FLOW_STICKY | FLOW_MIDWAY | FLOW_OUTWARD | FLOW_GUEST | FLOW_REROUTE)) |
		((flags & FLOW_REVERSE) ^ FLOW_REVERSE);

	if (flags & FLOW_FIN)
		out |= FLOW_PEER_FIN;
	if (flags & FLOW_PEER_FIN)
		out |= FLOW_FIN;
	if (flags & FLOW_RST)
		out |= FLOW_PEER_RST;
	if (flags & FLOW_PEER_RST)
		out |= FLOW_RST;
	return out;
}

/* The other half of (key, f); what only that half knew starts anew. */
static __always_inline void flow_mirror(const struct flow_key *key, const struct flow *f,
					struct flow_key *out_key, struct flow *out)
{
	flow_mirror_key(f, key->proto, out_key);
	__builtin_memset(out, 0, sizeof(*out));
	out->tag = tuple_tag(out_key);
	out->src = key->dst;
	out->dst = key->src;
	out->sport = key->dport;
	out->dport = key->sport;
	out->csum_addr = ~f->csum_addr;
	out->csum_port = ~f->csum_port;
	out->backend = f->backend;
	out->generation = f->generation;
	out->seen = f->seen;
	out->began = f->began;
	out->flags = flags_mirror(f->flags);
}

/* The backend this flow was given to, or NULL if its index has another one now. */
static __always_inline struct backend *flow_backend(const struct flow *f)
{
	__u32 index = f->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);

	return b && b->generation == f->generation ? b : NULL;
}

static __always_inline bool flow_same_backend(const struct flow *a, const struct flow *b)
{
	return a->backend == b->backend && a->generation == b->generation;
}

static __always_inline struct backend_counts *flow_counts(const struct flow *f)
{
	__u32 index = f->backend;

	return flow_backend(f) ? bpf_map_lookup_elem(&backend_stats, &index) : NULL;
}

static __always_inline bool flow_backend_gone(const struct flow *f)
{
	struct backend *b = flow_backend(f);

	return !b || b->state == BACKEND_GONE || b->state == BACKEND_FREE;
}

/* Whether ebb sends its packets on itself, by a source port of the node. */
static __always_inline bool flow_routed(const struct flow *f)
{
	return (f->flags & (FLOW_REMOTE | FLOW_POD)) == FLOW_REMOTE;
}

static __always_inline enum verdict flow_verdict(const struct flow *f)
{
	if (f->flags & FLOW_REVERSE)
		return f->flags & FLOW_REMOTE ? VERDICT_REPLY_REMOTE : VERDICT_REPLY_LOCAL;
	return f->flags & FLOW_REMOTE ? VERDICT_TO_REMOTE : VERDICT_TO_LOCAL;
}

/*
 * One expression each, without a branch: clang then drops what is not for a constant
 * hook while it inlines, and not only after it has given that a place on the stack.
 */
static __always_inline bool hook_is_pod(enum hook hook)
{
	return 1 << hook & (1 << HOOK_POD_INGRESS | 1 << HOOK_POD_EGRESS);
}

static __always_inline bool hook_is_egress(enum hook hook)
{
	return 1 << hook & (1 << HOOK_TC_EGRESS | 1 << HOOK_POD_EGRESS);
}

/*
 * A flow's entry acts where its client is, and nowhere else on the packet's
 * way: several devices of a node see it, and between them it is one between
 * client and pod. Client c, frontend v, backend b; "to" is the entry's key:
 *
 *	client, backend       entry      acts at       is met, and passed, at
 *	external, local       c to v     uplink in
 *	                      b to c     uplink out    b's link in
 *	external, elsewhere   c to v     uplink in
 *	                      b to node  uplink in
 *	pod, local            c to v     c's link in
 *	                      b to c     c's link out  b's link in
 *	pod, elsewhere        c to v     c's link in
 *	                      b to c     c's link out  uplink in
 *	pod, itself           c to v     c's link in
 *	                      b to v     c's link in
 *	the node, elsewhere   c to b     uplink out   (outward, see guest.h)
 *	                      b to node  uplink in
 *
 * What is translated already is under no key: c to b at b's link or at the
 * uplink, v to c at c's link, v to b on its way back to the pod.
 */
static __always_inline bool flow_at_hook(const struct flow *f, enum hook hook)
{
	__u32 where;

	if (hook_is_pod(hook)) {
		where = f->flags & (FLOW_REVERSE | FLOW_HAIRPIN | FLOW_POD);
		if (hook_is_egress(hook))
			return where == (FLOW_REVERSE | FLOW_POD);
		return where & FLOW_POD && where != (FLOW_REVERSE | FLOW_POD);
	}
	where = f->flags & (FLOW_REVERSE | FLOW_REMOTE | FLOW_POD | FLOW_OUTWARD);
	if (hook_is_egress(hook))
		return where == FLOW_REVERSE || where == FLOW_OUTWARD;
	return where != FLOW_REVERSE && where != FLOW_OUTWARD && !(where & FLOW_POD);
}

#endif
