/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments. The first one of a datagram has the ports: they are remembered,
 * and it is translated as a packet, whose checksum covers the whole datagram
 * and is corrected by the same difference. The others have only addresses to be
 * translated, by the flow that the ports lead to.
 *
 * A fragment that comes before the first cannot be kept. If it can only be
 * meant for a service it is dropped; whoever else gets it could do nothing with
 * it. To send it round by the device's queue would help only if the first is
 * right behind it, and let orphans cost many times what they cost now.
 */
#ifndef EBB_FRAG_H
#define EBB_FRAG_H

#include "rare.h"

/* How long ports are remembered: as long as Linux waits for the rest of a datagram. */
#define FRAGMENT_TICKS 30

static __always_inline bool fragment_parse(struct __sk_buff *skb, __u32 l3_off,
					   struct rare_room *room)
{
	struct rare_ip *ip = &room->ip;

	if (rare_parse(skb, l3_off, ip) || (ip->proto != IPPROTO_TCP && ip->proto != IPPROTO_UDP))
		return false;
	__builtin_memset(&room->datagram, 0, sizeof(room->datagram));
	room->datagram.src = ip->src;
	room->datagram.dst = ip->dst;
	room->datagram.id = ip->id;
	room->datagram.proto = ip->proto;
	__builtin_memset(&room->key, 0, sizeof(room->key));
	room->key.src = ip->src;
	room->key.dst = ip->dst;
	room->key.proto = ip->proto;
	return true;
}

/* Whether the ports may be wanted again. Those of others would only take the room. */
static __always_inline bool fragment_concerns(const struct rare_room *room, enum hook hook)
{
	struct flow *f = rare_flow(&room->key);

	if (f)
		return flow_at_hook(f, hook);
	return !hook_is_egress(hook) &&
	       (frontend_lookup(&room->key) || address_flags(&room->key.dst));
}

/* Remember the ports. An identification that is used again means the newer datagram. */
static __always_inline int fragment_first(struct __sk_buff *skb, struct rare_room *room,
					  enum hook hook)
{
	const struct rare_ip *ip = &room->ip;
	__u32 header = ip->proto == IPPROTO_TCP ? sizeof(struct tcp_hdr) : sizeof(struct udp_hdr);
	__be16 ports[2];

	if (!rare_has(skb, ip, ip->l4_off, header) ||
	    bpf_skb_load_bytes(skb, ip->l4_off, ports, sizeof(ports)))
		return RARE_NONE;
	room->key.sport = ports[0];
	room->key.dport = ports[1];
	if (!fragment_concerns(room, hook))
		return RARE_NONE;
	if (!ip->more)
		return RARE_FIRST;
	room->ports.sport = ports[0];
	room->ports.dport = ports[1];
	room->ports.seen = now_tick();
	bpf_map_update_elem(&fragments, &room->datagram, &room->ports, BPF_ANY);
	return RARE_FIRST;
}

static __always_inline bool fragment_recall(struct rare_room *room)
{
	struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, &room->datagram);

	if (!ports || now_tick() - ports->seen > FRAGMENT_TICKS)
		return false;
	room->key.sport = ports->sport;
	room->key.dport = ports->dport;
	return true;
}

static __always_inline int fragment_translate(struct __sk_buff *skb, struct rare_room *room,
					      const struct flow *f, enum verdict *v)
{
	bool local = !flow_routed(f);
	enum verdict want = flow_verdict(f);
	struct outcome o = {.counts = flow_counts(f)};

	room->to.src = f->src;
	room->to.dst = f->dst;
	room->to.hops = local ? 0 : 1;
	*v = local ? want : rare_route(skb, room, f, want, &local);
	if (*v != want)
		return TC_DROP;
	count_packet(&o, want, room->ip.len);
	if (rare_write(skb, &room->ip, &room->to)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	rare_settle(skb, &room->ip, &room->to);
	return local ? rare_pass(skb, f) : rare_send(skb, !room->ip.l3_off);
}

/*
 * A later fragment of no flow that is known. The node's own addresses are the
 * host's as well; what is for an address of services, and not for a port that
 * the first was passed on with, is nobody's.
 */
static __always_inline bool fragment_stray(const struct rare_room *room, bool recalled)
{
	__u32 owner = address_flags(&room->key.dst);

	if (recalled && frontend_lookup(&room->key))
		return true; /* the first was dropped */
	if (recalled)
		return owner & ADDRESS_CLUSTER_IP;
	return owner && !(owner & ADDRESS_NODE);
}

static __always_inline int fragment_later(struct __sk_buff *skb, struct rare_room *room,
					  enum hook hook, enum verdict *v)
{
	bool recalled = fragment_recall(room);
	struct flow *f = recalled ? rare_flow(&room->key) : NULL;

	if (f && flow_at_hook(f, hook))
		return fragment_translate(skb, room, f, v);
	if (f || hook_is_egress(hook) || !fragment_stray(room, recalled))
		return RARE_NONE;
	*v = VERDICT_FRAGMENT_UNKNOWN;
	return TC_DROP;
}

/* A fragment whose IP header is at l3_off. Returns the action, the verdict counted, or RARE_*. */
__noinline int fragment(struct __sk_buff *skb, __u32 hook, __u32 l3_off)
{
	struct rare_room *room = rare_space();
	enum verdict v = VERDICT_FRAGMENT;
	int action;

	if (!room || !fragment_parse(skb, l3_off, room))
		return RARE_NONE;
	if (!room->ip.offset)
		return fragment_first(skb, room, hook);
	action = fragment_later(skb, room, hook, &v);
	if (action != RARE_NONE)
		count_verdict(hook, v);
	return action;
}

#endif
