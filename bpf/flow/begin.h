/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Packets that belong to no flow: they begin one, or are the middle of one that was lost. */
#ifndef EBB_FLOW_BEGIN_H
#define EBB_FLOW_BEGIN_H

#include "flow/handshake.h"
#include "flow/sweep.h"
#include "route/way.h"

#define NO_BACKEND 0xffffffff

/* Source ports by which a lost half is looked for. */
#define RESTORE_TRIES 8

/*
 * Handshakes that are timed: one of 8 client tuples. The clock is a tenth of
 * what a SYN costs, and a histogram needs no more.
 */
#define LATENCY_SAMPLE 7

/*
 * The rest of it at a pod's link. The pod's address leads back to its link from
 * everywhere, so only a pod that reaches itself needs another source: the
 * address it connected to, which it answers through its link.
 */
static __always_inline void begin_at_pod(const struct segment *s, const struct backend *b,
					 struct flow *f)
{
	f->flags |= b->flags & BACKEND_LOCAL ? FLOW_POD : FLOW_POD | FLOW_REMOTE;
	if (addr_equal(&b->addr, &s->key.src)) {
		f->flags |= FLOW_HAIRPIN;
		f->src = s->key.dst;
	}
}

/* What proves the backend's first packet to be an answer to s. */
static __always_inline __u32 begin_expects(const struct segment *s)
{
	if (s->key.proto == IPPROTO_TCP)
		return s->seq + 1;
	return s->key.proto == IPPROTO_SCTP ? s->seq : 0;
}

/*
 * What begin_flow() returns when it has to know the way to a backend, which is asked with
 * the packet's context: see core_begin(). It is called again then.
 */
#define VERDICT_WAY_WANTED VERDICT_MAX

/* The rest of it at an uplink. */
static __always_inline enum verdict begin_at_uplink(struct flow *f)
{
	struct halves *room = halves_room();
	const struct backend_way *w;

	if (!room)
		return VERDICT_MAP_FULL;
	w = way_recall(f->backend, f->generation, room->ingress);
	if (!w) {
		room->wanted[0] = f->backend;
		return VERDICT_WAY_WANTED;
	}
	if (!w->away) {
		if (routes_again())
			f->flags |= FLOW_REROUTE;
		return VERDICT_NONE;
	}
	f->flags |= FLOW_REMOTE;
	f->src = w->src;
	return addr_absent(&f->src) ? VERDICT_NO_ROUTE : VERDICT_NONE;
}

/* Fill in everything of the forward half but the source port. */
static __always_inline enum verdict begin_prepare(const struct segment *s, const struct backend *b,
						  __u32 flags, struct flow *f)
{
	f->tag = tuple_tag(&s->key);
	f->src = s->key.src;
	f->dst = b->addr;
	f->dport = b->port;
	f->generation = b->generation;
	f->seen = now_tick();
	f->began = f->seen;
	f->end = begin_expects(s);
	f->flags = flags;
	if (!s->pod)
		return begin_at_uplink(f);
	begin_at_pod(s, b, f);
	return VERDICT_NONE;
}

/* The middle of a connection, which may have begun before ranges were changed. */
static __always_inline bool is_midway(const struct segment *s)
{
	return s->key.proto != IPPROTO_UDP && !(s->tcp_flags & TCP_SYN);
}

/* Whether the datagrams of a flow to b go elsewhere from now on. */
static __always_inline bool datagram_moves(const struct backend *b)
{
	return !b || b->state == BACKEND_GONE || b->flags & BACKEND_UNSERVING;
}

/*
 * Have the client's next packets find what these began: they cannot be told from
 * the first, or, being fragments, have no ports.
 */
static __always_inline enum verdict begin_again(const struct segment *s, struct halves *room)
{
	struct half_flow *half = &room->reverse.value;

	if ((half->flow.flags | room->forward.flags) & FLOW_REPLIED) {
		room->forward.flags |= FLOW_REPLIED;
		return handshake_client(s);
	}
	half->flow = room->forward;
	half->since = 0;
	bpf_map_update_elem(&half_open, &room->key, half, BPF_ANY);
	return VERDICT_NONE;
}

