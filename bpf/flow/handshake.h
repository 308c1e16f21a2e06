/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From the answer of a backend to an established flow: half_open -> flows.
 *
 *	packet                        half_open                 flows
 *	SYN, INIT, first datagram     reverse half: a claim
 *	SYN-ACK of the number, INIT   answered; forward half
 *	ACK of the tag, a datagram    with the number or tag
 *	of the backend                the client must send
 *	client: that number or tag;   both halves go            both halves come
 *	UDP: any datagram
 *	backend: goes on after that   both halves go            both halves come
 *	client: anything else         forwarded, no change
 *	backend: RST of the number    refused: its tuple is
 *	                              free for others
 *	backend: anything else        no change
 *
 * Who sends blindly knows no number that the other end chose, so it promotes
 * nothing; of UDP there is none, but the answer shows that somebody wants it.
 * That the backend goes on shows that it believes the client, also where it
 * answered twice with different numbers, or takes data early (fast open).
 */
#ifndef EBB_FLOW_HANDSHAKE_H
#define EBB_FLOW_HANDSHAKE_H

#include "flow/claim.h"
#include "flow/select.h"

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

/* Have the client of a flow with affinity keep its backend, once that is proved. */
static __always_inline void handshake_keep(const struct flow_key *key, const struct flow *forward)
{
	struct backend *b;

	if (!(forward->flags & FLOW_STICKY))
		return;
	b = flow_backend(forward);
	if (b)
		affinity_keep(&key->src, b->service_port, forward->backend, forward->generation);
}

enum promotion {
	PROMOTED = 0,
	PROMOTION_REFUSED = 1, /* flows has no room: it goes on from half_open */
	PROMOTION_LOST = 2,    /* its tuple is another flow's */
};

/* Hold the reverse tuple in room again, unless somebody has it. See invariant 2. */
static __always_inline bool half_hold(struct halves *room)
{
	if (bpf_map_update_elem(&half_open, &room->reverse.key, &room->reverse.value, BPF_NOEXIST))
		return false;
	if (!bpf_map_lookup_elem(&flows, &room->reverse.key) &&
	    !bpf_map_lookup_elem(&closed, &room->reverse.key))
		return true;
	bpf_map_delete_elem(&half_open, &room->reverse.key);
	return false;
}

/* Whether another CPU has done what this one is about to do. */
static __always_inline bool flow_is_established(const struct halves *room)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &room->reverse.key);

	return f && flow_pairs(&room->key, f);
}

/* What is in half_open for want of room elsewhere is not given up like a beginning. */
static __always_inline void half_proved(const struct flow_key *key)
{
	struct half_flow *h = bpf_map_lookup_elem(&half_open, key);

	if (h)
		half_flag(h, FLOW_PROVED);
}

/* Establish the flow in room. */
static __always_inline enum promotion promote(struct halves *room)
{
	struct half_flow *held = bpf_map_lookup_elem(&half_open, &room->reverse.key);
	__u32 now = now_tick();

	room->forward.seen = now;
	room->reverse.value.flow.seen = now;
	room->reverse.value.since = 0;
	if (!held) {
		if (!half_hold(room))
			return flow_is_established(room) ? PROMOTED : PROMOTION_LOST;
		held = bpf_map_lookup_elem(&half_open, &room->reverse.key);
		if (!held)
			return PROMOTION_REFUSED;
	}
	/* Another CPU may promote it, too, or give its tuple to another flow just now. */
	if (!flow_pairs(&room->key, &held->flow))
		return PROMOTION_LOST;
	if (!half_take(&room->reverse.key, held))
		return PROMOTION_REFUSED;
	if (!flow_pairs(&room->key, &held->flow)) {
		half_release(held);
		return PROMOTION_LOST;
	}
	held->flow.seen = now;
	if (room->key.proto == IPPROTO_UDP && now - room->forward.began >= ticks(2)) {
		room->forward.flags |= FLOW_STREAM;
		room->reverse.value.flow.flags |= FLOW_STREAM;
	}
	switch (flow_establish(room)) {
	case ESTABLISHED_ANOTHER:
		return PROMOTION_LOST;
	case ESTABLISHED_NO_ROOM:
		half_proved(&room->key);
		half_proved(&room->reverse.key);
		half_release(held);
		return PROMOTION_REFUSED;
	case ESTABLISHED:
		break;
	}
	given_note(tuple_hash(&room->key), room->forward.backend);
	handshake_keep(&room->key, &room->forward);
	bpf_map_delete_elem(&half_open, &room->key);
	bpf_map_delete_elem(&half_open, &room->reverse.key);
	return PROMOTED;
}

