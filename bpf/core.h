/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * parse -> flow -> select: what is to become of a packet. Shared by all hooks;
 * touches maps, never a packet or a context.
 */
#ifndef EBB_CORE_H
#define EBB_CORE_H

#include "address.h"
#include "begin.h"

/* What a hook has to carry out. */
struct outcome {
	struct flow *flow;             /* the rewrite; NULL: none */
	struct backend_counts *counts; /* of its backend; NULL: its index has another one now */
	bool confirm;                  /* let the kernel confirm the neighbour this time */
	bool fresh;                    /* flow is not an entry yet, but a copy */
};

/* Every 16th tick an active flow takes one packet through the kernel's neighbour code. */
#define CONFIRM_TICKS 15

static __always_inline enum verdict flow_verdict(const struct flow *f)
{
	if (f->flags & FLOW_REVERSE)
		return f->flags & FLOW_REMOTE ? VERDICT_REPLY_REMOTE : VERDICT_REPLY_LOCAL;
	return f->flags & FLOW_REMOTE ? VERDICT_TO_REMOTE : VERDICT_TO_LOCAL;
}

/* Whether ebb sends its packets on itself. */
static __always_inline bool flow_routed(const struct flow *f)
{
	return (f->flags & (FLOW_REMOTE | FLOW_POD)) == FLOW_REMOTE;
}

static __always_inline bool hook_is_pod(enum hook hook)
{
	return hook == HOOK_POD_INGRESS || hook == HOOK_POD_EGRESS;
}

static __always_inline bool hook_is_egress(enum hook hook)
{
	return hook == HOOK_TC_EGRESS || hook == HOOK_POD_EGRESS;
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
	where = f->flags & (FLOW_REVERSE | FLOW_REMOTE | FLOW_POD);
	if (hook_is_egress(hook))
		return where == FLOW_REVERSE;
	return where != FLOW_REVERSE && !(where & FLOW_POD);
}

/* Whether the datagrams of a flow to b go elsewhere from now on. */
static __always_inline bool datagram_moves(const struct backend *b)
{
	return !b || b->state == BACKEND_GONE || b->flags & BACKEND_UNSERVING;
}

/* Whether a packet of an established connection is answered with a RST, its backend being gone. */
static __always_inline bool core_ends(const struct packet *p, const struct flow *f,
				      const struct backend *b)
{
	return (!b || b->state == BACKEND_GONE) && p->seg.key.proto == IPPROTO_TCP &&
	       !(f->flags & FLOW_REVERSE) && !(p->seg.tcp_flags & TCP_RST);
}

/* An established packet. VERDICT_NONE: not so, it begins a new flow. */
static __always_inline enum verdict core_hit(struct packet *p, struct flow *f, struct outcome *o)
{
	__u32 now = now_tick();
	struct backend *b;

	if (p->seg.key.proto == IPPROTO_TCP) {
		if (p->seg.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || f->flags & FLOW_RST)
			if (flow_control(&p->seg, f))
				return VERDICT_NONE;
		f->ack = p->seg.ack;
	} else if (p->seg.key.proto == IPPROTO_SCTP) {
		if (p->seg.tcp_flags || f->flags & FLOW_RST)
			if (flow_control(&p->seg, f))
				return VERDICT_NONE;
		/* Once, so that a guess cannot become what guesses are compared with. */
		if (!f->ack)
			f->ack = p->seg.ack;
	} else if ((f->flags & (FLOW_REVERSE | FLOW_REPLIED)) == FLOW_REVERSE) {
		f->flags |= FLOW_REPLIED;
	}
	b = flow_backend(f);
	o->counts = b ? bpf_map_lookup_elem(&backend_stats, &f->backend) : NULL;
	/* A connection stays with what it has; a datagram goes to a backend that is there. */
	if (p->seg.key.proto == IPPROTO_UDP) {
		if (!(f->flags & FLOW_REVERSE) && datagram_moves(b)) {
			flow_forget(&p->seg.key, f);
			return VERDICT_NONE;
		}
	} else if (cfg_gone_reset && core_ends(p, f, b)) {
		o->flow = f;
		return VERDICT_BACKEND_GONE;
	}
	o->flow = f;
	if (f->seen != now) {
		if (!flow_refresh(&p->seg.key, f, now))
			return VERDICT_FLOW_CONFLICT;
		o->confirm = !(now & CONFIRM_TICKS);
	}
	return flow_verdict(f);
}

/* A packet of a handshake under way, from its backend. */
static __always_inline enum verdict core_answer(struct packet *p, struct half_flow *h,
						struct outcome *o)
{
	if (!handshake_answered(&p->seg.key, h, p->seg.tcp_flags))
		return VERDICT_LATE_ANSWER;
	o->flow = &h->flow;
	o->counts = flow_counts(&h->flow);
	return flow_verdict(&h->flow);
}

/* Have the forward half in room carried out. */
static __always_inline enum verdict core_fresh(struct halves *room, struct outcome *o)
{
	o->flow = &room->forward;
	o->fresh = true;
	o->counts = flow_counts(&room->forward);
	return flow_verdict(&room->forward);
}

/* The same, from its client. The entry may go while its copy is used. */
static __always_inline enum verdict core_handshake(struct packet *p, struct half_flow *h,
						   struct halves *room, struct outcome *o)
{
	if (p->seg.tcp_flags & TCP_RST)
		room->forward = h->flow;
	else
		handshake_done(&p->seg, h);
	return core_fresh(room, o);
}

