/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is to become of a packet: read this first. Shared by all hooks; touches
 * maps, never a packet or a context, but to ask whose frame it is in.
 *
 *	in flows      established: rewritten as the entry says       core_hit
 *	in half_open  not proved yet: the same, and perhaps promoted core_unsettled
 *	in closed     over: the same, and perhaps put back           core_unsettled
 *	in none       begins a flow, or is refused, or none of ours  core_miss
 */
#ifndef EBB_FLOW_DECIDE_H
#define EBB_FLOW_DECIDE_H

#include "abi/verdict.h"
#include "route/station.h"
#include "flow/address.h"
#include "flow/guest.h"
#include "flow/unsettled.h"

/* What a hook has to carry out. */
struct outcome {
	struct flow *flow;             /* the rewrite; NULL: none */
	struct backend_counts *counts; /* of its backend; NULL: its index has another one now */
	struct frontend *frontend;     /* by which it may begin a flow */
	__u32 ifindex;                 /* TC: the device of the hook */
	bool resumed;                  /* for a tick and more, flow has had no packet before */
	bool fresh;                    /* flow is a copy: what is noted in it is forgotten */
};

/* Have a half in halves_room() carried out. */
static __always_inline enum verdict core_copy(struct flow *copy, struct outcome *o)
{
	o->flow = copy;
	o->fresh = true;
	o->counts = flow_counts(copy);
	return flow_verdict(copy);
}

/* A packet of no established flow that acts here: of one that is not proved, or closed. */
static __always_inline enum verdict core_unsettled(struct packet *p, struct outcome *o,
						   enum hook hook, enum unsettled which)
{
	enum verdict v = flow_unsettled(&p->seg, hook, which);
	struct halves *room = halves_room();

	if (!verdict_translates(v) || !room)
		return v;
	return core_copy(&room->result, o);
}

/* Whether a TCP or SCTP packet may change more than when its flow was last seen. */
static __always_inline bool core_controls(const struct packet *p, const struct flow *f)
{
	if (p->seg.key.proto == IPPROTO_SCTP)
		return p->seg.tcp_flags & (TCP_SYN | TCP_RST);
	return p->seg.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) ||
	       (f->flags & FLOW_FIN && (__s32)(p->seg.end - f->end) > 0);
}

/* Note what the next RST is compared with. */
static __always_inline void core_note(const struct packet *p, struct flow *f)
{
	if (p->seg.key.proto == IPPROTO_SCTP) {
		/* Once, so that a guess cannot become what guesses are compared with. */
		if (!f->ack)
			f->ack = p->seg.ack;
	} else if (!(p->seg.tcp_flags & TCP_RST)) {
		f->ack = p->seg.ack;
		f->end = p->seg.end;
	}
}

/*
 * An established packet. VERDICT_NONE: not so, it begins a new flow. Whose frame it
 * is in is asked where it does more than to be sent on, and once a tick: frames for
 * others do not refresh a flow, so all of those of a flow that has no packets here are found.
 */
static __always_inline enum verdict core_hit(void *ctx, struct packet *p, struct flow *f,
					     struct outcome *o, enum hook hook)
{
	struct backend *b = flow_backend(f);
	__u32 now = now_tick();
	bool due = f->seen != now;
	enum verdict v;