/* Whether s of the client, whose forward half is f, proves that it has heard its backend. */
static __always_inline bool handshake_proves(const struct segment *s, const struct flow *f)
{
	if (!(f->flags & FLOW_REPLIED) || s->tcp_flags & (TCP_SYN | TCP_RST))
		return false;
	return s->key.proto == IPPROTO_UDP || s->ack == f->ack;
}

/*
 * A packet of the client, not a SYN, whose forward half is in halves_room().
 * Returns a verdict; VERDICT_NONE: have the half there carried out.
 */
__noinline int handshake_client(const struct segment *s)
{
	struct halves *room = halves_room();
	struct flow *reverse;
	__u32 tag;

	if (!s || !room || !handshake_proves(s, &room->forward))
		return VERDICT_NONE;
	room->key = s->key;
	reverse = &room->reverse.value.flow;
	tag = room->forward.end;
	flow_mirror(&room->key, &room->forward, &room->reverse.key, reverse);
	if (s->key.proto == IPPROTO_SCTP) {
		reverse->ack = tag;
		room->forward.end = 0;
	} else {
		/* What the SYN-ACK acknowledged, and what its client now does. */
		reverse->ack = s->seq;
		reverse->end = s->ack;
		room->forward.end = s->end;
	}
	if (promote(room) != PROMOTION_LOST)
		return VERDICT_NONE;
	bpf_map_delete_elem(&half_open, &room->key);
	return VERDICT_FLOW_CONFLICT;
}

/*
 * Whether a client's tuple is still to be had by the backend of its half-open
 * flow h. What it was given last says so, or that it is not established elsewhere.
 */
static __always_inline bool handshake_given(const struct flow_key *fkey, const struct flow *h)
{
	__u64 hash = tuple_hash(fkey);
	struct flow *f;
	__u32 backend;

	if (given_recall(hash, &backend) && backend == h->backend)
		return true;
	f = bpf_map_lookup_elem(&flows, fkey);
	if (f && !((f->flags ^ h->flags) & FLOW_POD) && !flow_backend_gone(f))
		return false;
	given_note(hash, h->backend);
	return true;
}

/*
 * Make the client's next packets find the backend that answered. False: another
 * one has answered this handshake before and is still there. Tables may change
 * between two SYNs of one client, but it must not hear from two backends.
 */
static __always_inline bool handshake_lead(const struct flow_key *key, const struct half_flow *h)
{
	struct halves *room = halves_room(); /* the stack is short */
	struct half_flow *known;
	bool own;

	if (!room)
		return true;
	flow_mirror(key, &h->flow, &room->key, &room->reverse.value.flow);
	room->reverse.value.flow.ack = h->flow.end;
	room->reverse.value.flow.end = h->flow.ack;
	room->reverse.value.since = 0;
	if (key->proto != IPPROTO_UDP && !handshake_given(&room->key, &h->flow))
		return false;
	known = bpf_map_lookup_elem(&half_open, &room->key);
	own = known && flow_pairs(key, &known->flow);
	if (known && !own && known->flow.flags & FLOW_REPLIED &&
	    !(known->flow.flags & FLOW_RESET) && !flow_backend_gone(&known->flow))
		return key->proto == IPPROTO_UDP;
	if (own && flow_same_backend(&known->flow, &h->flow) &&
	    known->flow.flags == room->reverse.value.flow.flags) {
		known->flow.ack = room->reverse.value.flow.ack;
		known->flow.end = room->reverse.value.flow.end;
	} else {
		bpf_map_update_elem(&half_open, &room->key, &room->reverse.value, BPF_ANY);
	}
	return true;
}

