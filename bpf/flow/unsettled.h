/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets of flows that are not in flows: in half_open because they are not proved,
 * or in closed. A function of its own for the verifier: what comes of it is a
 * verdict and, if the packet is to be translated, a copy in halves_room()->result,
 * because the entry may go while it is used.
 */
#ifndef EBB_FLOW_UNSETTLED_H
#define EBB_FLOW_UNSETTLED_H

#include "flow/begin.h"

/* Which entries are looked at. */
enum unsettled {
	UNSETTLED_ALL = 0,
	UNSETTLED_HALF = 1,   /* those in half_open */
	UNSETTLED_PROVED = 2, /* a client's there, whose flow is proved or whose packet proves it */
};

static __always_inline bool backend_lost(const struct backend *b)
{
	return !b || b->state == BACKEND_GONE;
}

/* Whether a packet of an established connection is answered with a RST, its backend being gone. */
static __always_inline bool connection_ends(const struct segment *s, const struct flow *f,
					    const struct backend *b)
{
	return backend_lost(b) && s->key.proto == IPPROTO_TCP && !(f->flags & FLOW_REVERSE) &&
	       !(s->tcp_flags & TCP_RST);
}

/*
 * Whether f cannot go on although its backend's address is still there: it has come to
 * this node, or left it, so what f is translated to is not answered through a program.
 * What begins at a pod's link is, wherever the backend is.
 */
static __always_inline bool flow_misled(const struct segment *s, const struct flow *f,
					const struct backend *b)
{
	return b && b->flags & BACKEND_MOVED && !(f->flags & FLOW_POD) &&
	       s->key.proto == IPPROTO_TCP && !(s->tcp_flags & TCP_RST);
}

/* A packet of a backend in a handshake, or its answer to a datagram. VERDICT_NONE: none of it. */
static __always_inline enum verdict unsettled_answer(const struct segment *s, struct half_flow *h,
						     struct halves *room)
{
	int reply = handshake_backend(s, h);

	if (reply == REPLY_LATE)
		return VERDICT_LATE_ANSWER;
	/* Perhaps of a connection without a Service, whose tuple is the same. */
	if (reply == REPLY_OTHER) {
		room->key = s->key;
		if (!owned_asks(&room->key))
			return flow_routed(&h->flow) ? VERDICT_SNAT_UNKNOWN : VERDICT_NONE;
	}
	room->result = reply == REPLY_COPIED ? room->reverse.value.flow : h->flow;
	return flow_verdict(&room->result);
}

/* A packet of a client, not a SYN, whose flow is not proved. VERDICT_NONE: it begins anew. */
static __always_inline enum verdict unsettled_client(const struct segment *s, struct half_flow *h,
						     struct halves *room)
{
	enum verdict v;

	if ((s->key.proto == IPPROTO_UDP && datagram_moves(flow_backend(&h->flow))) ||
	    (h->flow.seen != now_tick() && !half_refresh(&s->key, &h->flow))) {
		room->key = s->key;
		bpf_map_delete_elem(&half_open, &room->key);
		return VERDICT_NONE;
	}
	room->forward = h->flow;
	v = handshake_client(s);
	if (v != VERDICT_NONE)
		return v;
	room->result = room->forward;
	return flow_verdict(&room->result);
}

/* A reply on its way to where its entry acts; or a client that has moved, and begins anew. */
static __always_inline enum verdict unsettled_crosses(const struct flow *f)
{
	return f->flags & FLOW_REVERSE ? VERDICT_NOT_SERVICE : VERDICT_NONE;
}

/* A packet of a flow that is not proved. */
static __always_inline enum verdict unsettled_half(const struct segment *s, struct halves *room,
						   enum hook hook, enum unsettled which)
{
	struct half_flow *h = bpf_map_lookup_elem(&half_open, &room->key);

	if (!h)
		return VERDICT_NONE;
	if (which == UNSETTLED_PROVED &&
	    (h->flow.flags & FLOW_REVERSE || !flow_at_hook(&h->flow, hook) ||
	     !(h->flow.flags & FLOW_PROVED || handshake_proves(s, &h->flow))))
		return VERDICT_NONE;
	if (!flow_at_hook(&h->flow, hook))
		return unsettled_crosses(&h->flow);
	if (h->flow.flags & FLOW_REVERSE)
		return unsettled_answer(s, h, room);
	return unsettled_client(s, h, room);
}

/*
 * Whether a closed flow has left its place to others: its client has been given to
 * another backend since, where it is looked for, or its tuple to another flow.
 */
static __always_inline bool closed_succeeded(const struct segment *s, const struct flow *c,
					     struct halves *room)
{
	__u32 backend;
	struct flow *f;

	if (c->flags & FLOW_REVERSE)
		return false;
	if (given_recall(tuple_hash(&s->key), &backend) && backend != c->backend)
		return true;
	flow_mirror_key(c, s->key.proto, &room->reverse.key);
	f = bpf_map_lookup_elem(&flows, &room->reverse.key);
	return f && !flow_pairs(&s->key, f);
}

/* A packet of a flow that is closed. What begins one does not travel by it. */
static __always_inline enum verdict unsettled_closed(const struct segment *s, struct halves *room,
						     enum hook hook)
{
	struct flow *c;

	if (s->key.proto == IPPROTO_UDP || s->tcp_flags & TCP_SYN)
		return VERDICT_NONE;
	room->key = s->key;
	c = bpf_map_lookup_elem(&closed, &room->key);
	if (!c)
		return VERDICT_NONE;
	if (!flow_at_hook(c, hook))
		return unsettled_crosses(c);
	if (closed_succeeded(s, c, room))
		return VERDICT_NONE;
	c->seen = now_tick();
	/* The answer to an earlier one was lost; the address may be another pod's by now. */
	if (cfg_gone_reset && connection_ends(s, c, flow_backend(c)))
		return VERDICT_BACKEND_GONE;
	if (closed_lives(s, c))
		flow_reopen(s, c);
	room->result = *c;
	return flow_verdict(&room->result);
}

/*
 * It was on its way from half_open or closed to flows while it was looked for, so
 * that it was met in neither. Left alone otherwise: the next packet finds it.
 */
static __always_inline enum verdict unsettled_missed(struct halves *room, enum hook hook)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &room->key);

	if (!f || f->flags & FLOW_CLOSED || !flow_at_hook(f, hook))
		return VERDICT_NONE;
	room->result = *f;
	return flow_verdict(&room->result);
}

/* A packet whose key has no entry in flows, or none that acts at this hook. */
__noinline int flow_unsettled(const struct segment *s, __u32 hook, __u32 which)
{
	struct halves *room = halves_room();
	enum verdict v;

	if (!s || !room)
		return VERDICT_NONE;
	room->key = s->key;
	v = unsettled_half(s, room, hook, which);
	if (v != VERDICT_NONE || which != UNSETTLED_ALL)
		return v;
	v = unsettled_closed(s, room, hook);
	if (v != VERDICT_NONE)
		return v;
	room->key = s->key;
	return unsettled_missed(room, hook);
}

#endif