	if (due && frame_foreign(ctx, hook))
		return VERDICT_NOT_OURS;
	if (p->seg.key.proto != IPPROTO_UDP) {
		if (backend_lost(b) && !(f->flags & FLOW_REVERSE)) {
			if (frame_foreign(ctx, hook))
				return VERDICT_NOT_OURS;
			/* Its client may have begun anew, which takes the place of this flow once
			 * it is proved. */
			v = core_unsettled(p, o, hook, UNSETTLED_PROVED);
			if (v != VERDICT_NONE)
				return v;
			if (!cfg_gone_reset && flow_misled(&p->seg, f, b)) {
				o->flow = f;
				return VERDICT_BACKEND_GONE;
			}
		}
		if (core_controls(p, f)) {
			struct halves *room = halves_room();
			int c;

			if (frame_foreign(ctx, hook))
				return VERDICT_NOT_OURS;
			c = flow_control(&p->seg, f);
			if (c == CONTROL_BEGINS)
				return VERDICT_NONE;
			if (c == CONTROL_CLOSED && room)
				return core_copy(&room->forward, o);
		}
		core_note(p, f);
	}
	o->counts = b ? bpf_map_lookup_elem(&backend_stats, &f->backend) : NULL;
	/* A connection stays with what it has; a datagram goes to a backend that is there. */
	if (p->seg.key.proto == IPPROTO_UDP) {
		if (!(f->flags & FLOW_REVERSE) && datagram_moves(b)) {
			if (frame_foreign(ctx, hook))
				return VERDICT_NOT_OURS;
			flow_forget(&p->seg.key, f);
			return VERDICT_NONE;
		}
	} else if (cfg_gone_reset && connection_ends(&p->seg, f, b)) {
		o->flow = f;
		return VERDICT_BACKEND_GONE;
	}
	o->flow = f;
	if (due) {
		o->resumed = now - f->seen > 1;
		if (!flow_refresh(&p->seg.key, f, now))
			return VERDICT_FLOW_CONFLICT;
	}
	return flow_verdict(f);
}

/* Whether this packet is to an address and port that ebb may send from. */
static __always_inline bool to_snat(const struct packet *p)
{
	__u16 port = bpf_ntohs(p->seg.key.dport);

	return port >= cfg_snat_min && port <= cfg_snat_max &&
	       address_may_be_own(&p->seg.key.dst) && address_flags(&p->seg.key.dst) & ADDRESS_NODE;
}

/* Whether it may be what a pod answers to itself, whatever address it did that by. */
static __always_inline bool core_hairpins(const struct packet *p)
{
	return p->seg.pod && filter_asks(&p->seg.key.src, p->seg.key.sport, p->seg.key.proto);
}

/* The device of a hook of TC, or NULL. */
static __always_inline struct device *core_device(const struct outcome *o)
{
	__u32 ifindex = o->ifindex;

	return bpf_map_lookup_elem(&devices, &ifindex);
}

/* Whether another program has looked at what arrives at a hook of TC: it may be translated already.
 */
static __always_inline bool core_looked(const struct packet *p, const struct outcome *o,
					enum hook hook)
{
	struct device *d;

	/* Fragments are for TC. */
	if (hook != HOOK_TC_INGRESS || p->seg.more)
		return false;
	d = core_device(o);
	return d && d->flags & (DEVICE_XDP_TX | DEVICE_STACKED);
}

/* Whether nothing begins at the device of a hook. */
static __always_inline bool core_answers_only(const struct outcome *o, enum hook hook)
{
	struct device *d;

	if (hook != HOOK_TC_INGRESS)
		return false;
	d = core_device(o);
	return d && d->flags & DEVICE_ANSWERS;
}

/* A SYN to what is no Service, and no backend that has flows. */
static __always_inline enum verdict core_theirs(const struct packet *p)
{
	struct halves *room = halves_room();

	if (room) {
		guest_tuple(&p->seg, room);
		theirs_note(&room->reverse.key);
	}
	return VERDICT_NOT_SERVICE;
}

/* A SYN or datagram to a backend that has flows. */
static __always_inline enum verdict core_guest(struct packet *p, struct outcome *o, enum hook hook)
{
	enum verdict v = guest_begin(&p->seg, hook);
	struct halves *room = halves_room();

	return v == VERDICT_NONE && room ? core_copy(&room->forward, o) : v;
}

/* Neither a flow's nor a service's: perhaps it is a guest or becomes one, see guest.h. */
static __always_inline enum verdict core_others(void *ctx, struct packet *p, struct outcome *o,
						enum hook hook)
{
	const struct flow_key *k = &p->seg.key;
	bool syn = k->proto != IPPROTO_UDP && segment_opens(&p->seg);
	bool guest = !syn && filter_asks(&k->dst, k->dport, k->proto ^ FILTER_GUEST);
	bool host = (syn || k->proto == IPPROTO_UDP) && filter_asks(&k->dst, k->dport, k->proto);
	enum verdict v = VERDICT_NONE;