/* Whether this packet may be an answer to a source port of ours. */
static __always_inline bool to_snat(const struct packet *p)
{
	__u16 port = bpf_ntohs(p->seg.key.dport);
	struct runtime_values *rt;

	if (port < cfg_snat_min || port > cfg_snat_max)
		return false;
	rt = runtime_get();
	return rt && addr_equal(&p->seg.key.dst, p->seg.v4 ? &rt->snat4 : &rt->snat6);
}

/* Whether a TCP packet that arrives may be an answer in a handshake under way. */
static __always_inline bool core_answers(const struct packet *p, enum hook hook)
{
	__u8 flags = p->seg.tcp_flags;

	/* Of a pod only to itself, and that is not worth a question for each of its packets. */
	if (hook_is_pod(hook))
		return flags & TCP_RST || (flags & TCP_SYN && flags & TCP_ACK);
	return to_snat(p);
}

/* A packet that belongs to no flow, arriving. */
static __always_inline enum verdict core_miss(struct packet *p, struct outcome *o, enum hook hook)
{
	struct halves *room = halves_room();
	struct frontend *fe;
	struct half_flow *h;
	enum verdict v;

	p->seg.pod = hook_is_pod(hook);
	if (p->seg.key.proto != IPPROTO_UDP && core_answers(p, hook)) {
		h = bpf_map_lookup_elem(&half_open, &p->seg.key);
		if (h && h->flow.flags & FLOW_REVERSE && flow_at_hook(&h->flow, hook))
			return core_answer(p, h, o);
	}
	fe = frontend_lookup(&p->seg.key);
	if (!fe && !address_in_services(&p->seg.key.dst, p->seg.v4))
		return VERDICT_NOT_SERVICE;
	if (!room)
		return VERDICT_MAP_FULL;
	/* A SYN does not ask: claiming finds its handshake again, see handshake_lead(). */
	if (p->seg.key.proto != IPPROTO_UDP && !(p->seg.tcp_flags & TCP_SYN)) {
		h = bpf_map_lookup_elem(&half_open, &p->seg.key);
		if (h && !(h->flow.flags & FLOW_REVERSE))
			return core_handshake(p, h, room, o);
	}
	if (!fe)
		return address_verdict(&p->seg.key.dst);
	v = begin_flow(&p->seg, fe);
	return v == VERDICT_NONE ? core_fresh(room, o) : v;
}

static __always_inline enum verdict core_ingress(struct packet *p, struct outcome *o,
						 enum hook hook)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->seg.key);
	enum verdict v;

	if (f) {
		if (!flow_at_hook(f, hook))
			return VERDICT_NOT_SERVICE;
		v = core_hit(p, f, o);
		if (v != VERDICT_NONE)
			return v;
	}
	return core_miss(p, o, hook);
}

static __always_inline enum verdict core_egress(struct packet *p, struct outcome *o, enum hook hook)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->seg.key);
	struct half_flow *h;
	enum verdict v;

	if (f) {
		if (!flow_at_hook(f, hook))
			return VERDICT_NOT_SERVICE;
		v = core_hit(p, f, o);
		return v == VERDICT_NONE ? VERDICT_NOT_SERVICE : v;
	}
	if (p->seg.key.proto == IPPROTO_UDP)
		return VERDICT_NOT_SERVICE;
	h = bpf_map_lookup_elem(&half_open, &p->seg.key);
	if (!h || !flow_at_hook(&h->flow, hook))
		return VERDICT_NOT_SERVICE;
	return core_answer(p, h, o);
}

/* The flow is asked for too: the verifier does not see that it goes with the verdict. */
static __always_inline bool core_translates(const struct outcome *o, enum verdict v)
{
	return v >= VERDICT_TO_LOCAL && v <= VERDICT_REPLY_REMOTE && o->flow;
}

static __always_inline void core_init(struct outcome *o)
{
	o->flow = NULL;
	o->counts = NULL;
	o->confirm = false;
	o->fresh = false;
}

/* Dropped, and the sender is told, with an skb. */
static __always_inline bool verdict_refuses(enum verdict v)
{
	return v == VERDICT_NO_ENDPOINTS || v == VERDICT_NO_PORT || v == VERDICT_BACKEND_GONE;
}

static __always_inline bool verdict_passes(enum verdict v)
{
	return v < VERDICT_TO_LOCAL;
}

static __always_inline bool verdict_routes(enum verdict v)
{
	return v == VERDICT_TO_REMOTE || v == VERDICT_REPLY_REMOTE;
}

static __always_inline void count_verdict(enum hook hook, enum verdict v)
{
	__u32 key = hook * VERDICT_MAX + v;
	__u64 *counter = bpf_map_lookup_elem(&counters, &key);

	if (counter)
		(*counter)++;
}

static __always_inline void count_packet(const struct outcome *o, enum verdict v, __u32 bytes)
{
	if (!o->counts)
		return;
	if (v == VERDICT_TO_LOCAL || v == VERDICT_TO_REMOTE) {
		o->counts->packets++;
		o->counts->bytes += bytes;
	} else {
		o->counts->rx_packets++;
		o->counts->rx_bytes += bytes;
	}
}

#endif
