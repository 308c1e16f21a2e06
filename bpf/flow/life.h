/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How flows get into the map flows and out of it: the only places that write to
 * it. Both halves, one count; see invariants 2 and 3 in entry.h.
 */
#ifndef EBB_FLOW_LIFE_H
#define EBB_FLOW_LIFE_H

#include "flow/hint.h"

/* The half that is claimed. */
struct reverse_half {
	struct flow_key key; /* of the backend's packets */
	struct half_flow value;
};

/* Both halves of a flow: keys and values the maps take from any function, see entry.h. */
struct halves {
	struct flow_key key; /* of the client's packets */
	struct flow forward;
	struct reverse_half reverse;
	struct flow result;    /* see flow_unsettled() */
	struct flow_key swept; /* see sweep_flow() */
	__u32 ingress;         /* the device a beginning comes in by */
	__u32 wanted[2];       /* with VERDICT_WAY_WANTED: backends whose way is not known */
	__u32 asked;           /* it was asked for */
	__u32 named;           /* the backend a beginning is given */
	__u32 passed;          /* with VERDICT_PASSED_ON: packets of the tuple were before */
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

/* What is counted of an index, whoever has it now: a flow's end belongs to where its beginning was.
 */
static __always_inline struct backend_counts *life_counts(const struct flow *f)
{
	__u32 index = f->backend;

	return bpf_map_lookup_elem(&backend_stats, &index);
}

/* Set flags of an entry others may take meanwhile. */
static __always_inline void half_flag(struct half_flow *h, __u32 flags)
{
	__sync_fetch_and_or(&h->flow.flags, flags);
}

/* Let go of an entry that was taken, see half_take(). */
static __always_inline void half_release(struct half_flow *h)
{
	__sync_fetch_and_and(&h->flow.flags, ~FLOW_TAKEN);
}

/*
 * Take an entry of half_open under rkey to establish or replace it. False: another
 * CPU does; or the entry is gone, and its element perhaps another's by now.
 */
static __always_inline bool half_take(const struct flow_key *rkey, struct half_flow *h)
{
	if (__sync_fetch_and_or(&h->flow.flags, FLOW_TAKEN) & FLOW_TAKEN)
		return false;
	if (bpf_map_lookup_elem(&half_open, rkey) == h)
		return true;
	half_release(h);
	return false;
}

static __always_inline struct flows_pressure *pressure_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&pressure, &zero);
}

/* An insert into flows was refused. */
static __always_inline void flows_refused(int err)
{
	struct flows_pressure *p = pressure_get();

	if (p && err == -E2BIG)
		p->refused = now_tick();
}

/* Whether new flows are refused: one was for want of room, just now. */
static __always_inline bool flows_full(void)
{
	struct flows_pressure *p = pressure_get();

	return p && p->refused && now_tick() - p->refused <= 1;
}

/* There is room in flows again. */
static __always_inline void flows_relieved(void)
{
	struct flows_pressure *p = pressure_get();

	if (p && p->refused)
		p->refused = 0;
}

/*
 * Mark both halves, peer may be NULL, as leaving flows: nobody restores one from
 * the other from now on, see flow_peer(). True: this was the first to mark the
 * forward half, which has been counted.
 */
static __always_inline bool flow_leaves(struct flow *f, struct flow *peer)
{
	__u32 own = __sync_fetch_and_or(&f->flags, FLOW_CLOSED);
	__u32 other = peer ? __sync_fetch_and_or(&peer->flags, FLOW_CLOSED) : FLOW_CLOSED;
	struct flow *forward = f->flags & FLOW_REVERSE ? peer : f;
	struct backend_counts *counts;

	if (!forward || (forward == f ? own : other) & FLOW_CLOSED)
		return false;
	counts = life_counts(forward);
	if (counts)
		__sync_fetch_and_add(&counts->closed, 1);
	return true;
}

/* Forget a flow and its counterpart, unless that belongs to another flow. */
__noinline int flow_forget(const struct flow_key *key, struct flow *f)
{
	struct flow_key k; /* one for both: the stack is short */
	struct flow *peer;

	if (!key || !f)
		return 0;
	flow_mirror_key(f, key->proto, &k);
	peer = bpf_map_lookup_elem(&flows, &k);
	if (peer && !flow_pairs(key, peer))
		peer = NULL;
	flow_leaves(f, peer);
	if (peer)
		bpf_map_delete_elem(&flows, &k);
	k = *key;
	bpf_map_delete_elem(&flows, &k);
	flows_relieved();
	return 0;
}

