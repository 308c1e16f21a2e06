/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What SYN, FIN and RST do to a flow that is established, or was.
 *
 *	packet                     in flows                   in closed
 *	SYN of the client          to its backend, which      begins a new flow
 *	                           challenges it; a new flow
 *	                           if the backend is gone
 *	SYN of the backend         to its client              not translated
 *	SYN-ACK                    to its client              not translated
 *	FIN, in the window         half closed; the second    translated
 *	                           one moves it to closed
 *	FIN, outside of it         translated                 translated
 *	RST, exact number          moves it to closed         translated
 *	RST, any other             translated                 translated
 *	data behind its own FIN    takes the FIN back         translated
 *	anything else of who sent  -                          back to flows
 *	the RST
 *	anything else of the other -                          back to flows, a tick
 *	                                                      after the RST or later
 *	other, closed by FINs      -                          translated
 *
 * "Exact": what the other side has acknowledged, or what follows the sender's own
 * last segment, as in netfilter; the ends believe nothing else (RFC 5961, 3.2).
 * Who goes on after a RST shows that it was not sent, or not believed. Of SCTP
 * only who has seen its packets knows the tag.
 */
#ifndef EBB_FLOW_STATE_H
#define EBB_FLOW_STATE_H

#include "flow/life.h"

/* How far beyond the last acknowledgement a FIN is believed, in bytes. It takes two. */
#define CLOSE_WINDOW (8 << 20)

enum control {
	CONTROL_NONE = 0,
	CONTROL_BEGINS = 1, /* the flow is over and the packet begins a new one */
	CONTROL_CLOSED = 2, /* the flow has moved to closed, a copy is in halves_room() */
};

static __always_inline bool flow_closed(__u32 flags)
{
	return flags & FLOW_RESET ||
	       (flags & (FLOW_FIN | FLOW_PEER_FIN)) == (FLOW_FIN | FLOW_PEER_FIN);
}

static __always_inline bool close_in_window(const struct segment *s, const struct flow *peer)
{
	return s->seq - peer->ack + 1 <= CLOSE_WINDOW;
}

/* Whether the RST or FIN s ends, or half ends, the flow of f and its other half. */
static __always_inline bool close_believed(const struct segment *s, const struct flow *f,
					   const struct flow *peer)
{
	if (s->key.proto == IPPROTO_SCTP)
		return s->ack == (s->reflected ? peer->ack : f->ack);
	if (!(s->tcp_flags & TCP_RST))
		return !peer->ack || close_in_window(s, peer);
	return s->seq == peer->ack || (s->seq == f->end && close_in_window(s, peer));
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
	return flow_close(key, f);
}

/* A SYN, FIN or RST of an established flow, or data behind its FIN. */
__noinline int flow_control(const struct segment *s, struct flow *f)
{
	struct flow *peer;
	bool rst;

	if (!s || !f)
		return CONTROL_NONE;
	rst = s->tcp_flags & TCP_RST;
	if (s->tcp_flags & TCP_SYN) {
		if (s->tcp_flags & TCP_ACK || f->flags & FLOW_REVERSE || !flow_backend_gone(f))
			return CONTROL_NONE;
		return CONTROL_BEGINS; /* which ends this one once it is proved */
	}
	peer = flow_peer(&s->key, f);
	if (!peer)
		return CONTROL_NONE;
	if (!(s->tcp_flags & (TCP_FIN | TCP_RST))) {
		__sync_fetch_and_and(&f->flags, ~FLOW_FIN);
		__sync_fetch_and_and(&peer->flags, ~FLOW_PEER_FIN);
		return CONTROL_NONE;
	}
	if (!close_believed(s, f, peer))
		return CONTROL_NONE;
	__sync_fetch_and_or(&f->flags, rst ? FLOW_RST : FLOW_FIN);
	__sync_fetch_and_or(&peer->flags, rst ? FLOW_PEER_RST : FLOW_PEER_FIN);
	if (!flow_closed(f->flags))
		return CONTROL_NONE;
	f->seen = now_tick();
	if (!rst) {
		f->ack = s->ack;
		f->end = s->end;
	}
	return flow_close(&s->key, f) ? CONTROL_CLOSED : CONTROL_NONE;
}

/* Whether s shows that the RST which closed c was not its sender's, or was not believed. */
static __always_inline bool closed_lives(const struct segment *s, const struct flow *c)
{
	if (s->tcp_flags & (TCP_SYN | TCP_RST))
		return false;
	if (c->flags & FLOW_RST)
		return true;
	return c->flags & FLOW_PEER_RST && now_tick() != c->began;
}

/*
 * Put the closed flow of s back into flows. Its tuple is held in half_open
 * meanwhile, see invariant 2; if somebody else holds it, it is theirs.
 */
__noinline int flow_reopen(const struct segment *s, const struct flow *c)
{
	struct halves *room = halves_room();
	struct flow *own, *other, *peer;
	struct flow_key *okey;

	if (!s || !c || !room)
		return 0;
	/* Of two halves room->forward is the client's. */
	if (c->flags & FLOW_REVERSE) {
		room->reverse.key = s->key;
		room->reverse.value.flow = *c;
		own = &room->reverse.value.flow;
		other = &room->forward;
		okey = &room->key;
	} else {
		room->key = s->key;
		room->forward = *c;
		own = &room->forward;
		other = &room->reverse.value.flow;
		okey = &room->reverse.key;
	}
	flow_mirror(&s->key, c, okey, other);
	peer = bpf_map_lookup_elem(&closed, okey);
	if (peer && flow_pairs(&s->key, peer))
		*other = *peer;
	own->flags &= ~FLOW_RESET;
	other->flags &= ~FLOW_RESET;
	/* Of both: who looks at the one in half_open must not take it for given up. */
	own->seen = now_tick();
	other->seen = own->seen;
	room->reverse.value.since = 0;
	if (bpf_map_update_elem(&half_open, &room->reverse.key, &room->reverse.value, BPF_NOEXIST))
		return 0;
	if (flow_establish(room) == ESTABLISHED) {
		bpf_map_delete_elem(&closed, &room->reverse.key);
		bpf_map_delete_elem(&closed, &room->key);
	}
	bpf_map_delete_elem(&half_open, &room->reverse.key);
	return 1;
}

#endif