/*
 * Whether a RST is about the SYN of h, an ABORT about its INIT: with the tag that
 * INIT announced, or reflecting the one it had, which is 0 (RFC 9260, 8.5.1).
 */
static __always_inline bool handshake_refuses(const struct segment *s, const struct flow *h)
{
	if (s->reflected)
		return s->ack == (h->flags & FLOW_REPLIED ? h->end : 0);
	return s->ack == h->ack;
}

/* The backend refuses. False: its client has been given to another one since. */
static __always_inline bool handshake_refused(const struct segment *s, struct half_flow *h)
{
	struct half_flow *peer;
	struct flow_key fkey;
	__u32 backend;

	/* Not about this SYN or INIT: for the ends to judge. */
	if (!handshake_refuses(s, &h->flow))
		return true;
	half_flag(h, FLOW_RST);
	flow_mirror_key(&h->flow, s->key.proto, &fkey);
	peer = bpf_map_lookup_elem(&half_open, &fkey);
	if (peer && flow_pairs(&s->key, &peer->flow)) {
		half_flag(peer, FLOW_PEER_RST);
		return true;
	}
	if (peer && peer->flow.flags & FLOW_PROVED) /* its client has a connection */
		return false;
	return !given_recall(tuple_hash(&fkey), &backend) || backend == h->flow.backend;
}

/*
 * Whether what a backend sends after its SYN-ACK shows that it believes its
 * client: data, a FIN, or that it has got data. A bare acknowledgement of the SYN
 * is also its answer to a SYN with another number, which anybody may send; after one
 * of those no number tells what it has got. Of SCTP COOKIE ACK is enough, whichever
 * of several INITs it is about: it follows a cookie that only who heard the backend
 * can have.
 */
static __always_inline bool handshake_believes(const struct segment *s, const struct flow *h)
{
	if (h->flags & FLOW_MIDWAY)
		return true;
	if (!(h->flags & FLOW_REPLIED))
		return false;
	if (s->key.proto == IPPROTO_SCTP)
		return s->tcp_flags & TCP_ACK || s->ack == h->ack;
	return s->end != s->seq || (!(h->flags & FLOW_AGAIN) && (__s32)(s->ack - h->ack) > 0);
}

/* The backend goes on: it believes its client. Its reverse half is left in halves_room(). */
static __always_inline bool handshake_goes_on(const struct segment *s, const struct half_flow *h)
{
	struct halves *room = halves_room();
	bool same = s->ack == h->flow.ack;
	struct flow *reverse;

	if (!room)
		return false;
	room->reverse.key = s->key;
	room->reverse.value = *h;
	if (h->flow.flags & FLOW_MIDWAY)
		owned_note(&room->reverse.key);
	reverse = &room->reverse.value.flow;
	flow_mirror(&room->reverse.key, reverse, &room->key, &room->forward);
	/* The tag of another INIT ACK than the one that was noted is for core_note(). */
	room->forward.ack = s->key.proto != IPPROTO_SCTP ? s->seq : same ? reverse->end : 0;
	room->forward.end = s->key.proto == IPPROTO_SCTP ? 0 : s->ack;
	reverse->ack = s->ack;
	reverse->end = s->key.proto == IPPROTO_SCTP ? 0 : s->end;
	promote(room);
	return true;
}

/* The first datagram of a backend. */
static __always_inline void datagram_answered(const struct segment *s, struct half_flow *h)
{
	struct flow_key fkey;

	if (h->flow.flags & FLOW_REPLIED)
		return;
	half_flag(h, FLOW_REPLIED);
	handshake_lead(&s->key, h);
	if (!(h->flow.flags & FLOW_STICKY))
		return;
	flow_mirror_key(&h->flow, s->key.proto, &fkey);
	handshake_keep(&fkey, &h->flow);
}