/* The same for a forward half, whose counterpart may be that of another flow already. */
static __always_inline void flow_end_forward(const struct flow_key *key, struct flow *f,
					     const struct flow_key *kept)
{
	if (!flow_pairs(kept, f)) {
		flow_forget(key, f);
		return;
	}
	flow_leaves(f, NULL);
	bpf_map_delete_elem(&flows, key);
}

/* Write the forward half in room, replacing what another flow has under its key. */
static __always_inline int flow_insert_forward(struct halves *room)
{
	struct flow *old;
	int err;

	err = bpf_map_update_elem(&flows, &room->key, &room->forward, BPF_NOEXIST);
	if (err != -EEXIST)
		return err;
	old = bpf_map_lookup_elem(&flows, &room->key);
	if (old && flow_pairs(&room->reverse.key, old) && flow_same_backend(old, &room->forward))
		return err;
	/* The client has moved, or its tuple led elsewhere before: it is here now, proved. */
	if (old)
		flow_end_forward(&room->key, old, &room->reverse.key);
	return bpf_map_update_elem(&flows, &room->key, &room->forward, BPF_NOEXIST);
}

/* Flags that say nothing of an established flow. */
#define FLOW_BEGINNING                                                                             \
	(FLOW_REPLIED | FLOW_MIDWAY | FLOW_PROVED | FLOW_AGAIN | FLOW_OCCUPIED | FLOW_TAKEN |      \
	 FLOW_RESET | FLOW_CLOSED)

enum established {
	ESTABLISHED = 0,
	ESTABLISHED_NO_ROOM = 1,
	ESTABLISHED_ANOTHER = 2, /* the tuple is another flow's after all */
};

/*
 * Put both halves in room, whose reverse tuple is held in half_open, into flows.
 * Whoever inserts the forward half counts.
 */
static __always_inline enum established flow_establish(struct halves *room)
{
	struct flow *reverse = &room->reverse.value.flow;
	struct backend_counts *counts;
	struct flow *known;
	int err;

	room->forward.flags &= ~FLOW_BEGINNING;
	reverse->flags &= ~FLOW_BEGINNING;
	room->forward.route = 0;
	reverse->route = 0;
	err = bpf_map_update_elem(&flows, &room->reverse.key, reverse, BPF_NOEXIST);
	if (err == -EEXIST) {
		known = bpf_map_lookup_elem(&flows, &room->reverse.key);
		if (!known || !flow_pairs(&room->key, known))
			return ESTABLISHED_ANOTHER;
	} else if (err) {
		flows_refused(err);
		return ESTABLISHED_NO_ROOM;
	}
	err = flow_insert_forward(room);
	if (err == -EEXIST)
		return ESTABLISHED; /* by another CPU, at the same time */
	if (err) {
		flows_refused(err);
		bpf_map_delete_elem(&flows, &room->reverse.key);
		return ESTABLISHED_NO_ROOM;
	}
	counts = life_counts(&room->forward);
	if (counts)
		__sync_fetch_and_add(&counts->opened, 1);
	return ESTABLISHED;
}

/*
 * Both halves leave flows for closed. What flows still says of key is left in
 * halves_room(): its forward half or, with FLOW_REVERSE, its reverse half.
 */
__noinline int flow_close(const struct flow_key *key, struct flow *f)
{
	struct halves *room = halves_room();
	__u32 now = now_tick();
	struct flow *peer;

	if (!key || !f || !room)
		return 0;
	room->key = *key;
	room->forward = *f;
	flow_mirror(&room->key, &room->forward, &room->reverse.key, &room->reverse.value.flow);
	peer = bpf_map_lookup_elem(&flows, &room->reverse.key);
	if (peer && flow_pairs(key, peer))
		room->reverse.value.flow = *peer;
	else
		peer = NULL;
	if (!flow_leaves(f, peer))
		return 0;
	room->forward.began = now;
	room->forward.route = 0;
	room->reverse.value.flow.began = now;
	room->reverse.value.flow.route = 0;
	bpf_map_update_elem(&closed, &room->reverse.key, &room->reverse.value.flow, BPF_ANY);
	bpf_map_update_elem(&closed, &room->key, &room->forward, BPF_ANY);
	bpf_map_delete_elem(&flows, &room->reverse.key);
	bpf_map_delete_elem(&flows, &room->key);
	flows_relieved();
	return 1;
}

