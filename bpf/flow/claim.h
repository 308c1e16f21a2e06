/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reverse tuples, and so source ports: whose they are, and who gives one up. */
#ifndef EBB_FLOW_CLAIM_H
#define EBB_FLOW_CLAIM_H

#include "flow/state.h"

/*
 * Source ports tried before a flow is refused. At 90 % use 1 of 68 flows finds
 * none of them free. The first tries take only what nobody has; later ones also
 * what its owner is unlikely to need, and the last ones what that is less sure of.
 */
#define CLAIM_TRIES   40
#define CLAIM_SHORT   4
#define CLAIM_SHORTER 16

enum claim {
	CLAIM_OK = 0,
	CLAIM_TAKEN = 1,  /* try another source port */
	CLAIM_FAILED = 2, /* the map refused */
	CLAIM_AGAIN = 3,  /* it is this flow's already */
};

/* A flow about to begin. */
struct beginning {
	const struct flow_key *key; /* of the client's packets */
	struct flow *forward;
	struct reverse_half *reverse;
	__u64 hash;
	__u32 verdict;
	__u32 claim; /* enum claim, of the last try */
};

/* Checksum differences, once addresses and ports are final. */
static __always_inline void begin_sums(const struct flow_key *key, struct flow *f)
{
	f->csum_addr =
		csum_fold(csum_diff_addr(&key->src, &f->src) + csum_diff_addr(&key->dst, &f->dst));
	f->csum_port =
		csum_fold(csum_diff16(key->sport, f->sport) + csum_diff16(key->dport, f->dport));
}

/*
 * The source port of the i-th try: the client's own first where it can be kept,
 * then one by its hash, then others at a distance that is its own, too.
 */
static __always_inline __be16 claim_port(const struct beginning *bg, __u32 i)
{
	__u32 range = cfg_snat_max - cfg_snat_min + 1;
	__u16 own = bpf_ntohs(bg->key->sport);
	__u32 step = (__u32)(bg->hash >> 32) | 1;

	if (!i && (!flow_routed(bg->forward) || (own >= cfg_snat_min && own <= cfg_snat_max)))
		return bg->key->sport;
	return bpf_htons(cfg_snat_min + ((__u32)bg->hash + i * step) % range);
}

/* Complete both halves with the source port of the i-th try. */
static __always_inline void begin_with_port(struct beginning *bg, __u32 i)
{
	bg->forward->sport = claim_port(bg, i);
	begin_sums(bg->key, bg->forward);
	flow_mirror(bg->key, bg->forward, &bg->reverse->key, &bg->reverse->value.flow);
	bg->reverse->value.flow.ack = bg->forward->end;
}

/* Whether an entry of half_open that is another flow's gives its tuple to the i-th try. */
static __always_inline bool claim_half_over(__u8 proto, const struct flow *f, __u32 i)
{
	__u32 idle = ticks_between(f->seen, now_tick());
	bool asked = proto == IPPROTO_UDP || !(f->flags & FLOW_REPLIED);

	if (f->flags & FLOW_RESET)
		return true;
	if (idle > half_timeout(proto, f->flags))
		return true;
	if (i < CLAIM_SHORT || f->flags & FLOW_PROVED)
		return false;
	if (i < CLAIM_SHORTER)
		return asked && idle >= ticks(TIMEOUT_UNANSWERED);
	return idle >= (f->flags & FLOW_REPLIED ? ticks(TIMEOUT_UNANSWERED) : 1);
}

/* Whether a closed flow gives its tuple to the i-th try. Its backend may be in TIME_WAIT; see RFC
 * 6191. */
static __always_inline bool claim_closed_over(const struct flow *c, __u32 i)
{
	__u32 age = ticks_between(c->began, now_tick());

	return age >= ticks(i < CLAIM_SHORT ? TIMEOUT_CLOSED : TIMEOUT_REUSE);
}

/*
 * The reverse tuple is in flows. Left over from an earlier connection of this
 * client, whose forward half is gone; or of one that lives, or is over.
 */
static __always_inline bool claim_flow_over(const struct beginning *bg, struct flow *f)
{
	struct flow *own;

	if (flow_pairs(bg->key, f)) {
		own = bpf_map_lookup_elem(&flows, bg->key);
		/* Met where it does not act: it is not known to have moved. */
		if (own && flow_pairs(&bg->reverse->key, own) && !flow_backend_gone(f))
			return false;
	} else if (!flow_over(&bg->reverse->key, f)) {
		return false;
	}
	flow_forget(&bg->reverse->key, f);
	return true;
}