	if (!(guest || host || syn) || core_looked(p, o, hook))
		return VERDICT_NOT_SERVICE;
	if (frame_foreign(ctx, hook))
		return VERDICT_NOT_OURS;
	if (guest)
		v = core_unsettled(p, o, hook, UNSETTLED_ALL);
	if (v == VERDICT_NONE && host)
		v = core_guest(p, o, hook);
	else if (v == VERDICT_NONE && syn)
		v = core_theirs(p);
	return v == VERDICT_NONE ? VERDICT_NOT_SERVICE : v;
}

/*
 * A packet that belongs to no established flow, arriving. VERDICT_NONE: nor to any
 * other, but it is for o->frontend, see core_begin().
 */
static __always_inline enum verdict core_miss(void *ctx, struct packet *p, struct outcome *o,
					      enum hook hook)
{
	struct halves *room = halves_room();
	struct frontend *fe = NULL;
	bool syn = segment_opens(&p->seg);
	bool snat = !hook_is_pod(hook) && to_snat(p);
	enum verdict v;

	p->seg.pod = hook_is_pod(hook);
	if (!snat) {
		fe = frontend_lookup(&p->seg.key);
		if (!fe && !address_in_services(&p->seg.key.dst, p->seg.v4) && !core_hairpins(p))
			return core_others(ctx, p, o, hook);
	}
	if (frame_foreign(ctx, hook))
		return VERDICT_NOT_OURS;
	if (!room)
		return VERDICT_MAP_FULL;
	/* A SYN does not ask: claiming finds its handshake again, see claim_again(). */
	if (!syn) {
		v = core_unsettled(p, o, hook, UNSETTLED_ALL);
		if (v != VERDICT_NONE)
			return v;
	}
	if (snat)
		fe = frontend_lookup(&p->seg.key);
	if (!fe && snat && !syn && filter_asks(&p->seg.key.src, p->seg.key.sport, p->seg.key.proto))
		return theirs_asks(&p->seg.key) ? VERDICT_NOT_SERVICE : VERDICT_SNAT_UNKNOWN;
	if (!fe) {
		v = address_in_services(&p->seg.key.dst, p->seg.v4)
			    ? address_verdict(&p->seg.key.dst)
			    : VERDICT_NOT_SERVICE;
		return v == VERDICT_NOT_SERVICE ? core_others(ctx, p, o, hook) : v;
	}
	if (!hook_is_pod(hook) && source_martian(&p->seg))
		return VERDICT_MARTIAN;
	if (core_answers_only(o, hook))
		return VERDICT_NOT_SERVICE;
	o->frontend = fe;
	return VERDICT_NONE;
}

/*
 * Whether others on the node may know a packet that core_ingress() has this
 * verdict on: an answer to a socket, or to what netfilter masquerades, by a port
 * that is a node port or a source port of ours; or the middle of a connection.
 * Others answer nobody by an address that is only a Service's.
 */
static __always_inline bool core_asks(const struct packet *p, const struct outcome *o,
				      enum verdict v)
{
	if (v != VERDICT_NONE || !o->frontend)
		return v == VERDICT_SNAT_UNKNOWN;
	if (p->seg.key.proto == IPPROTO_UDP)
		return o->frontend->flags & FRONTEND_NODE_PORT;
	return !segment_opens(&p->seg);
}

/* Find out, with a packet's context, the ways that begin_flow() wants. */
static __always_inline int ways_ask(void *ctx, const struct segment *s)
{
	struct halves *room = halves_room();

	if (!room || !s)
		return 0;
	room->asked = true;
	way_ask(ctx, room->ingress, &s->key, s->v4, room->wanted[0]);
	way_ask(ctx, room->ingress, &s->key, s->v4, room->wanted[1]);
	return 0;
}

/*
 * A packet that nobody knows, to o->frontend; ingress is the device it came in by.
 * VERDICT_WAY_WANTED: begin_flow() once more, after ways_ask(). What comes of it goes to
 * core_begun().
 */