/* Forget a closed flow: both halves, unless one belongs to another. */
static __always_inline void closed_forget(const struct flow_key *key, const struct flow *f)
{
	struct flow_key other;
	struct flow *peer;

	flow_mirror_key(f, key->proto, &other);
	peer = bpf_map_lookup_elem(&closed, &other);
	if (peer && flow_pairs(key, peer))
		bpf_map_delete_elem(&closed, &other);
	bpf_map_delete_elem(&closed, key);
}

/* The other half, restored if it is missing; NULL if both leave, or its tuple has a new owner. */
static __always_inline struct flow *flow_peer(const struct flow_key *key, const struct flow *f)
{
	struct flow_key other;
	struct flow mirror;
	struct flow *peer;

	flow_mirror(key, f, &other, &mirror);
	peer = bpf_map_lookup_elem(&flows, &other);
	if (!peer && !(f->flags & FLOW_CLOSED)) {
		bpf_map_update_elem(&flows, &other, &mirror, BPF_NOEXIST);
		peer = bpf_map_lookup_elem(&flows, &other);
	}
	return peer && flow_pairs(key, peer) ? peer : NULL;
}

/* How long a flow may be silent, in ticks. */
static __always_inline __u32 flow_timeout(__u8 proto, __u32 flags)
{
	if (proto == IPPROTO_UDP)
		return ticks(flags & FLOW_STREAM ? TIMEOUT_UDP_STREAM : TIMEOUT_UDP);
	if (proto == IPPROTO_SCTP)
		return ticks(TIMEOUT_SCTP);
	if (flags & (FLOW_FIN | FLOW_PEER_FIN))
		return ticks(TIMEOUT_HALF_CLOSED);
	return ticks(TIMEOUT_ESTABLISHED);
}

/* The same for one in half_open. */
static __always_inline __u32 half_timeout(__u8 proto, __u32 flags)
{
	if (flags & FLOW_PROVED)
		return flow_timeout(proto, flags);
	return ticks(proto == IPPROTO_TCP ? TIMEOUT_HANDSHAKE : TIMEOUT_UNPROVED);
}

/* Whether there was no packet for longer than that. */
static __always_inline bool flow_silent(__u8 proto, const struct flow *f, __u32 now)
{
	return ticks_between(f->seen, now) > flow_timeout(proto, f->flags);
}

/* Whether a flow in flows is over: both its directions have been silent for too long. */
__noinline int flow_over(const struct flow_key *key, const struct flow *f)
{
	struct flow_key other;
	__u32 now = now_tick();
	struct flow *peer;

	if (!key || !f || !flow_silent(key->proto, f, now))
		return 0;
	flow_mirror_key(f, key->proto, &other);
	peer = bpf_map_lookup_elem(&flows, &other);
	return !peer || !flow_pairs(key, peer) || flow_silent(key->proto, peer, now);
}

/* Once a tick: both halves are there, or are no more. False: this flow lost its tuple. */
__noinline int flow_refresh(const struct flow_key *key, struct flow *f, __u32 now)
{
	struct flow *peer;

	if (!key || !f)
		return 0;
	if (!route_stays(f, f->seen, now))
		f->route = 0;
	f->seen = now;
	peer = flow_peer(key, f);
	if (!peer) {
		flow_forget(key, f);
		return 0;
	}
	if (f->flags & FLOW_REVERSE)
		filter_note(&key->src, key->sport, key->proto, now);
	if (key->proto == IPPROTO_UDP && !(f->flags & FLOW_STREAM) && now - f->began >= ticks(2)) {
		__sync_fetch_and_or(&f->flags, FLOW_STREAM);
		__sync_fetch_and_or(&peer->flags, FLOW_STREAM);
	}
	return 1;
}

#endif
