/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Flows: two entries per connection, each with all its direction needs.
 *
 * Invariants
 *  1. key and value of an entry determine its counterpart (flow_mirror), so
 *     either half restores the other after an eviction.
 *  2. A reverse tuple belongs to one flow. It is claimed by inserting into
 *     half_open with BPF_NOEXIST and looking into flows *afterwards*; promotion
 *     writes flows *before* it deletes from half_open. Whoever claims a tuple
 *     between those two sees one of both entries.
 *  3. A SYN writes only to half_open, and so does a packet of an unknown
 *     connection: only a client that answers its backend gets into flows.
 *  4. An established packet does one lookup. What needs the other half is done
 *     once a tick (flow_refresh), or on SYN, FIN and RST (flow_control).
 *
 * An SCTP association is such a connection: INIT is its SYN, INIT ACK its
 * SYN-ACK, ABORT and SHUTDOWN COMPLETE its RST, see parse_sctp().
 *
 * Functions that are not inlined are global, so that the verifier looks at each
 * once and not once per caller; it wants their pointers checked. Before Linux
 * 6.2 it does not take such a pointer for a key or value of a map ("R2 type=mem
 * expected=fp, pkt, pkt_meta, map_key, map_value"): those are copied.
 */
#ifndef EBB_CONNTRACK_H
#define EBB_CONNTRACK_H

#include "config.h"
#include "csum.h"
#include "maps.h"
#include "parse.h"

/* How far beyond the last acknowledgement a FIN or RST is believed, in bytes. */
#define CLOSE_WINDOW (8 << 20)

#define FLOW_RESET (FLOW_RST | FLOW_PEER_RST)

static __always_inline __u32 now_tick(void)
{
	return bpf_jiffies64() >> cfg_tick_shift;
}

static __always_inline bool addr_equal(const union ip_addr *a, const union ip_addr *b)
{
	return a->w[0] == b->w[0] && a->w[1] == b->w[1] && a->w[2] == b->w[2] && a->w[3] == b->w[3];
}

static __always_inline bool addr_absent(const union ip_addr *a)
{
	return !a->w[0] && !a->w[1] && !a->w[2] && !a->w[3];
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
	__u32 out = (flags & (FLOW_REMOTE | FLOW_POD | FLOW_HAIRPIN)) |
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
	out->src = key->dst;
	out->dst = key->src;
	out->sport = key->dport;
	out->dport = key->sport;
	out->csum_addr = ~f->csum_addr;
	out->csum_port = ~f->csum_port;
	out->backend = f->backend;
	out->generation = f->generation;
	out->seen = f->seen;
	out->flags = flags_mirror(f->flags);
}

static __always_inline bool flow_closed(__u32 flags)
{
	return flags & FLOW_RESET ||
	       (flags & (FLOW_FIN | FLOW_PEER_FIN)) == (FLOW_FIN | FLOW_PEER_FIN);
}

/* The flags of a lost half, by those of the other: a forward half that is over was counted so. */
static __always_inline __u32 flags_restore(__u32 flags)
{
	__u32 out = flags_mirror(flags);

	if (!(out & FLOW_REVERSE) && flow_closed(out))
		out |= FLOW_CLOSED;
	return out;
}

/* The backend this flow was given to, or NULL if its index has another one now. */
static __always_inline struct backend *flow_backend(const struct flow *f)
{
	__u32 index = f->backend;
	struct backend *b = bpf_map_lookup_elem(&backends, &index);

	return b && b->generation == f->generation ? b : NULL;
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

/* Forget a flow and its counterpart, unless that belongs to another flow. */
__noinline int flow_forget(const struct flow_key *key, const struct flow *f)
{
	struct flow_key k; /* one for both: the stack is short */
	struct flow *peer;

	if (!key || !f)
		return 0;
	flow_mirror_key(f, key->proto, &k);
	peer = bpf_map_lookup_elem(&flows, &k);
	if (peer && flow_pairs(key, peer))
		bpf_map_delete_elem(&flows, &k);
	k = *key;
	bpf_map_delete_elem(&flows, &k);
	return 0;
}

/* The other half, restored if it was evicted; NULL if its tuple has a new owner. */
static __always_inline struct flow *flow_peer(const struct flow_key *key, const struct flow *f)
{
	struct flow_key other;
	struct flow mirror;
	struct flow *peer;

	flow_mirror(key, f, &other, &mirror);
	peer = bpf_map_lookup_elem(&flows, &other);
	if (!peer) {
		mirror.flags = flags_restore(f->flags);
		bpf_map_update_elem(&flows, &other, &mirror, BPF_NOEXIST);
		peer = bpf_map_lookup_elem(&flows, &other);
	}
	return peer && flow_pairs(key, peer) ? peer : NULL;
}

/* Once a tick: keep both halves alive together. False: this flow lost its tuple. */
__noinline int flow_refresh(const struct flow_key *key, struct flow *f, __u32 now)
{
	struct flow_key own;

	if (!key || !f)
		return 0;
	f->seen = now;
	f->route = 0;
	if (flow_peer(key, f))
		return 1;
	own = *key;
	bpf_map_delete_elem(&flows, &own);
	return 0;
}

static __always_inline void flow_mark_closed(struct flow *forward)
{
	struct backend_counts *counts;

	if (__sync_fetch_and_or(&forward->flags, FLOW_CLOSED) & FLOW_CLOSED)
		return;
	counts = flow_counts(forward);
	if (counts)
		counts->closed++;
}

static __always_inline void flow_mark_reopened(struct flow *forward)
{
	struct backend_counts *counts;

	if (!(__sync_fetch_and_and(&forward->flags, ~FLOW_CLOSED) & FLOW_CLOSED))
		return;
	counts = flow_counts(forward);
	if (counts)
		counts->opened++;
}

/*
 * Blind segments from outside must not close a flow (RFC 5961 in spirit). Of
 * SCTP only who has seen its packets knows the tag.
 */
static __always_inline bool close_believed(const struct segment *s, const struct flow *f,
					   const struct flow *peer)
{
	__u32 tag;

	if (s->key.proto == IPPROTO_SCTP) {
		tag = s->reflected ? peer->ack : f->ack;
		return !tag || s->ack == tag;
	}
	return !peer->ack || s->seq - peer->ack + 1 <= CLOSE_WINDOW;
}

/* The node ends a flow in the name of its backend, f being the client's half. */
__noinline int flow_abort(const struct flow_key *key, struct flow *f)
{
	struct flow *peer;

	if (!key || !f)
		return 0;
	__sync_fetch_and_or(&f->flags, FLOW_PEER_RST);
	peer = flow_peer(key, f);
	if (peer)
		__sync_fetch_and_or(&peer->flags, FLOW_RST);
	flow_mark_closed(f);
	return 0;
}

/*
 * A SYN, FIN or RST, or anything after an RST. True: the flow is over and the
 * packet begins a new one.
 */
__noinline int flow_control(const struct segment *s, struct flow *f)
{
	struct flow *peer, *forward;
	bool rst;

	if (!s || !f)
		return 0;
	rst = s->tcp_flags & TCP_RST;
	if (s->tcp_flags & TCP_SYN) {
		if (s->tcp_flags & TCP_ACK || f->flags & FLOW_REVERSE)
			return 0;
		/* A live connection: its backend answers a stray SYN (RFC 5961, 4). */
		if (!flow_closed(f->flags) && !flow_backend_gone(f))
			return 0;
		flow_forget(&s->key, f);
		return 1;
	}
	peer = flow_peer(&s->key, f);
	if (!peer)
		return 0;
	forward = f->flags & FLOW_REVERSE ? peer : f;
	if (s->tcp_flags & (TCP_FIN | TCP_RST)) {
		if (!close_believed(s, f, peer))
			return 0;
		__sync_fetch_and_or(&f->flags, rst ? FLOW_RST : FLOW_FIN);
		__sync_fetch_and_or(&peer->flags, rst ? FLOW_PEER_RST : FLOW_PEER_FIN);
		if (flow_closed(forward->flags))
			flow_mark_closed(forward);
		return 0;
	}
	/* Whoever sent the RST would not go on: it was somebody else's. */
	__sync_fetch_and_and(&f->flags, ~FLOW_RST);
	__sync_fetch_and_and(&peer->flags, ~FLOW_PEER_RST);
	if (!flow_closed(forward->flags))
		flow_mark_reopened(forward);
	return 0;
}

#endif
