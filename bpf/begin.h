/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The beginning of flows: claim a reverse tuple, write entries, finish handshakes. */
#ifndef EBB_BEGIN_H
#define EBB_BEGIN_H

#include "conntrack.h"
#include "select.h"

/* Source ports tried before a flow is refused, and before a lost half is given up. */
#define CLAIM_TRIES   32
#define RESTORE_TRIES 4

/*
 * Handshakes that are timed: one of 8 client tuples. The clock is a tenth of
 * what a SYN costs, and a histogram needs no more.
 */
#define LATENCY_SAMPLE 7

/*
 * Errors of map helpers are compared as int: before Linux 6.4 the functions
 * behind them returned one, and left the upper half of the register as it was.
 */
#define EEXIST 17

enum claim {
	CLAIM_OK = 0,
	CLAIM_TAKEN = 1,  /* try another source port */
	CLAIM_FAILED = 2, /* the map refused */
};

/* The half that is claimed. */
struct reverse_half {
	struct flow_key key; /* of the backend's packets */
	struct half_flow value;
};

/* Both halves of a flow: keys and values the maps take from any function, see conntrack.h. */
struct halves {
	struct flow_key key; /* of the client's packets */
	struct flow forward;
	struct reverse_half reverse;
};

/* Room for one of them per CPU: the stack is short, see fib_scratch. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct halves);
} begin_scratch SEC(".maps");

static __always_inline struct halves *halves_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&begin_scratch, &zero);
}

/* A flow about to begin. */
struct beginning {
	const struct flow_key *key; /* of the client's packets */
	struct flow *forward;
	struct reverse_half *reverse;
	__u32 hash;
	__u32 verdict;
};

/*
 * The rest of it at a pod's link. The pod's address leads back to its link from
 * everywhere, so only a pod that reaches itself needs another source: the
 * address it dialled, which it answers through its link.
 */
static __always_inline bool begin_at_pod(const struct segment *s, const struct backend *b,
					 struct flow *f)
{
	f->flags = b->flags & BACKEND_LOCAL ? FLOW_POD : FLOW_POD | FLOW_REMOTE;
	if (addr_equal(&b->addr, &s->key.src)) {
		f->flags |= FLOW_HAIRPIN;
		f->src = s->key.dst;
	}
	return true;
}

/* Whether a flow has a source port of ours from the beginning: its address is shared by all. */
static __always_inline bool begin_lends_port(const struct flow *f)
{
	return (f->flags & (FLOW_REMOTE | FLOW_POD)) == FLOW_REMOTE;
}

/* Fill in everything of the forward half but the source port. */
static __always_inline bool begin_prepare(const struct segment *s, const struct backend *b,
					  struct flow *f)
{
	struct runtime_values *rt;

	f->src = s->key.src;
	f->dst = b->addr;
	f->dport = b->port;
	f->generation = b->generation;
	f->seen = now_tick();
	if (s->pod)
		return begin_at_pod(s, b, f);
	if (b->flags & BACKEND_LOCAL)
		return true;
	rt = runtime_get();
	if (!rt)
		return false;
	f->flags = FLOW_REMOTE;
	f->src = s->v4 ? rt->snat4 : rt->snat6;
	return !addr_absent(&f->src);
}

/* Checksum differences, once addresses and ports are final. */
static __always_inline void begin_sums(const struct flow_key *key, struct flow *f)
{
	f->csum_addr =
		csum_fold(csum_diff_addr(&key->src, &f->src) + csum_diff_addr(&key->dst, &f->dst));
	f->csum_port =
		csum_fold(csum_diff16(key->sport, f->sport) + csum_diff16(key->dport, f->dport));
}

/* The source port of the i-th try: the client's own first where it can be kept. */
static __always_inline __be16 claim_port(const struct beginning *bg, __u32 i)
{
	__u32 range = cfg_snat_max - cfg_snat_min + 1;

	if (!i && !begin_lends_port(bg->forward))
		return bg->key->sport;
	return bpf_htons(cfg_snat_min + (bg->hash + i) % range);
}

/* The reverse tuple is in half_open already: the same client again, or somebody else. */
static __always_inline enum claim claim_again(struct beginning *bg)
{
	struct half_flow *h = bpf_map_lookup_elem(&half_open, &bg->reverse->key);

	if (!h || !flow_pairs(bg->key, &h->flow))
		return CLAIM_TAKEN;
	/* Perhaps with another backend generation. One that has answered was timed. */
	if (h->since || h->flow.generation != bg->reverse->value.flow.generation)
		h->since = bg->reverse->value.since;
	h->flow.backend = bg->reverse->value.flow.backend;
	h->flow.generation = bg->reverse->value.flow.generation;
	h->flow.flags = bg->reverse->value.flow.flags;
	h->flow.seen = bg->reverse->value.flow.seen;
	return CLAIM_OK;
}