static __always_inline enum verdict core_begin(struct packet *p, struct outcome *o, __u32 ingress)
{
	struct halves *room = halves_room();

	if (!room || !o->frontend)
		return VERDICT_MAP_FULL;
	/* A SYN-ACK begins nothing. */
	if (segment_accepts(&p->seg))
		return VERDICT_NO_FLOW;
	room->ingress = ingress;
	room->asked = false;
	return begin_flow(&p->seg, o->frontend);
}

static __always_inline enum verdict core_begun(struct outcome *o, enum verdict v)
{
	struct halves *room = halves_room();

	if (v == VERDICT_WAY_WANTED || !room)
		return VERDICT_NO_ROUTE;
	return v == VERDICT_NONE ? core_copy(&room->forward, o) : v;
}

/*
 * A packet whose key has an entry that does not act here. Either it is on its way
 * between client and pod, or its client has moved to another device: then it
 * begins anew, which does not end the old flow before it is proved.
 */
static __always_inline enum verdict
core_elsewhere(void *ctx, struct packet *p, const struct flow *f, struct outcome *o, enum hook hook)
{
	enum verdict v;

	if (f->flags & FLOW_REVERSE)
		return VERDICT_NOT_SERVICE;
	if (p->seg.key.proto == IPPROTO_UDP || p->seg.tcp_flags & TCP_SYN)
		return VERDICT_NONE;
	if (frame_foreign(ctx, hook))
		return VERDICT_NOT_OURS;
	v = core_unsettled(p, o, hook, UNSETTLED_HALF);
	return v == VERDICT_NONE ? VERDICT_NOT_SERVICE : v;
}

static __always_inline enum verdict core_ingress(void *ctx, struct packet *p, struct outcome *o,
						 enum hook hook)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->seg.key);
	enum verdict v;

	if (f) {
		if (hook == HOOK_TC_INGRESS && f->flags & FLOW_GUEST && core_looked(p, o, hook))
			return VERDICT_NOT_SERVICE;
		v = flow_at_hook(f, hook) ? core_hit(ctx, p, f, o, hook)
					  : core_elsewhere(ctx, p, f, o, hook);
		if (v != VERDICT_NONE)
			return v;
	}
	return core_miss(ctx, p, o, hook);
}

/* What leaves a backend and belongs to no established flow. */
static __always_inline enum verdict core_leaves(struct packet *p, struct outcome *o, enum hook hook)
{
	struct halves *room = halves_room();
	enum verdict v;

	if (!room)
		return VERDICT_NOT_SERVICE;
	if (!filter_asks(&p->seg.key.src, p->seg.key.sport, p->seg.key.proto))
		return hook == HOOK_TC_EGRESS ? core_others(NULL, p, o, hook) : VERDICT_NOT_SERVICE;
	v = core_unsettled(p, o, hook, UNSETTLED_ALL);
	if (v != VERDICT_NONE)
		return v;
	/* Its client would not know the pod's own address. */
	if (p->seg.key.proto != IPPROTO_UDP && !segment_opens(&p->seg) && owned_asks(&p->seg.key))
		return VERDICT_BACKEND_ASTRAY;
	return VERDICT_NOT_SERVICE;
}

static __always_inline enum verdict core_egress(struct packet *p, struct outcome *o, enum hook hook)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &p->seg.key);
	enum verdict v;

	if (!f)
		return core_leaves(p, o, hook);
	if (!flow_at_hook(f, hook))
		return VERDICT_NOT_SERVICE;
	v = core_hit(NULL, p, f, o, hook);
	return v == VERDICT_NONE ? VERDICT_NOT_SERVICE : v;
}

/* The flow is asked for too: the verifier does not see that it goes with the verdict. */
static __always_inline bool core_translates(const struct outcome *o, enum verdict v)
{
	return verdict_translates(v) && o->flow;
}

static __always_inline void core_init(struct outcome *o)
{
	o->flow = NULL;
	o->counts = NULL;
	o->frontend = NULL;
	o->ifindex = 0;
	o->resumed = false;
	o->fresh = false;
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