/* The i-th try to find the other half of a lost one. True: it is found, room->forward completed. */
static long restore_try(__u32 i, struct beginning *bg)
{
	struct half_flow *h;
	struct flow *f;

	begin_with_port(bg, i);
	h = bpf_map_lookup_elem(&half_open, &bg->reverse->key);
	f = h ? &h->flow : bpf_map_lookup_elem(&flows, &bg->reverse->key);
	if (!f)
		f = bpf_map_lookup_elem(&closed, &bg->reverse->key);
	if (!f || !(f->flags & FLOW_REVERSE) || !flow_pairs(bg->key, f))
		return 0;
	bg->forward->backend = f->backend;
	bg->forward->generation = f->generation;
	bg->forward->began = f->began;
	bg->forward->flags = flags_mirror(f->flags);
	if (h) {
		bg->claim = CLAIM_AGAIN;
		bg->forward->ack = h->flow.end;
		bg->forward->end = h->flow.ack;
	} else if (!flow_closed(f->flags)) {
		bpf_map_update_elem(&flows, bg->key, bg->forward, BPF_NOEXIST);
	}
	bg->verdict = VERDICT_NONE;
	return 1;
}

/* Look for the flow of s to backend b. */
static __always_inline bool restore(const struct segment *s, const struct backend *b, __u32 index,
				    struct beginning *bg)
{
	bg->forward->backend = index;
	bg->verdict = begin_prepare(s, b, 0, bg->forward);
	if (bg->verdict != VERDICT_NONE)
		return false;
	bg->verdict = VERDICT_NO_FLOW;
	bpf_loop(RESTORE_TRIES, restore_try, bg, 0);
	return bg->verdict == VERDICT_NONE;
}

/*
 * Look for it at the backend that the client's tuple was last given, if that is
 * not the one the table names: there, claiming or restoring will find it.
 */
static __always_inline bool restore_given(const struct segment *s, const struct halves *room,
					  struct beginning *bg)
{
	struct backend *b;
	__u32 index;

	if (!given_recall(bg->hash, &index) || index == room->named)
		return false;
	b = bpf_map_lookup_elem(&backends, &index);
	if (!b || !restore(s, b, index, bg))
		return false;
	return s->key.proto != IPPROTO_UDP || !datagram_moves(flow_backend(bg->forward));
}

/* Have a flow that was found go on. */
static __always_inline enum verdict begin_restored(const struct segment *s, struct halves *room,
						   const struct beginning *bg)
{
	if (s->key.proto != IPPROTO_UDP)
		return handshake_client(s);
	return bg->claim == CLAIM_AGAIN ? begin_again(s, room) : VERDICT_NONE;
}

/* Whether a connection can go on with a backend that shall know it: by the client's own port. */
static __always_inline bool begin_goes_on(const struct flow *f)
{
	/* A pod would not be asked for answers to itself. */
	return !flow_routed(f) && !(f->flags & FLOW_HAIRPIN);
}

/* The end of a connection does not begin one: it is sent on, unless it would be heard in another.
 */
static __always_inline enum verdict begin_ends(struct beginning *bg)
{
	begin_with_port(bg, 0);
	return bpf_map_lookup_elem(&flows, &bg->reverse->key) ||
			       bpf_map_lookup_elem(&half_open, &bg->reverse->key)
		       ? VERDICT_NO_FLOW
		       : VERDICT_NONE;
}

/* What becomes of the middle of a connection that cannot go on here. */
static __always_inline enum verdict begin_unknown(void)
{
	return cfg_unknown_flow == UNKNOWN_PASS ? VERDICT_NOT_SERVICE : VERDICT_NO_FLOW;
}

/*
 * The middle of a connection whose backend is elsewhere. It may have come in there so far,
 * before routers chose another way: the node of the backend is the one that may know it.
 * SCTP is not sent there: its peers know more addresses of each other.
 */
static __always_inline enum verdict begin_elsewhere(const struct segment *s, struct beginning *bg)
{
	struct halves *room = halves_room();
	__u32 index;

	if (s->pod || s->key.proto != IPPROTO_TCP || !(s->tcp_flags & TCP_ACK) ||
	    s->tcp_flags & TCP_RST || cfg_unknown_flow != UNKNOWN_PEER || !room)
		return begin_unknown();
	room->passed = given_recall(bg->hash, &index) && index == bg->forward->backend;
	return VERDICT_PASSED_ON;
}