/* Claim the reverse tuple for a handshake. See invariant 2 in conntrack.h. */
static __always_inline enum claim claim_half_open(struct beginning *bg)
{
	struct flow *f;
	int err;

	err = bpf_map_update_elem(&half_open, &bg->reverse->key, &bg->reverse->value, BPF_NOEXIST);
	if (err)
		return err == -EEXIST ? claim_again(bg) : CLAIM_FAILED;
	f = bpf_map_lookup_elem(&flows, &bg->reverse->key);
	if (!f)
		return CLAIM_OK;
	/* Left over from an earlier connection of this client: its forward half is gone. */
	if (flow_pairs(bg->key, f)) {
		bpf_map_delete_elem(&flows, &bg->reverse->key);
		return CLAIM_OK;
	}
	bpf_map_delete_elem(&half_open, &bg->reverse->key);
	return CLAIM_TAKEN;
}

/* Claim the reverse tuple for a UDP flow. Whoever inserts it begins the flow and counts it. */
static __always_inline enum claim claim_flow(struct beginning *bg)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &bg->reverse->key);
	struct backend_counts *counts;
	int err;

	if (f) {
		if (!flow_pairs(bg->key, f))
			return CLAIM_TAKEN;
		if (f->backend == bg->forward->backend && f->generation == bg->forward->generation)
			return CLAIM_OK;
		/* Left over from a flow to another backend that had this address. */
		bpf_map_delete_elem(&flows, &bg->reverse->key);
	}
	err = bpf_map_update_elem(&flows, &bg->reverse->key, &bg->reverse->value.flow, BPF_NOEXIST);
	if (err)
		return err == -EEXIST ? CLAIM_TAKEN : CLAIM_FAILED;
	counts = bpf_map_lookup_elem(&backend_stats, &bg->forward->backend);
	if (counts)
		counts->opened++;
	return CLAIM_OK;
}

/* Complete both halves with the source port of the i-th try. */
static __always_inline void begin_with_port(struct beginning *bg, __u32 i)
{
	bg->forward->sport = claim_port(bg, i);
	begin_sums(bg->key, bg->forward);
	flow_mirror(bg->key, bg->forward, &bg->reverse->key, &bg->reverse->value.flow);
}

/* One try to claim a reverse tuple. True: that settles it. */
static __always_inline bool begin_try(__u32 i, struct beginning *bg)
{
	enum claim c;

	begin_with_port(bg, i);
	c = bg->key->proto == IPPROTO_UDP ? claim_flow(bg) : claim_half_open(bg);
	if (c == CLAIM_TAKEN)
		return false;
	bg->verdict = c == CLAIM_OK ? VERDICT_NONE : VERDICT_MAP_FULL;
	return true;
}

/* All but the first try, as bpf_loop() wants it. */
static long begin_claim(__u32 i, struct beginning *bg)
{
	return begin_try(i + 1, bg);
}

/* The middle of a connection whose forward half was evicted: try to find the other half. */
static long begin_restore(__u32 i, struct beginning *bg)
{
	struct flow *f;

	begin_with_port(bg, i);
	f = bpf_map_lookup_elem(&flows, &bg->reverse->key);
	if (!f || !flow_pairs(bg->key, f))
		return 0;
	bg->forward->flags = flags_restore(f->flags);
	bpf_map_update_elem(&flows, bg->key, bg->forward, BPF_NOEXIST);
	bg->verdict = VERDICT_NONE;
	return 1;
}

/* The middle of a connection, which may have begun before ranges were changed. */
static __always_inline bool begin_midway(const struct segment *s)
{
	return s->key.proto != IPPROTO_UDP && !(s->tcp_flags & TCP_SYN);
}

/* Begin a flow to backend b. VERDICT_NONE: room->forward is its forward half. */
static __always_inline enum verdict begin_with_backend(const struct segment *s,
						       const struct backend *b, __u32 hash,
						       bool allowed, struct halves *room)
{
	struct beginning bg = {
		.key = &room->key,
		.forward = &room->forward,
		.reverse = &room->reverse,
		.hash = hash,
		.verdict = VERDICT_SNAT_EXHAUSTED,
	};

	room->reverse.value.since = 0;
	if (!begin_prepare(s, b, &room->forward))
		return VERDICT_NO_ROUTE;
	if (begin_midway(s)) {
		bpf_loop(RESTORE_TRIES, begin_restore, &bg, 0);
		if (bg.verdict == VERDICT_NONE)
			return VERDICT_NONE;
		if (!allowed)
			return VERDICT_SOURCE_RANGE;
		/*
		 * Only where the client's own port reaches the backend can it go on. (A pod
		 * would not be asked for answers to itself, see core_answers().)
		 */
		if (begin_lends_port(&room->forward) || room->forward.flags & FLOW_HAIRPIN)
			return cfg_unknown_flow_drop ? VERDICT_NO_FLOW : VERDICT_NOT_SERVICE;
	} else if (s->key.proto != IPPROTO_UDP && !(hash & LATENCY_SAMPLE)) {
		room->reverse.value.since = bpf_ktime_get_ns();
	}
	if (!begin_try(0, &bg))
		bpf_loop(CLAIM_TRIES - 1, begin_claim, &bg, 0);
	return bg.verdict;
}

