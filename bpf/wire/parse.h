/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Bytes of a frame -> struct packet. What is not understood gets a verdict that passes it
 * untouched. */
#ifndef EBB_WIRE_PARSE_H
#define EBB_WIRE_PARSE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "abi/types.h"
#include "wire/packet.h"

#define MAX_VLANS    2
#define MAX_IPV6_EXT 4
#define LEN_MOST     0xffff /* a header can say */

/* What flows and frontends need of a packet: no pointers, so that it can be passed to any function.
 */
struct segment {
	struct flow_key key;
	__u32 seq;      /* TCP, host order. SCTP: the tag that INIT and INIT ACK announce */
	__u32 ack;      /* SCTP: the verification tag */
	__u32 end;      /* TCP: the sequence number behind the segment */
	__u8 tcp_flags; /* SCTP: the same in its own words, see parse_sctp(); UDP: 0 */
	__u8 v4;
	__u8 reflected; /* SCTP: the tag is that of the other direction */
	__u8 pod;       /* its sender is a pod of this node: it came in by a pod's link */
	__u8 more;      /* the first fragment of a datagram: others will look for its flow */
	__u8 pad[3];
};

/* A SYN or INIT: what its sender begins, not what it answers. */
static __always_inline bool segment_opens(const struct segment *s)
{
	return (s->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* What answers it. */
static __always_inline bool segment_accepts(const struct segment *s)
{
	return (s->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);
}

struct packet {
	struct segment seg;
	void *l2; /* pointers are valid until the packet is resized; NULL: no Ethernet header */
	void *l3;
	void *l4;
	void *end;
	__u16 l3_off; /* from the start of the frame */
	__u16 l4_off;
	__u16 len;       /* bytes from l3 on; LEN_MOST: that, or more */
	__u16 vlans;     /* tags in the frame */
	__u8 tcp_header; /* TCP: bytes of its header */
};

/*
 * Make the verifier forget what it knows of x but mask: else it walks the rest
 * of the program once for every number of tags and extension headers.
 */
static __always_inline __u32 verifier_forget(__u32 x, __u32 mask, __u32 unknown)
{
	asm volatile("%0 ^= %1" : "+r"(x) : "r"(unknown));
	asm volatile("%0 ^= %1" : "+r"(x) : "r"(unknown));
	return x & mask;
}

static __always_inline void addr_from_v4(union ip_addr *a, __be32 v4)
{
	a->w[0] = 0;
	a->w[1] = 0;
	a->w[2] = bpf_htonl(0xffff);
	a->w[3] = v4;
}

static __always_inline void addr_from_v6(union ip_addr *a, const __be32 v6[4])
{
	a->w[0] = v6[0];
	a->w[1] = v6[1];
	a->w[2] = v6[2];
	a->w[3] = v6[3];
}

/* Such an address stands for IPv4 in keys, and has no business in an IPv6 packet. */
static __always_inline bool addr_v4_mapped(const __be32 v6[4])
{
	return !v6[0] && !v6[1] && v6[2] == bpf_htonl(0xffff);
}

static __always_inline __u32 ipv4_header_bytes(__u8 version_ihl)
{
	return (version_ihl & 0x0f) * 4;
}

static __always_inline __u32 ipv6_ext_bytes(const struct ipv6_ext *ext)
{
	return (ext->len + 1) * 8;
}

/* A header that may be looked behind, up to MAX_IPV6_EXT of them. */
static __always_inline bool ipv6_is_ext(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS;
}

/* Whether the packet has stations before it: its destination is not the final one yet. */
static __always_inline bool ipv6_ext_detours(__u8 type, const struct ipv6_ext *ext)
{
	return type == IPPROTO_ROUTING && ext->segments;
}

/* The tag that an INIT or INIT ACK, the first chunk, announces; 0, which none may be, if cut off.
 */
static __always_inline __u32 sctp_announced(const struct sctp_hdr *sctp, void *end)
{
	__be32 *tag = (void *)(sctp + 1);

	return (void *)(tag + 1) > end ? 0 : bpf_ntohl(*tag);
}

/*
 * An association begins, answers and ends like a TCP connection. Only the first
 * chunk is looked at: INIT, INIT ACK and SHUTDOWN COMPLETE stand alone (RFC
 * 9260, 6.10), and an ABORT behind others is for the flow's timeout to notice.
 */
static __always_inline enum verdict parse_sctp(struct segment *s, const struct sctp_hdr *sctp,
					       void *end)
{
	s->key.sport = sctp->sport;
	s->key.dport = sctp->dport;
	s->ack = bpf_ntohl(sctp->tag);
	if (sctp->chunk == SCTP_INIT && !sctp->tag) {
		s->tcp_flags = TCP_SYN;
		s->seq = sctp_announced(sctp, end);
	} else if (sctp->chunk == SCTP_INIT_ACK) {
		s->tcp_flags = TCP_SYN | TCP_ACK;
		s->seq = sctp_announced(sctp, end);
	} else if (sctp->chunk == SCTP_COOKIE_ACK) {
		s->tcp_flags = TCP_ACK;
	} else if (sctp->chunk == SCTP_ABORT || sctp->chunk == SCTP_SHUTDOWN_COMPLETE) {
		s->tcp_flags = TCP_RST;
		s->reflected = sctp->chunk_flags & SCTP_REFLECTED;
	}
	return VERDICT_NONE;
}

/* The protocols parse_l4() knows. */
static __always_inline bool proto_balanced(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

static __always_inline enum verdict parse_l4(struct packet *p, void *data_end)
{
	__u16 l4_len = p->len - (p->l4_off - p->l3_off);

	if (p->seg.key.proto == IPPROTO_TCP) {
		struct tcp_hdr *tcp = p->l4;

		if ((void *)(tcp + 1) > data_end || l4_len < sizeof(*tcp))
			return VERDICT_MALFORMED;
		p->seg.key.sport = tcp->sport;
		p->seg.key.dport = tcp->dport;
		p->seg.seq = bpf_ntohl(tcp->seq);
		p->seg.ack = bpf_ntohl(tcp->ack);
		p->seg.tcp_flags = tcp->flags;
		p->tcp_header = (tcp->offset >> 4) * 4;
		p->seg.end = p->seg.seq + l4_len - p->tcp_header + (tcp->flags & TCP_FIN);
		return VERDICT_NONE;
	}
	if (p->seg.key.proto == IPPROTO_UDP) {
		struct udp_hdr *udp = p->l4;

		if ((void *)(udp + 1) > data_end || l4_len < sizeof(*udp))
			return VERDICT_MALFORMED;
		p->seg.key.sport = udp->sport;
		p->seg.key.dport = udp->dport;
		return VERDICT_NONE;
	}
	if (p->seg.key.proto == IPPROTO_SCTP) {
		struct sctp_hdr *sctp = p->l4;

		if ((void *)(sctp + 1) > data_end || l4_len < sizeof(*sctp))
			return VERDICT_MALFORMED;
		return parse_sctp(&p->seg, sctp, data_end);
	}
	return VERDICT_NOT_L4;
}

/* What is not balanced: hooks may want to know what it is. */
static __always_inline enum verdict parse_other(struct packet *p, __u8 proto)
{
	p->seg.key.proto = proto;
	return VERDICT_NOT_L4;
}

/*
 * A header has 16 bits for the length, and says 0 where the kernel has put more
 * than that together (BIG TCP). whole: the frame's length; 0 if that cannot be.
 */
static __always_inline bool parse_big(struct packet *p, __be16 len, __u32 whole)
{
	if (len || whole <= LEN_MOST)
		return false;
	p->len = LEN_MOST;
	return true;
}

/* first: take the first fragment of a datagram for a packet. */
static __always_inline enum verdict parse_ipv4(struct packet *p, void *data_end, __u32 whole,
					       bool first)
{
	struct ipv4_hdr *ip = p->l3;
	__u32 header;

	if ((void *)(ip + 1) > data_end)
		return VERDICT_MALFORMED;
	header = ipv4_header_bytes(ip->version_ihl);
	p->len = bpf_ntohs(ip->len);
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
		return VERDICT_MALFORMED;
	if (p->len < header && !parse_big(p, ip->len, whole))
		return VERDICT_MALFORMED;
	if (!proto_balanced(ip->proto))
		return parse_other(p, ip->proto);
	if (ip->frag & bpf_htons(first ? IP_OFFSET_MASK : IP_FRAGMENT_MASK))
		return VERDICT_FRAGMENT;
	p->seg.v4 = 1;
	p->seg.key.proto = ip->proto;
	addr_from_v4(&p->seg.key.src, ip->src);
	addr_from_v4(&p->seg.key.dst, ip->dst);
	p->l4 = p->l3 + header;
	p->l4_off = p->l3_off + header;
	return parse_l4(p, data_end);
}

static __always_inline enum verdict parse_ipv6(struct packet *p, void *data_end, __u32 whole,
					       bool first)
{
	struct ipv6_hdr *ip = p->l3;
	__u32 header = sizeof(*ip);
	__u32 total;
	__u8 next;

	if ((void *)(ip + 1) > data_end)
		return VERDICT_MALFORMED;
	total = bpf_ntohs(ip->len) + sizeof(*ip);
	if ((*(__u8 *)ip) >> 4 != 6)
		return VERDICT_MALFORMED;
	if (addr_v4_mapped(ip->src) || addr_v4_mapped(ip->dst))
		return VERDICT_MALFORMED;
	if (!parse_big(p, ip->len, whole))
		p->len = total < LEN_MOST ? total : LEN_MOST;
	next = ip->next;
	for (int i = 0; i < MAX_IPV6_EXT; i++) {
		struct ipv6_ext *ext = p->l3 + header;

		if (!ipv6_is_ext(next))
			break;
		if ((void *)(ext + 1) > data_end)
			return VERDICT_MALFORMED;
		if (ipv6_ext_detours(next, ext))
			return VERDICT_EXT_HEADERS;
		next = ext->next;
		header += ipv6_ext_bytes(ext);
	}
	if (first && next == IPPROTO_FRAGMENT) {
		struct ipv6_fragment *fragment = p->l3 + header;

		if ((void *)(fragment + 1) > data_end)
			return VERDICT_MALFORMED;
		if (fragment->frag & bpf_htons(IPV6_OFFSET_MASK))
			return VERDICT_FRAGMENT;
		next = fragment->next;
		header += sizeof(*fragment);
	}
	if (next == IPPROTO_FRAGMENT)
		return VERDICT_FRAGMENT;
	if (ipv6_is_ext(next))
		return VERDICT_EXT_HEADERS;
	if (!proto_balanced(next))
		return parse_other(p, next);
	if (header > p->len)
		return VERDICT_MALFORMED;
	header = verifier_forget(header, 0x3fff, ip->flow);
	p->seg.v4 = 0;
	p->seg.key.proto = next;
	addr_from_v6(&p->seg.key.src, ip->src);
	addr_from_v6(&p->seg.key.dst, ip->dst);
	p->l4 = p->l3 + header;
	p->l4_off = p->l3_off + header;
	return parse_l4(p, data_end);
}

/* proto: what the packet is from offset off on. */
static __always_inline enum verdict parse_network(void *data, void *data_end, __u32 whole,
						  __u32 off, __be16 proto, bool first,
						  struct packet *p)
{
	p->l3_off = off;
	p->l3 = data + off;
	p->end = data_end;
	p->tcp_header = 0;
	__builtin_memset(&p->seg, 0, sizeof(p->seg));
	if (proto == bpf_htons(ETH_P_IP))
		return parse_ipv4(p, data_end, whole, first);
	if (proto == bpf_htons(ETH_P_IPV6))
		return parse_ipv6(p, data_end, whole, first);
	return VERDICT_NOT_IP;
}

/* VERDICT_NONE: p is complete. Anything else: pass the packet untouched. */
static __always_inline enum verdict parse_packet(void *data, void *data_end, __u32 whole,
						 struct packet *p)
{
	struct eth_hdr *eth = data;
	__u32 off = sizeof(*eth);
	__be16 proto;

	if ((void *)(eth + 1) > data_end)
		return VERDICT_NOT_IP;
	proto = eth->proto;
	p->l2 = data;
#pragma unroll
	for (int i = 0; i < MAX_VLANS; i++) {
		struct vlan_hdr *vlan = data + off;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if ((void *)(vlan + 1) > data_end)
			return VERDICT_MALFORMED;
		proto = vlan->proto;
		off += sizeof(*vlan);
	}
	off = verifier_forget(off, 31, *(__u32 *)data);
	p->vlans = (off - sizeof(*eth)) / sizeof(struct vlan_hdr);
	return parse_network(data, data_end, whole, off, proto, false, p);
}

/* The same where the packet begins with its IP header. */
static __always_inline enum verdict parse_l3(void *data, void *data_end, __u32 whole, __be16 proto,
					     struct packet *p)
{
	p->l2 = NULL;
	p->vlans = 0;
	return parse_network(data, data_end, whole, 0, proto, false, p);
}

/* What was found to be a fragment before, as a packet: it is the first one. */
static __always_inline enum verdict parse_first(void *data, void *data_end, struct packet *p)
{
	__u32 off = p->l3_off & 31;
	__u8 *version = data + off;
	enum verdict v;

	/* Both are known; the verifier has forgotten. */
	if (data + sizeof(struct eth_hdr) > data_end || (void *)(version + 1) > data_end)
		return VERDICT_MALFORMED;
	p->l2 = off ? data : NULL;
	v = parse_network(data, data_end, 0, off,
			  bpf_htons(*version >> 4 == 4 ? ETH_P_IP : ETH_P_IPV6), true, p);
	p->seg.more = 1;
	return v;
}

#endif