/* Begin a flow to backend b. VERDICT_NONE: room->forward is its forward half. */
static __always_inline enum verdict begin_with_backend(const struct segment *s,
						       const struct frontend *fe,
						       const struct backend *b, bool allowed,
						       struct beginning *bg)
{
	__u32 flags = fe->affinity ? FLOW_STICKY : 0;

	bg->reverse->value.since = 0;
	if (is_midway(s)) {
		if (restore(s, b, bg->forward->backend, bg))
			return VERDICT_NONE;
		if (bg->verdict == VERDICT_WAY_WANTED)
			return VERDICT_WAY_WANTED;
		if (!allowed)
			return VERDICT_SOURCE_RANGE;
		if (!begin_goes_on(bg->forward))
			return begin_elsewhere(s, bg);
		if (s->tcp_flags & TCP_RST)
			return begin_ends(bg);
		flags |= FLOW_MIDWAY;
	} else if (s->key.proto != IPPROTO_UDP && !(bg->hash & LATENCY_SAMPLE)) {
		bg->reverse->value.since = bpf_ktime_get_ns();
	}
	bg->verdict = begin_prepare(s, b, flags, bg->forward);
	if (bg->verdict != VERDICT_NONE)
		return bg->verdict;
	if (!flows_have_room())
		return VERDICT_MAP_FULL;
	claim_tuple(bg);
	return bg->verdict;
}

/* Nothing of a beginning is known but its key, in room. */
static __always_inline void begin_clear(const struct segment *s, struct halves *room,
					struct beginning *bg)
{
	room->key = s->key;
	__builtin_memset(&room->forward, 0, sizeof(room->forward));
	bg->key = &room->key;
	bg->forward = &room->forward;
	bg->reverse = &room->reverse;
	bg->hash = tuple_hash(&room->key);
	bg->claim = CLAIM_FAILED;
	bg->verdict = VERDICT_NO_FLOW;
}

/* The tuple is claimed: have others find what has begun. */
static __always_inline enum verdict begin_claimed(const struct segment *s, struct halves *room,
						  const struct beginning *bg)
{
	given_note(bg->hash, room->forward.backend);
	filter_note(&room->forward.dst, room->forward.dport, s->key.proto, room->forward.seen);
	if (s->more || (bg->claim == CLAIM_AGAIN && !(s->tcp_flags & TCP_SYN)))
		return begin_again(s, room);
	return VERDICT_NONE;
}

/*
 * Begin a flow by frontend fe. VERDICT_NONE: its forward half is in halves_room().
 * VERDICT_WAY_WANTED: see there.
 */
__noinline int begin_flow(const struct segment *s, const struct frontend *fe)
{
	struct halves *room = halves_room();
	struct beginning bg;
	struct backend *b;
	enum verdict v;
	bool allowed;

	if (!s || !fe || !room)
		return VERDICT_MAP_FULL;
	begin_clear(s, room, &bg);
	room->wanted[1] = NO_BACKEND;
	allowed = !(fe->flags & FRONTEND_RANGES) || in_source_ranges(&room->key, fe);
	if (!allowed && !is_midway(s))
		return VERDICT_SOURCE_RANGE;
	room->named = NO_BACKEND;
	b = select_backend(fe, &room->key, s->pod, bg.hash, &room->named);
	if ((is_midway(s) || s->key.proto == IPPROTO_UDP) && restore_given(s, room, &bg))
		return begin_restored(s, room, &bg);
	/* Backends share what is known of ways: once is enough. */
	if (bg.verdict == VERDICT_WAY_WANTED && !room->asked) {
		room->wanted[1] = room->named;
		return VERDICT_WAY_WANTED;
	}
	if (!b)
		return select_verdict(fe);
	bg.claim = CLAIM_FAILED;
	room->forward.backend = room->named;
	v = begin_with_backend(s, fe, b, allowed, &bg);
	if (v != VERDICT_NONE)
		return v;
	if (bg.claim != CLAIM_OK && is_midway(s)) /* nothing was claimed: it was found */
		return handshake_client(s);
	return begin_claimed(s, room, &bg);
}

#endif
