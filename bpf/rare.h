/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What packets off the usual path need, ICMP errors and fragments: headers
 * read, written and routed by helpers. That is slower than direct access, but
 * short, and indifferent to where in a packet a header stands. TC only.
 */
#ifndef EBB_RARE_H
#define EBB_RARE_H

#include "ctx_skb.h"
#include "icmp.h"

/* An IP header, and where what it is of begins. */
struct rare_ip {
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
struct rare_addrs {
	union ip_addr src;
	union ip_addr dst;
	__u32 hops; /* to be taken off the TTL */
	__u32 sum;  /* out: what the rewrite of addresses adds to a sum */
};

/* Room per CPU: the stack is short, see fib_scratch. */
struct rare_room {
	struct rare_ip ip;     /* the packet */
	struct rare_ip quoted; /* the packet an ICMP error is about */
	struct rare_addrs to;
	struct flow_key key;
	struct fragment_key datagram;
	struct fragment_ports ports;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rare_room);
} rare_scratch SEC(".maps");

static __always_inline struct rare_room *rare_space(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rare_scratch, &zero);
}

static __always_inline long rare_ipv4(struct __sk_buff *skb, struct rare_ip *ip)
{
	struct ipv4_hdr h;
	__u32 header;
	__u16 frag;

	if (bpf_skb_load_bytes(skb, ip->l3_off, &h, sizeof(h)))
		return -1;
	header = (h.version_ihl & 0x0f) * 4;
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
static __always_inline long rare_fragment_header(struct __sk_buff *skb, struct rare_ip *ip)
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

/* The same limits as in parse_ipv6(). */
static __always_inline long rare_extensions(struct __sk_buff *skb, struct rare_ip *ip)
{
	struct ipv6_ext ext;

	for (int i = 0; i < MAX_IPV6_EXT; i++) {
		if (!ipv6_is_ext(ip->proto))
			break;
		if (bpf_skb_load_bytes(skb, ip->l4_off, &ext, sizeof(ext)))
			return -1;
		if (ip->proto == IPPROTO_ROUTING && ext.segments)
			return -1;
		ip->proto = ext.next;
		ip->l4_off += (ext.len + 1) * 8;
	}
	if (ip->proto == IPPROTO_FRAGMENT)
		return rare_fragment_header(skb, ip);
	return 0;
}

static __always_inline long rare_ipv6(struct __sk_buff *skb, struct rare_ip *ip)
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
	ip->flow = h.flow & bpf_htonl(0x0fffffff);
	ip->proto = h.next;
	ip->ttl = h.hop_limit;
	return rare_extensions(skb, ip);
}

/* Read the IP header at off. Not 0: it is not understood. */
__noinline int rare_parse(struct __sk_buff *skb, __u32 off, struct rare_ip *ip)
{
	__u8 version;

	if (!ip)
		return -1;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->l3_off = off;
	if (bpf_skb_load_bytes(skb, off, &version, sizeof(version)))
		return -1;
	if (version >> 4 == 4)
		return rare_ipv4(skb, ip);
	return version >> 4 == 6 ? rare_ipv6(skb, ip) : -1;
}

/* Whether the packet of ip has n bytes from off on, by its header and in truth. */
static __always_inline bool rare_has(struct __sk_buff *skb, const struct rare_ip *ip, __u32 off,
				     __u32 n)
{
	return off + n <= ip->l3_off + ip->len && off + n <= skb->len;
}

static __always_inline long rare_write_ipv4(struct __sk_buff *skb, const struct rare_ip *ip,
					    const struct rare_addrs *to)
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

static __always_inline long rare_write_ipv6(struct __sk_buff *skb, const struct rare_ip *ip,
					    const struct rare_addrs *to)
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
__noinline int rare_write(struct __sk_buff *skb, const struct rare_ip *ip, struct rare_addrs *to)
{
	if (!ip || !to)
		return -1;
	to->sum =
		csum_fold(csum_diff_addr(&ip->src, &to->src) + csum_diff_addr(&ip->dst, &to->dst));
	return ip->v4 ? rare_write_ipv4(skb, ip, to) : rare_write_ipv6(skb, ip, to);
}

/* Tell the sum a NIC has made of an IPv6 packet what rare_write() has added to it. See tc_fix_l4().
 */
static __always_inline void rare_settle(struct __sk_buff *skb, const struct rare_ip *ip,
					const struct rare_addrs *to)
{
	if (!ip->v4)
		bpf_csum_update(skb, to->sum + (to->hops ? bpf_htons(HOP_DIFF) : 0));
}

/* The entry of a flow that packets with this key belong to, established or not. */
static __always_inline struct flow *rare_flow(const struct flow_key *key)
{
	struct flow *f = bpf_map_lookup_elem(&flows, key);

	if (f)
		return f;
	return bpf_map_lookup_elem(&half_open, key); /* begins with a flow */
}

/* Where the packet goes once it has the addresses in room->to; an error of bpf_fib_lookup(). */
static __always_inline long rare_fib(struct __sk_buff *skb, const struct rare_room *room,
				     const struct flow *f)
{
	struct bpf_fib_lookup *fib = fib_room();

	if (!fib)
		return -1;
	__builtin_memset(fib, 0, sizeof(*fib));
	fib->l4_protocol = room->ip.proto;
	fib->sport = f->sport;
	fib->dport = f->dport;
	fib->tot_len = room->ip.len;
	fib->ifindex = skb->ifindex;
	if (room->ip.v4) {
		fib->family = AF_INET;
		fib->tos = room->ip.tos;
		fib->ipv4_src = room->to.src.w[3];
		fib->ipv4_dst = room->to.dst.w[3];
	} else {
		fib->family = AF_INET6;
		fib->flowinfo = room->ip.flow;
		__builtin_memcpy(fib->ipv6_src, room->to.src.b, 16);
		__builtin_memcpy(fib->ipv6_dst, room->to.dst.b, 16);
	}
	return bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
}

/*
 * Why a packet that ebb routes goes no further, or v. Nobody is told: it is an
 * ICMP error, or a later fragment. local: it is for this node after all.
 */
static __always_inline enum verdict rare_route(struct __sk_buff *skb, const struct rare_room *room,
					       const struct flow *f, enum verdict v, bool *local)
{
	long err;

	if (room->ip.ttl <= 1)
		return VERDICT_TTL_EXPIRED;
	err = rare_fib(skb, room, f);
	*local = err == BPF_FIB_LKUP_RET_NOT_FWDED && f->flags & FLOW_REVERSE;
	if (*local || err == BPF_FIB_LKUP_RET_SUCCESS || err == BPF_FIB_LKUP_RET_NO_NEIGH)
		return v;
	return err == BPF_FIB_LKUP_RET_FRAG_NEEDED ? VERDICT_TOO_BIG : VERDICT_NO_ROUTE;
}

/* Send it where rare_fib() has found, by the kernel's neighbour code. */
static __always_inline int rare_send(struct __sk_buff *skb, bool bare)
{
	struct bpf_fib_lookup *fib = fib_room();

	return fib ? tc_send_neigh(skb, bare, fib) : TC_DROP;
}

/* To the stack; or, where a pod talks to itself, back to it. */
static __always_inline int rare_pass(struct __sk_buff *skb, const struct flow *f)
{
	struct eth_hdr eth;

	if (!(f->flags & FLOW_HAIRPIN))
		return TC_NEXT;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return TC_DROP;
	eth_turn(&eth);
	if (bpf_skb_store_bytes(skb, 0, &eth, sizeof(eth), 0))
		return TC_DROP;
	return bpf_redirect(skb->ifindex, 0);
}

#endif
