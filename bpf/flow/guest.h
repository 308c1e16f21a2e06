/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections without a Service that want the tuple of a flow.
 *
 * A client may connect to a pod by a Service and by its own address, from one port of
 * its own; the node may connect to a backend by a port that a flow was given, or
 * netfilter may, for who it masquerades. The backend would take both for one. So the
 * second gets another source port, as netfilter would give it:
 *
 *	first       then         the second
 *	flow        SYN, UDP     is a guest: a flow to where it goes anyway, source port rewritten
 *	SYN         flow         claims another port, theirs_asks() knows
 *	unknown     flow, TCP    the backend acknowledges what nobody sent: FLOW_OCCUPIED
 *	unknown     flow, UDP    the next datagram of the first is a guest
 *	closed      SYN          has the tuple: the backend takes the SYN for it as well
 *
 * A guest is an entry like any other. Its backend is that of the flow. FLOW_OUTWARD:
 * it comes from the node's side, so that it is met where it leaves.
 *
 * What XDP has translated and passes up is met by TC once more, and what a flow's
 * packets become there is what a guest's were, or the other way round. So each is
 * translated by one of them: FLOW_GUEST by XDP where there is one, FLOW_OUTWARD by TC.
 */
#ifndef EBB_FLOW_GUEST_H
#define EBB_FLOW_GUEST_H

#include "flow/begin.h"

/* The tuple of a backend's answers to s goes to room. */
static __always_inline void guest_tuple(const struct segment *s, struct halves *room)
{
	room->reverse.key.src = s->key.dst;
	room->reverse.key.dst = s->key.src;
	room->reverse.key.sport = s->key.dport;
	room->reverse.key.dport = s->key.sport;
	room->reverse.key.proto = s->key.proto;
}

/* The entry of a flow that has the tuple in room, or NULL. */
static __always_inline struct flow *guest_host(struct halves *room)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &room->reverse.key);
	struct half_flow *h;

	if (f)
		return f;
	h = bpf_map_lookup_elem(&half_open, &room->reverse.key);
	return h ? &h->flow : NULL;
}

/* No flow has the tuple in room, or one that is closed: it is theirs who send a SYN. */
static __always_inline void guest_free(struct halves *room)
{
	struct flow *c = bpf_map_lookup_elem(&closed, &room->reverse.key);

	theirs_note(&room->reverse.key);
	if (c)
		closed_forget(&room->reverse.key, c);
}

/* Whether the flow of reverse half f and a connection met at hook pass the same devices. */
static __always_inline bool guest_meets(const struct flow *f, enum hook hook)
{
	if (!(f->flags & FLOW_REVERSE))
		return false;
	if (hook_is_pod(hook))
		return f->flags & FLOW_POD;
	if (hook_is_egress(hook))
		return flow_routed(f);
	return !(f->flags & (FLOW_POD | FLOW_REMOTE));
}

/* Fill in everything of the guest's forward half but the source port. */
static __always_inline void guest_prepare(const struct segment *s, const struct flow *host,
					  enum hook hook, struct flow *f)
{
	f->tag = tuple_tag(&s->key);
	f->src = s->key.src;
	f->dst = s->key.dst;
	f->dport = s->key.dport;
	f->backend = host->backend;
	f->generation = host->generation;
	f->seen = now_tick();
	f->began = f->seen;
	f->end = begin_expects(s);
	if (hook_is_pod(hook))
		f->flags = FLOW_GUEST | (host->flags & (FLOW_POD | FLOW_REMOTE));
	else
		f->flags = hook_is_egress(hook) ? FLOW_OUTWARD : FLOW_GUEST;
}

/*
 * A SYN or datagram to a backend that has flows, but to no Service. VERDICT_NONE:
 * the tuple was a flow's, and the guest's forward half is in halves_room().
 */
__noinline int guest_begin(const struct segment *s, __u32 hook)
{
	struct halves *room = halves_room();
	struct beginning bg;
	struct flow *host;

	if (!s || !room)
		return VERDICT_NOT_SERVICE;
	guest_tuple(s, room);
	host = guest_host(room);
	if (!host && s->key.proto != IPPROTO_UDP)
		guest_free(room);
	if (!host || !guest_meets(host, hook))
		return VERDICT_NOT_SERVICE;
	begin_clear(s, room, &bg);
	guest_prepare(s, host, hook, &room->forward);
	room->reverse.value.since = 0;
	if (!flows_have_room())
		return VERDICT_NOT_SERVICE;
	claim_tuple(&bg);
	if (bg.verdict != VERDICT_NONE)
		return VERDICT_NOT_SERVICE;
	filter_note(&room->forward.dst, room->forward.dport, s->key.proto ^ FILTER_GUEST,
		    room->forward.seen);
	return begin_claimed(s, room, &bg);
}

#endif
