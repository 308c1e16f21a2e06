/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Fragments. The first one of a datagram has the ports: they are remembered,
 * and it is translated as a packet, whose checksum covers the whole datagram
 * and is corrected by the same difference. The others have only addresses to be
 * translated, by the flow that the ports lead to.
 *
 * A fragment that comes before the first cannot be kept. If it can only be
 * meant for a service it is dropped; nobody else could use it. To send it round by the device's
 * queue would help only if the first is right behind it, and let orphans cost many times what they
 * cost now.
 */
#ifndef EBB_SKB_FRAGMENT_H
#define EBB_SKB_FRAGMENT_H

#include "skb/cut.h"
#include "skb/ip.h"

/* How long ports are remembered: as long as Linux waits for the rest of a datagram. */
#define FRAGMENT_TICKS 30

static __always_inline bool fragment_parse(struct __sk_buff *skb, __u32 l3_off,
					   struct header_scratch *scratch)
{
	struct ip_header *ip = &scratch->ip;

	if (ip_load(skb, l3_off, ip) || (ip->proto != IPPROTO_TCP && ip->proto != IPPROTO_UDP))
		return false;
	__builtin_memset(&scratch->datagram, 0, sizeof(scratch->datagram));
	scratch->datagram.src = ip->src;
	scratch->datagram.dst = ip->dst;
	scratch->datagram.id = ip->id;
	scratch->datagram.proto = ip->proto;
	__builtin_memset(&scratch->key, 0, sizeof(scratch->key));
	scratch->key.src = ip->src;
	scratch->key.dst = ip->dst;
	scratch->key.proto = ip->proto;
	return true;
}

/* Whether the ports may be wanted again. Others would only fill the map. */
static __always_inline bool fragment_concerns(const struct header_scratch *scratch, enum hook hook)
{
	struct flow *f = flow_find_any(&scratch->key);

	if (f)
		return flow_at_hook(f, hook);
	return !hook_is_egress(hook) &&
	       (frontend_lookup(&scratch->key) || address_flags(&scratch->key.dst));
}

/* Remember the ports. An identification that is used again means the newer datagram. */
static __always_inline int fragment_first(struct __sk_buff *skb, struct header_scratch *scratch,
					  enum hook hook)
{
	const struct ip_header *ip = &scratch->ip;
	__u32 header = ip->proto == IPPROTO_TCP ? sizeof(struct tcp_hdr) : sizeof(struct udp_hdr);
	__be16 ports[2];

	if (!ip_has(skb, ip, ip->l4_off, header) ||
	    bpf_skb_load_bytes(skb, ip->l4_off, ports, sizeof(ports)))
		return TC_UNHANDLED;
	scratch->key.sport = ports[0];
	scratch->key.dport = ports[1];
	if (!fragment_concerns(scratch, hook))
		return TC_UNHANDLED;
	if (!ip->more)
		return TC_FIRST_FRAGMENT;
	scratch->ports.sport = ports[0];
	scratch->ports.dport = ports[1];
	scratch->ports.seen = now_tick();
	bpf_map_update_elem(&fragments, &scratch->datagram, &scratch->ports, BPF_ANY);
	return TC_FIRST_FRAGMENT;
}

static __always_inline bool fragment_recall(struct header_scratch *scratch)
{
	struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, &scratch->datagram);

	if (!ports || now_tick() - ports->seen > FRAGMENT_TICKS)
		return false;
	scratch->key.sport = ports->sport;
	scratch->key.dport = ports->dport;
	return true;
}

/* A fragment of f that is larger than the way which ip_route() has found for it. */
static __always_inline int fragment_cut(struct __sk_buff *skb, const struct header_scratch *scratch,
					enum hook hook, enum verdict *v)
{
	struct bpf_fib_lookup *fib = fib_scratch_get();
	int action;

	if (hook != HOOK_TC_INGRESS || !fib)
		return TC_DROP;
	action = cut(skb, scratch->ip.l3_off, fib->mtu_result, 0);
	if (action == TC_NOT_CUT)
		return TC_DROP;
	*v = VERDICT_FRAGMENTED;
	return action;
}

static __always_inline int fragment_translate(struct __sk_buff *skb, struct header_scratch *scratch,
					      const struct flow *f, enum hook hook, enum verdict *v)
{
	enum verdict want = flow_verdict(f);
	struct outcome o = {.counts = flow_counts(f)};

	scratch->to.src = f->src;
	scratch->to.dst = f->dst;
	scratch->way = flow_routed(f) ? IP_SEND : IP_PASS;
	scratch->to.hops = flow_routed(f) ? 1 : 0;
	*v = flow_routed(f) ? ip_route(skb, f, want) : want;
	if (*v == VERDICT_TOO_BIG)
		return fragment_cut(skb, scratch, hook, v);
	if (*v != want)
		return TC_DROP;
	count_packet(&o, want, scratch->ip.len);
	if (ip_store(skb, &scratch->ip, &scratch->to)) {
		*v = VERDICT_REWRITE_FAILED;
		return TC_DROP;
	}
	tc_fix_sum(skb, scratch->ip.v4, scratch->to.sum, scratch->to.hops);
	return ip_send(skb, f->flags);
}

/*
 * A later fragment of no flow that is known. The node's own addresses are the
 * host's as well; what is for an address of services, and not for a port that
 * the first was passed on with, belongs to no flow.
 */
static __always_inline bool fragment_unknown(const struct header_scratch *scratch, bool recalled)
{
	__u32 owner = address_flags(&scratch->key.dst);

	if (recalled && frontend_lookup(&scratch->key))
		return true; /* the first was dropped */
	if (recalled)
		return owner & ADDRESS_CLUSTER_IP;
	return owner && !(owner & ADDRESS_NODE);
}

static __always_inline int fragment_later(struct __sk_buff *skb, struct header_scratch *scratch,
					  enum hook hook, enum verdict *v)
{
	bool recalled = fragment_recall(scratch);
	struct flow *f = recalled ? flow_find_any(&scratch->key) : NULL;

	if (f && flow_at_hook(f, hook))
		return fragment_translate(skb, scratch, f, hook, v);
	if (f || hook_is_egress(hook) || !fragment_unknown(scratch, recalled))
		return TC_UNHANDLED;
	*v = VERDICT_FRAGMENT_UNKNOWN;
	return TC_DROP;
}

/* A fragment whose IP header is at l3_off. Returns the action, the verdict counted, or one of
 * TC_UNHANDLED and TC_FIRST_FRAGMENT. */
__noinline int fragment(struct __sk_buff *skb, __u32 hook, __u32 l3_off)
{
	struct header_scratch *scratch = header_scratch_get();
	enum verdict v = VERDICT_FRAGMENT;
	int action;

	if (!scratch || !fragment_parse(skb, l3_off, scratch))
		return TC_UNHANDLED;
	if (!scratch->ip.offset)
		return fragment_first(skb, scratch, hook);
	action = fragment_later(skb, scratch, hook, &v);
	if (action != TC_UNHANDLED)
		count_verdict(hook, v);
	return action;
}

#endif
