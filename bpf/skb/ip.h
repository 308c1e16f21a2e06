/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * IP headers read and written by helpers, for ICMP errors and fragments. That is
 * slower than direct access, but short, and works wherever in a packet a header
 * stands. TC only.
 */
#ifndef EBB_SKB_IP_H
#define EBB_SKB_IP_H

#include "wire/nat.h"
#include "flow/decide.h"
#include "skb/context.h"
#include "skb/rewrite.h"
#include "skb/send.h"

/*
 * What is no packet of a flow but may have to do with one, in headers of their
 * own. They return an action, the verdict counted, or one of these.
 */
#define TC_UNHANDLED      100 /* none of ebb's business */
#define TC_FIRST_FRAGMENT 101 /* a first fragment, to be treated as a packet */

/* An IP header, and where what it is of begins. */
struct ip_header {
	union ip_addr src;
	union ip_addr dst;
	__u32 l3_off; /* from the start of the frame */
	__u32 l4_off; /* behind options, extension headers and the fragment header */
	__u32 len;    /* bytes from l3_off on, as the header says */
	__u32 id;     /* fragments: identification, as on the wire */
	__u32 flow;   /* IPv6: traffic class and flow label, as on the wire */
	__u16 offset; /* fragments: of this one, in 8 bytes */
	__u8 more;    /* fragments: this is not the last */
	__u8 proto;
	__u8 ttl;
	__u8 tos; /* IPv4 */
	__u8 v4;
	__u8 fragment; /* has an offset, more, or a fragment header */
};

/* Addresses a header is to have. */
struct ip_addrs {
	union ip_addr src;
	union ip_addr dst;
	__u32 hops; /* to be taken off the TTL */
	__u32 sum;  /* out: what the rewrite of addresses adds to a sum */
};

/* What is read of a packet, per CPU: the stack is short, see fib_scratch. */
struct header_scratch {
	struct ip_header ip;     /* the packet */
	struct ip_header quoted; /* the packet an ICMP error is about */
	struct ip_addrs to;
	struct flow_key key;
	struct fragment_key datagram;
	struct fragment_ports ports;
	__u32 way; /* enum ip_way */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct header_scratch);
} header_scratch SEC(".maps");

static __always_inline struct header_scratch *header_scratch_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&header_scratch, &zero);
}

static __always_inline long ip_load_v4(struct __sk_buff *skb, struct ip_header *ip)
{
	struct ipv4_hdr h;
	__u32 header;
	__u16 frag;

	if (bpf_skb_load_bytes(skb, ip->l3_off, &h, sizeof(h)))
		return -1;
	header = ipv4_header_bytes(h.version_ihl);
	if (header < sizeof(h))
		return -1;
	frag = bpf_ntohs(h.frag);
	addr_from_v4(&ip->src, h.src);
	addr_from_v4(&ip->dst, h.dst);
	ip->l4_off = ip->l3_off + header;
	ip->len = bpf_ntohs(h.len);
	ip->id = h.id;
	ip->offset = frag & IP_OFFSET_MASK;
	ip->more = !!(frag & IP_MORE_FRAGMENTS);
	ip->fragment = ip->offset || ip->more;
	ip->proto = h.proto;
	ip->ttl = h.ttl;
	ip->tos = h.tos;
	ip->v4 = 1;
	return 0;
}

/* A fragment header; what follows it is in the fragmented part, and not looked behind. */
static __always_inline long ip_load_fragment(struct __sk_buff *skb, struct ip_header *ip)
{
	struct ipv6_fragment f;
	__u16 frag;

	if (bpf_skb_load_bytes(skb, ip->l4_off, &f, sizeof(f)))
		return -1;
	frag = bpf_ntohs(f.frag);
	ip->offset = frag >> 3;
	ip->more = frag & IPV6_MORE_FRAGMENTS;
	ip->fragment = 1;
	ip->id = f.id;
	ip->proto = f.next;
	ip->l4_off += sizeof(f);
	return 0;
}

/* As parse_ipv6() does. */
static __always_inline long ip_load_extensions(struct __sk_buff *skb, struct ip_header *ip)
{
	struct ipv6_ext ext;

	for (int i = 0; i < MAX_IPV6_EXT; i++) {
		if (!ipv6_is_ext(ip->proto))
			break;
		if (bpf_skb_load_bytes(skb, ip->l4_off, &ext, sizeof(ext)))
			return -1;
		if (ipv6_ext_detours(ip->proto, &ext))
			return -1;
		ip->proto = ext.next;
		ip->l4_off += ipv6_ext_bytes(&ext);
	}
	if (ip->proto == IPPROTO_FRAGMENT)
		return ip_load_fragment(skb, ip);
	return 0;
}

static __always_inline long ip_load_v6(struct __sk_buff *skb, struct ip_header *ip)
{
	struct ipv6_hdr h;

	if (bpf_skb_load_bytes(skb, ip->l3_off, &h, sizeof(h)))
		return -1;
	if (addr_v4_mapped(h.src) || addr_v4_mapped(h.dst))
		return -1;
	addr_from_v6(&ip->src, h.src);
	addr_from_v6(&ip->dst, h.dst);
	ip->l4_off = ip->l3_off + sizeof(h);
	ip->len = bpf_ntohs(h.len) + sizeof(h);
	ip->flow = h.flow & bpf_htonl(IPV6_LABEL_MASK);
	ip->proto = h.next;
	ip->ttl = h.hop_limit;
	return ip_load_extensions(skb, ip);
}