/* Begin a flow by frontend fe. VERDICT_NONE: its forward half is in halves_room(). */
__noinline int begin_flow(const struct segment *s, const struct frontend *fe)
{
	struct halves *room = halves_room();
	struct backend *b;
	bool allowed;
	enum verdict v;
	__u32 hash;

	if (!s || !fe || !room)
		return VERDICT_MAP_FULL;
	room->key = s->key;
	allowed = !(fe->flags & FRONTEND_RANGES) || in_source_ranges(&room->key, fe);
	if (!allowed && !begin_midway(s))
		return VERDICT_SOURCE_RANGE;
	__builtin_memset(&room->forward, 0, sizeof(room->forward));
	hash = flow_hash(&room->key);
	b = select_backend(fe, &room->key, s->pod, hash, &room->forward.backend);
	if (!b)
		return select_verdict(fe);
	v = begin_with_backend(s, b, hash, allowed, room);
	if (v != VERDICT_NONE || s->key.proto != IPPROTO_UDP)
		return v;
	return bpf_map_update_elem(&flows, &room->key, &room->forward, BPF_ANY) ? VERDICT_MAP_FULL
										: VERDICT_NONE;
}

static __always_inline void count_handshake(const struct flow *f, __u64 since)
{
	__u64 micros = (bpf_ktime_get_ns() - since) / 1000;
	struct backend_counts *counts = flow_counts(f);
	__u32 bucket = 0;

	if (!counts)
		return;
	for (int i = 1; i < LATENCY_BUCKETS; i++)
		if (micros >> i)
			bucket = i;
	if (bucket < LATENCY_BUCKETS)
		counts->handshake[bucket]++;
}

/*
 * Make the client's next packets find the backend that answered. False: another
 * one has answered this handshake before and is still there. Tables may change
 * between two SYNs of one client, but it must not hear from two backends.
 */
static __always_inline bool handshake_lead(const struct flow_key *key, const struct half_flow *h)
{
	struct half_flow forward, *known;
	struct flow_key fkey;

	flow_mirror(key, &h->flow, &fkey, &forward.flow);
	forward.since = 0;
	known = bpf_map_lookup_elem(&half_open, &fkey);
	if (known && !flow_pairs(key, &known->flow) && !(known->flow.flags & FLOW_RESET) &&
	    !flow_backend_gone(&known->flow))
		return false;
	if (!known || known->flow.backend != h->flow.backend ||
	    known->flow.generation != h->flow.generation || known->flow.flags != forward.flow.flags)
		bpf_map_update_elem(&half_open, &fkey, &forward, BPF_ANY);
	return true;
}

/* The backend refuses. What its client sends next begins anew. */
static __always_inline void handshake_refused(const struct flow_key *key, struct half_flow *h)
{
	struct half_flow *peer;
	struct flow_key fkey;

	h->flow.flags |= FLOW_RST;
	flow_mirror_key(&h->flow, key->proto, &fkey);
	peer = bpf_map_lookup_elem(&half_open, &fkey);
	if (peer && flow_pairs(key, &peer->flow))
		peer->flow.flags |= FLOW_PEER_RST;
}

/* The backend answers. False: its answer comes too late for the client. */
__noinline int handshake_answered(const struct flow_key *key, struct half_flow *h, __u8 tcp_flags)
{
	if (!key || !h)
		return 1;
	h->flow.seen = now_tick();
	if (tcp_flags & TCP_RST) {
		handshake_refused(key, h);
		return 1;
	}
	if (h->since) {
		count_handshake(&h->flow, h->since);
		h->since = 0;
	}
	return handshake_lead(key, h);
}

/*
 * The client answers its backend: from now on the flow is established. Its
 * forward half is left in halves_room().
 */
__noinline int handshake_done(const struct segment *s, struct half_flow *h)
{
	struct halves *room = halves_room();
	struct backend_counts *counts;
	struct flow *reverse;
	struct flow_key *rkey;

	if (!s || !h || !room)
		return 0;
	h->flow.seen = now_tick();
	h->flow.ack = s->ack;
	room->key = s->key;
	room->forward = h->flow;
	rkey = &room->reverse.key;
	reverse = &room->reverse.value.flow;
	flow_mirror(&room->key, &room->forward, rkey, reverse);
	/* What the SYN-ACK acknowledged, else a blind RST is believed until the backend sends.
	 * SCTP: 0, its tag is not known yet. */
	reverse->ack = s->seq;
	if (bpf_map_update_elem(&flows, rkey, reverse, BPF_NOEXIST) == 0 &&
	    bpf_map_update_elem(&flows, &room->key, &room->forward, BPF_NOEXIST) == 0) {
		counts = flow_counts(&room->forward);
		if (counts)
			counts->opened++;
	}
	/* Still to be found there if flows took neither. */
	if (!bpf_map_lookup_elem(&flows, &room->key))
		return 0;
	bpf_map_delete_elem(&half_open, &room->key);
	bpf_map_delete_elem(&half_open, rkey);
	return 0;
}

#endif