/*
 * Once a tick, while a client goes on without proof: its tuple is still its own.
 * False: it was given to another flow in a pause, or cannot be held.
 */
__noinline int half_refresh(const struct flow_key *key, struct flow *f)
{
	struct halves *room = halves_room();
	struct half_flow *peer;

	if (!key || !f || !room)
		return 0;
	f->seen = now_tick();
	flow_mirror(key, f, &room->reverse.key, &room->reverse.value.flow);
	room->reverse.value.flow.ack = f->end;
	room->reverse.value.flow.end = f->ack;
	room->reverse.value.since = 0;
	peer = bpf_map_lookup_elem(&half_open, &room->reverse.key);
	if (!peer)
		return half_hold(room);
	if (!flow_pairs(key, &peer->flow))
		return 0;
	peer->flow.seen = f->seen;
	return 1;
}

/* Whether a SYN-ACK acknowledges a SYN, and perhaps its data (RFC 7413), or INIT ACK has its tag.
 */
static __always_inline bool handshake_fits(const struct segment *s, __u32 number)
{
	return s->key.proto == IPPROTO_SCTP ? s->ack == number : s->ack - number <= 0xffff;
}

/*
 * Whether it is about a SYN or INIT of h: of those that were not answered yet, the
 * first or the last one, see claim_again(); then the last one.
 */
static __always_inline bool handshake_answers(const struct segment *s, const struct flow *h)
{
	if (handshake_fits(s, h->ack))
		return true;
	return !(h->flags & FLOW_REPLIED) && h->end && handshake_fits(s, h->end);
}

enum reply {
	REPLY_SENT_ON = 0,
	REPLY_LATE = 1,   /* another backend has its client */
	REPLY_OTHER = 2,  /* no answer to what its client has sent by ebb */
	REPLY_COPIED = 3, /* to be sent on by the copy in halves_room()->reverse */
};

/* A packet of the backend whose reverse half is h. */
__noinline int handshake_backend(const struct segment *s, struct half_flow *h)
{
	__u32 now = now_tick();

	if (!s || !h)
		return REPLY_SENT_ON;
	h->flow.route = 0; /* of a packet that may be seconds old */
	if (s->key.proto == IPPROTO_UDP) {
		h->flow.seen = now;
		datagram_answered(s, h);
		return REPLY_SENT_ON;
	}
	if (s->tcp_flags & TCP_RST)
		return handshake_refused(s, h) ? REPLY_SENT_ON : REPLY_LATE;
	if (!(s->tcp_flags & TCP_SYN)) {
		if (handshake_believes(s, &h->flow))
			return handshake_goes_on(s, h) ? REPLY_COPIED : REPLY_SENT_ON;
		if (h->flow.flags & FLOW_REPLIED)
			return REPLY_SENT_ON;
		/* It has another connection with this tuple: the client's next SYN shall have
		 * another. */
		half_flag(h, FLOW_OCCUPIED);
		return REPLY_OTHER;
	}
	if (h->flow.flags & FLOW_MIDWAY || !handshake_answers(s, &h->flow))
		return REPLY_OTHER;
	h->flow.ack = s->ack; /* of the SYNs there were, this is the one */
	if (h->since) {
		count_handshake(&h->flow, h->since);
		h->since = 0;
	}
	/* Repetitions must not keep the tuple of a client that is not there. */
	if (!(h->flow.flags & FLOW_REPLIED)) {
		h->flow.seen = now;
		owned_note(&s->key);
	}
	half_flag(h, FLOW_REPLIED);
	if (h->flow.flags & FLOW_AGAIN)
		__sync_fetch_and_and(&h->flow.flags, ~FLOW_AGAIN);
	h->flow.end = s->key.proto == IPPROTO_SCTP ? s->seq : s->seq + 1;
	return handshake_lead(&s->key, h) ? REPLY_SENT_ON : REPLY_LATE;
}

#endif