/* Read the IP header at off. Not 0: it is not understood. */
__noinline int ip_load(struct __sk_buff *skb, __u32 off, struct ip_header *ip)
{
	__u8 version;

	if (!ip)
		return -1;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->l3_off = off;
	if (bpf_skb_load_bytes(skb, off, &version, sizeof(version)))
		return -1;
	if (version >> 4 == 4)
		return ip_load_v4(skb, ip);
	return version >> 4 == 6 ? ip_load_v6(skb, ip) : -1;
}

/* Whether the packet of ip has n bytes from off on, by its header and in truth. */
static __always_inline bool ip_has(struct __sk_buff *skb, const struct ip_header *ip, __u32 off,
				   __u32 n)
{
	return off + n <= ip->l3_off + ip->len && off + n <= skb->len;
}

static __always_inline long ip_store_v4(struct __sk_buff *skb, const struct ip_header *ip,
					const struct ip_addrs *to)
{
	struct ipv4_hdr h;

	if (bpf_skb_load_bytes(skb, ip->l3_off, &h, sizeof(h)))
		return -1;
	h.src = to->src.w[3];
	h.dst = to->dst.w[3];
	h.ttl -= to->hops;
	h.check = csum_apply(h.check, to->sum + (to->hops ? bpf_htons(TTL_DIFF) : 0));
	return bpf_skb_store_bytes(skb, ip->l3_off, &h, sizeof(h), 0);
}

static __always_inline long ip_store_v6(struct __sk_buff *skb, const struct ip_header *ip,
					const struct ip_addrs *to)
{
	struct ipv6_hdr h;

	if (bpf_skb_load_bytes(skb, ip->l3_off, &h, sizeof(h)))
		return -1;
	for (int i = 0; i < 4; i++) {
		h.src[i] = to->src.w[i];
		h.dst[i] = to->dst.w[i];
	}
	h.hop_limit -= to->hops;
	return bpf_skb_store_bytes(skb, ip->l3_off, &h, sizeof(h), 0);
}

/*
 * Give a header other addresses. The words of an IPv4 header add up to what
 * they did; IPv6 has no checksum of its own that would see to that.
 */
__noinline int ip_store(struct __sk_buff *skb, const struct ip_header *ip, struct ip_addrs *to)
{
	if (!ip || !to)
		return -1;
	to->sum =
		csum_fold(csum_diff_addr(&ip->src, &to->src) + csum_diff_addr(&ip->dst, &to->dst));
	return ip->v4 ? ip_store_v4(skb, ip, to) : ip_store_v6(skb, ip, to);
}

/* The entry of a flow that packets with this key belong to, established or not. */
static __always_inline struct flow *flow_find_any(const struct flow_key *key)
{
	struct flow *f = bpf_map_lookup_elem(&flows, key);

	if (!f)
		f = bpf_map_lookup_elem(&half_open, key); /* begins with a flow */
	return f ? f : bpf_map_lookup_elem(&closed, key);
}

/* What becomes of a packet that gets a flow's addresses. */
enum ip_way {
	IP_SEND,     /* by fib_scratch */
	IP_PASS,     /* to the stack: it is for this node, or a pod of it */
	IP_TO_STACK, /* the stack sends it, see tc_to_stack() */
};

/*
 * Where a packet goes that gets f's addresses: why no further, or v. No sender is
 * told: it is an ICMP error, or a later fragment. header_scratch_get()->way says what
 * becomes of it. Not inlined, for the stack.
 */
__noinline int ip_route(struct __sk_buff *skb, const struct flow *f, __u32 v)
{
	struct header_scratch *scratch = header_scratch_get();
	struct bpf_fib_lookup *fib = fib_scratch_get();
	struct route_query q = {};
	long err;

	if (!scratch || !fib || !f)
		return VERDICT_NO_ROUTE;
	if (scratch->ip.ttl <= 1)
		return VERDICT_TTL_EXPIRED;
	q.bytes = scratch->ip.len;
	q.label = scratch->ip.v4 ? scratch->ip.tos : scratch->ip.flow;
	q.proto = scratch->ip.proto;
	q.v4 = scratch->ip.v4;
	err = fib_ask(skb, skb->ifindex, &q, f, fib);
	scratch->way = IP_SEND;
	if (err == BPF_FIB_LKUP_RET_NOT_FWDED && f->flags & FLOW_REVERSE)
		scratch->way = IP_PASS;
	else if (err == FIB_TO_STACK)
		scratch->way = IP_TO_STACK;
	if (scratch->way != IP_SEND || fib_leads(err))
		return v;
	return err == BPF_FIB_LKUP_RET_FRAG_NEEDED ? VERDICT_TOO_BIG : VERDICT_NO_ROUTE;
}

/* To the stack; or, where a pod talks to itself, back to it. */
static __always_inline int ip_pass(struct __sk_buff *skb, __u32 flow_flags)
{
	struct eth_hdr eth;

	if (!(flow_flags & FLOW_HAIRPIN))
		return TC_NEXT;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return TC_DROP;
	eth_turn(&eth);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return TC_DROP;
	return bpf_redirect(skb->ifindex, 0);
}

/*
 * Send it where ip_route() has found: by the kernel's neighbour code, if not by the stack.
 * Not inlined, for the stack.
 */
__noinline int ip_send(struct __sk_buff *skb, __u32 flow_flags)
{
	struct header_scratch *scratch = header_scratch_get();
	struct bpf_fib_lookup *fib = fib_scratch_get();
	bool no_l2;

	if (!scratch || !fib)
		return TC_DROP;
	if (scratch->way == IP_PASS)
		return ip_pass(skb, flow_flags);
	no_l2 = !scratch->ip.l3_off;
	return scratch->way == IP_TO_STACK ? tc_to_stack(skb, no_l2)
					   : tc_send_neigh(skb, no_l2, fib);
}

#endif