/* The tuple is held in half_open: whether anybody has it in flows or closed. See invariant 2. */
static __always_inline enum claim claim_held(struct beginning *bg, __u32 i)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &bg->reverse->key);

	if (f && !claim_flow_over(bg, f))
		goto taken;
	if (bg->key->proto == IPPROTO_UDP) /* which is never closed */
		return CLAIM_OK;
	f = bpf_map_lookup_elem(&closed, &bg->reverse->key);
	if (!f)
		return CLAIM_OK;
	if (!flow_pairs(bg->key, f) && !claim_closed_over(f, i))
		goto taken;
	closed_forget(&bg->reverse->key, f);
	return CLAIM_OK;
taken:
	bpf_map_delete_elem(&half_open, &bg->reverse->key);
	return CLAIM_TAKEN;
}

/* The same client again, with a SYN or datagram that begins, or with more of the same. */
static __always_inline enum claim claim_again(struct beginning *bg, struct half_flow *h)
{
	struct half_flow *own = &bg->reverse->value;
	struct flow *f = bpf_map_lookup_elem(&flows, &bg->reverse->key);

	/* Another CPU has the same packet, and has not looked there yet. */
	if (f && !flow_pairs(bg->key, f))
		return CLAIM_TAKEN;
	if (h->flow.flags & FLOW_OCCUPIED)
		return CLAIM_TAKEN;
	/* Not a SYN: it changes nothing of a handshake it may know nothing of. */
	if (own->flow.flags & FLOW_MIDWAY)
		return CLAIM_AGAIN;
	if (!flow_same_backend(&h->flow, &own->flow) ||
	    h->flow.flags & (FLOW_RESET | FLOW_MIDWAY)) {
		h->since = own->since;
		h->flow.backend = own->flow.backend;
		h->flow.generation = own->flow.generation;
		h->flow.ack = own->flow.ack;
		h->flow.end = 0;
		h->flow.flags = own->flow.flags;
	} else if (h->flow.ack != own->flow.ack) {
		/*
		 * Another number: the client again, or somebody in its name. Both that one and
		 * the first may be answered.
		 */
		if (h->flow.flags & FLOW_REPLIED) {
			h->flow.ack = own->flow.ack;
			half_flag(h, FLOW_AGAIN);
		} else {
			h->flow.end = own->flow.ack;
		}
	}
	if (h->since) /* one that has answered was timed */
		h->since = own->since;
	h->flow.seen = own->flow.seen;
	own->flow.flags = h->flow.flags;
	return CLAIM_AGAIN;
}

/* The reverse tuple is in half_open already: this client's, or somebody else's. */
static __always_inline enum claim claim_met(struct beginning *bg, __u32 i)
{
	struct half_flow *h = bpf_map_lookup_elem(&half_open, &bg->reverse->key);

	if (!h)
		return CLAIM_TAKEN;
	if (flow_pairs(bg->key, &h->flow))
		return claim_again(bg, h);
	if (!claim_half_over(bg->key->proto, &h->flow, i) || !half_take(&bg->reverse->key, h))
		return CLAIM_TAKEN;
	/* Only one gets here. */
	bpf_map_delete_elem(&half_open, &bg->reverse->key);
	if (bpf_map_update_elem(&half_open, &bg->reverse->key, &bg->reverse->value, BPF_NOEXIST))
		return CLAIM_TAKEN;
	return claim_held(bg, i);
}

/* One try to claim a reverse tuple. True: that settles it. */
static __always_inline bool claim_try(__u32 i, struct beginning *bg)
{
	int err;

	err = bpf_map_update_elem(&half_open, &bg->reverse->key, &bg->reverse->value, BPF_NOEXIST);
	if (err == -EEXIST)
		bg->claim = claim_met(bg, i);
	else
		bg->claim = err ? CLAIM_FAILED : claim_held(bg, i);
	if (bg->claim == CLAIM_TAKEN)
		return false;
	bg->verdict = bg->claim == CLAIM_FAILED ? VERDICT_MAP_FULL : VERDICT_NONE;
	return true;
}

/* All but the first try, as bpf_loop() wants it. */
static long claim_more(__u32 i, struct beginning *bg)
{
	begin_with_port(bg, i + 1);
	return claim_try(i + 1, bg);
}

/* Whether the first tuple is that of a connection without a Service, see guest.h. */
static __always_inline bool claim_theirs(const struct beginning *bg)
{
	return !(bg->forward->flags & FLOW_MIDWAY) && theirs_asks(&bg->reverse->key);
}

static __always_inline void claim_tuple(struct beginning *bg)
{
	bg->verdict = VERDICT_SNAT_EXHAUSTED;
	begin_with_port(bg, 0);
	if (claim_theirs(bg) || !claim_try(0, bg))
		bpf_loop(CLAIM_TRIES - 1, claim_more, bg, 0);
}

#endif
