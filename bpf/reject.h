/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Packets the node makes itself: a packet that goes no further becomes the
 * answer to its sender. TC only.
 *
 * A packet may still lack its checksum (local senders, veth: CHECKSUM_PARTIAL).
 * Whoever sends the answer then sums up all from the old TCP or UDP header on
 * and writes the result where that header has its checksum. No helper takes
 * this back, so an answer is made to be right with it.
 */
#ifndef EBB_REJECT_H
#define EBB_REJECT_H

#include "ctx_skb.h"
#include "icmp.h"
#include "limit.h"

#define L2_MAX    22 /* Ethernet and as many tags as are parsed */
#define QUOTE_L4  8  /* what is quoted behind the IP header: ports, TCP's sequence number */
#define QUOTE_MAX 128

/* Cut here, a packet has its ports, but no checksum of TCP or UDP. */
#define L4_PORTS 4

/* The making of one answer. In a map: the stack is short, see fib_scratch. */
struct reject_room {
	struct segment seg; /* of the packet that is answered */
	__u32 l3_off;       /* in it; 0: it is bare, see tc_bare() */
	__u32 l4_off;
	__u32 l2_len;  /* of the answer */
	__u32 data;    /* bytes behind the TCP header */
	__u32 partial; /* the packet lacks its checksum */
	union {
		struct eth_hdr eth;
		__u8 l2[L2_MAX + 2];
	};
	union {
		struct tcp_hdr tcp;
		struct udp_hdr udp;
	} l4;
	struct ipv4_hdr v4;
	struct ipv6_hdr v6;
	struct icmp_hdr icmp;
	__u8 quote[QUOTE_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reject_room);
} reject_scratch SEC(".maps");

/*
 * Complete p where parsing ended with VERDICT_NOT_L4: all but ports. False: a
 * fragment, or a header that makes no sense.
 */
static __always_inline bool stray_parse(struct packet *p)
{
	struct ipv4_hdr *v4 = p->l3;
	struct ipv6_hdr *v6 = p->l3;

	if ((void *)(v4 + 1) > p->end)
		return false;
	p->seg.v4 = v4->version_ihl >> 4 == 4;
	if (p->seg.v4) {
		p->seg.key.proto = v4->proto;
		addr_from_v4(&p->seg.key.src, v4->src);
		addr_from_v4(&p->seg.key.dst, v4->dst);
		p->l4_off = p->l3_off + (v4->version_ihl & 0x0f) * 4;
		return !(v4->frag & bpf_htons(IP_FRAGMENT_MASK));
	}
	if ((void *)(v6 + 1) > p->end)
		return false;
	p->seg.key.proto = v6->next;
	addr_from_v6(&p->seg.key.src, v6->src);
	addr_from_v6(&p->seg.key.dst, v6->dst);
	p->l4_off = p->l3_off + sizeof(*v6);
	return v6->next != IPPROTO_FRAGMENT;
}

/* Nobody is answered who is many, or cannot have sent the packet (RFC 1122, 3.2.2). */
static __always_inline bool reject_answers(const struct segment *s, const struct eth_hdr *eth)
{
	const union ip_addr *src = &s->key.src;
	__u8 first = src->b[12];

	if (eth->dst[0] & 1)
		return false;
	if (s->v4)
		return first && first != 127 && first < 224;
	/* Neither multicast nor ::, ::1. */
	return src->b[0] != 0xff &&
	       (src->w[0] | src->w[1] | src->w[2] | (src->w[3] & bpf_htonl(~1)));
}

/* Ethernet and tags of the answer. */
static __always_inline long reject_load_l2(struct __sk_buff *skb, struct reject_room *r)
{
	long err;

	if (r->l3_off)
		err = bpf_skb_load_bytes(skb, 0, r->l2, L2_MAX);
	else
		err = bpf_skb_load_bytes_relative(skb, 0, &r->eth, sizeof(r->eth),
						  BPF_HDR_START_MAC);
	return err;
}

/* All an answer depends on. False: there is none. */
static __always_inline bool reject_load(struct __sk_buff *skb, struct reject_room *r)
{
	enum verdict v;
	struct packet p;

	v = tc_parse(skb, HOOK_TC_INGRESS, &p);
	if (v == VERDICT_FRAGMENT) /* the first is answered, no other (RFC 1122, 3.2.2) */
		v = parse_first((void *)(long)skb->data, (void *)(long)skb->data_end, &p);
	if (v != VERDICT_NONE && (v != VERDICT_NOT_L4 || !stray_parse(&p)))
		return false;
	r->seg = p.seg;
	r->l3_off = p.l3_off;
	r->l4_off = p.l4_off;
	r->l2_len = p.l2 ? p.l3_off : sizeof(struct eth_hdr);
	r->data = p.len - (p.l4_off - p.l3_off) - p.tcp_header;
	if (reject_load_l2(skb, r) || !reject_answers(&r->seg, &r->eth))
		return false;
	eth_turn(&r->eth);
	return true;
}

/* Bytes of the layer 4 header that stay. */
static __always_inline __u32 reject_keep(const struct reject_room *r, bool whole)
{
	return r->seg.key.proto == IPPROTO_TCP && whole ? sizeof(struct tcp_hdr) : QUOTE_L4;
}

/*
 * Cut the packet behind the layer 4 header, or as much of it as has to stay. The
 * kernel does not cut off a checksum that is still to be written: so that is found out.
 */
static __always_inline bool reject_cut(struct __sk_buff *skb, struct reject_room *r, bool whole)
{
	__u32 off = r->l4_off;

	if (r->seg.key.proto == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, off, &r->l4, sizeof(r->l4.tcp)))
			return false;
	} else if (bpf_skb_load_bytes(skb, off, &r->l4, sizeof(r->l4.udp))) {
		return false;
	}
	r->partial = (int)bpf_skb_change_tail(skb, off + L4_PORTS, 0) != 0;
	if (r->partial)
		return !bpf_skb_change_tail(skb, off + reject_keep(r, true), 0);
	if (bpf_skb_change_tail(skb, off + reject_keep(r, whole), 0))
		return false;
	return !bpf_skb_store_bytes(skb, off, &r->l4, QUOTE_L4, 0);
}

/* The sum of what is quoted, as it will be once it has left. */
static __always_inline bool quote_sum(struct __sk_buff *skb, struct reject_room *r, __u32 len,
				      __u64 *sum)
{
	__u16 check = 0, written;
	__u32 l4 = 0;

	__builtin_memset(r->quote, 0, sizeof(r->quote));
	if (len < sizeof(struct ipv4_hdr) || len > sizeof(r->quote))
		return false;
	/* Linux 6.1 has forgotten that by the next line, where clang spills len before. */
	len = verifier_forget(len - 1, QUOTE_MAX - 1, len) + 1;
	if (bpf_skb_load_bytes(skb, r->l3_off, r->quote, len))
		return false;
	*sum = (__u32)bpf_csum_diff(NULL, 0, (__be32 *)r->quote, sizeof(r->quote), 0);
	if (!r->partial)
		return true;
	if (r->seg.key.proto == IPPROTO_TCP) {
		check = r->l4.tcp.check;
		l4 = sum16(&r->l4.tcp, sizeof(r->l4.tcp));
	} else {
		check = r->l4.udp.check;
		l4 = sum16(&r->l4.udp, sizeof(r->l4.udp));
	}
	written = ~csum_fold(l4);
	*sum += csum_diff16(check, written);
	return true;
}

/* Addresses and ports of the answer are those of the packet, turned. */
static __always_inline void reject_fill_ip(struct reject_room *r, __u8 proto, __u32 bytes)
{
	const struct flow_key *k = &r->seg.key;

	__builtin_memset(&r->v4, 0, sizeof(r->v4) + sizeof(r->v6));
	if (r->seg.v4) {
		r->v4.version_ihl = 0x45;
		r->v4.len = bpf_htons(sizeof(r->v4) + bytes);
		r->v4.ttl = ANSWER_TTL;
		r->v4.proto = proto;
		r->v4.src = k->dst.w[3];
		r->v4.dst = k->src.w[3];
		r->v4.check = ~csum_fold(sum16(&r->v4, sizeof(r->v4)));
		return;
	}
	r->v6.flow = bpf_htonl(6u << 28);
	r->v6.len = bpf_htons(bytes);
	r->v6.next = proto;
	r->v6.hop_limit = ANSWER_TTL;
	for (int i = 0; i < 4; i++) {
		r->v6.src[i] = k->dst.w[i];
		r->v6.dst[i] = k->src.w[i];
	}
}

/* Of either family: what v4-mapped addresses have more of is 0 in such a sum. */
static __always_inline __u64 reject_pseudo(const struct reject_room *r, __u8 proto, __u32 bytes)
{
	return sum16(&r->seg.key.src, 16) + sum16(&r->seg.key.dst, 16) + bpf_htons(bytes) +
	       bpf_htons(proto);
}

/* Write Ethernet, tags and IP header, and return where the next header is; 0: refused. */
static __always_inline __u32 reject_store(struct __sk_buff *skb, struct reject_room *r)
{
	__u32 len = r->l2_len;

	if (len < sizeof(struct eth_hdr) || len > L2_MAX)
		return 0;
	/* As in quote_sum(). */
	len = verifier_forget(len - 1, 31, len) + 1;
	if (bpf_skb_store_bytes(skb, 0, r->l2, len, 0))
		return 0;
	if (r->seg.v4)
		return bpf_skb_store_bytes(skb, len, &r->v4, sizeof(r->v4), 0)
			       ? 0
			       : len + sizeof(r->v4);
	return bpf_skb_store_bytes(skb, len, &r->v6, sizeof(r->v6), 0) ? 0 : len + sizeof(r->v6);
}

static __always_inline void icmp_of(__u32 v, bool v4, __u32 mtu, struct icmp_hdr *icmp)
{
	icmp->rest = 0;
	icmp->code = 0;
	if (v == VERDICT_TOO_BIG) {
		icmp->type = v4 ? ICMP_DEST_UNREACH : ICMPV6_PKT_TOOBIG;
		icmp->code = v4 ? ICMP_FRAG_NEEDED : 0;
		icmp->rest = bpf_htonl(mtu);
	} else if (v == VERDICT_TTL_EXPIRED) {
		icmp->type = v4 ? ICMP_TIME_EXCEEDED : ICMPV6_TIME_EXCEEDED;
	} else {
		icmp->type = v4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH;
		icmp->code = v4 ? ICMP_PORT_UNREACH : ICMPV6_PORT_UNREACH;
	}
}

/* The packet becomes an ICMP error from the address it was sent to. */
static __always_inline bool reject_icmp(struct __sk_buff *skb, struct reject_room *r, __u32 v,
					__u32 mtu)
{
	__u32 quote, grow, at;
	__u64 sum;

	if (!reject_cut(skb, r, false))
		return false;
	quote = r->l4_off - r->l3_off + reject_keep(r, r->partial);
	if (!quote_sum(skb, r, quote, &sum))
		return false;
	icmp_of(v, r->seg.v4, mtu, &r->icmp);
	r->icmp.check = 0;
	sum += sum16(&r->icmp, sizeof(r->icmp));
	if (!r->seg.v4)
		sum += reject_pseudo(r, IPPROTO_ICMPV6, sizeof(r->icmp) + quote);
	r->icmp.check = ~csum_fold(sum);
	reject_fill_ip(r, r->seg.v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, sizeof(r->icmp) + quote);
	grow = sizeof(r->icmp) + (r->seg.v4 ? sizeof(r->v4) : sizeof(r->v6));
	if (!r->l3_off)
		grow += sizeof(struct eth_hdr);
	if (bpf_skb_change_head(skb, grow, 0))
		return false;
	at = reject_store(skb, r);
	return at && !bpf_skb_store_bytes(skb, at, &r->icmp, sizeof(r->icmp), 0);
}

/* RFC 793, page 36. */
static __always_inline void reset_fill(struct reject_room *r)
{
	const struct segment *s = &r->seg;
	struct tcp_hdr *tcp = &r->l4.tcp;
	__u64 sum;

	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->sport = s->key.dport;
	tcp->dport = s->key.sport;
	tcp->offset = sizeof(*tcp) / 4 << 4;
	tcp->flags = TCP_RST;
	if (s->tcp_flags & TCP_ACK) {
		tcp->seq = bpf_htonl(s->ack);
	} else {
		tcp->flags |= TCP_ACK;
		tcp->ack = bpf_htonl(s->seq + r->data + !!(s->tcp_flags & TCP_SYN) +
				     !!(s->tcp_flags & TCP_FIN));
	}
	sum = reject_pseudo(r, IPPROTO_TCP, sizeof(*tcp));
	tcp->check = r->partial ? csum_fold(sum) : ~csum_fold(sum + sum16(tcp, sizeof(*tcp)));
}

/* The packet becomes a RST. Options go; behind tags the kernel does not cut them out. */
static __always_inline bool reject_reset(struct __sk_buff *skb, struct reject_room *r)
{
	__u32 header = r->seg.v4 ? sizeof(r->v4) : sizeof(r->v6), at;
	__s32 options = r->l4_off - r->l3_off - header;

	if (!reject_cut(skb, r, true))
		return false;
	if (options && (r->l3_off != sizeof(struct eth_hdr) ||
			bpf_skb_adjust_room(skb, -options, BPF_ADJ_ROOM_MAC, 0)))
		return false;
	if (!r->l3_off && bpf_skb_change_head(skb, sizeof(struct eth_hdr), 0))
		return false;
	reset_fill(r);
	reject_fill_ip(r, IPPROTO_TCP, sizeof(r->l4.tcp));
	at = reject_store(skb, r);
	return at && !bpf_skb_store_bytes(skb, at, &r->l4.tcp, sizeof(r->l4.tcp), 0);
}

/*
 * Answer a packet that goes no further for the reason v. Returns what the
 * program is to return, or REJECT_LIMITED.
 */
__noinline int reject(struct __sk_buff *skb, __u32 v, __u32 mtu)
{
	struct reject_room *r;
	__u32 zero = 0;
	bool tcp, done;

	r = bpf_map_lookup_elem(&reject_scratch, &zero);
	if (!r || !reject_load(skb, r))
		return TC_DROP;
	tcp = r->seg.key.proto == IPPROTO_TCP;
	if (verdict_refuses(v) && r->seg.tcp_flags & TCP_RST)
		return TC_DROP;
	if (!answer_allowed())
		return REJECT_LIMITED;
	if (tcp && (v == VERDICT_BACKEND_GONE || (cfg_reject_reset && verdict_refuses(v))))
		done = reject_reset(skb, r);
	else
		done = reject_icmp(skb, r, v, mtu);
	return done ? bpf_redirect(skb->ifindex, 0) : TC_DROP;
}

/* Turn an echo request round where it is. */
static __always_inline bool echo_turn(struct packet *p)
{
	struct icmp_hdr *icmp;
	__be16 was, is;

	if (p->seg.v4) {
		struct ipv4_hdr *ip = p->l3;

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > p->end)
			return false;
		ip->src = p->seg.key.dst.w[3];
		ip->dst = p->seg.key.src.w[3];
		ip->ttl = ANSWER_TTL;
		ip->check = 0;
		ip->check = ~csum_fold(sum16(ip, sizeof(*ip)));
	} else {
		struct ipv6_hdr *ip = p->l3;

		icmp = (void *)(ip + 1);
		if ((void *)(icmp + 1) > p->end)
			return false;
		for (int i = 0; i < 4; i++) {
			ip->src[i] = p->seg.key.dst.w[i];
			ip->dst[i] = p->seg.key.src.w[i];
		}
		ip->hop_limit = ANSWER_TTL;
	}
	was = *(__be16 *)icmp;
	icmp->type = p->seg.v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
	is = *(__be16 *)icmp;
	icmp->check = csum_apply(icmp->check, csum_diff16(was, is));
	return true;
}

/* Answer a ping. VERDICT_NOT_L4: it is not for us to answer. */
static __always_inline enum verdict echo_answer(struct __sk_buff *skb, struct packet *p)
{
	__u32 header = p->seg.v4 ? sizeof(struct ipv4_hdr) : sizeof(struct ipv6_hdr);
	bool bare = !p->l2;
	struct eth_hdr eth;

	if (p->l4_off - p->l3_off != header ||
	    bpf_skb_load_bytes_relative(skb, 0, &eth, sizeof(eth), BPF_HDR_START_MAC) ||
	    !reject_answers(&p->seg, &eth))
		return VERDICT_NOT_L4;
	if (!answer_allowed())
		return VERDICT_REJECT_LIMITED;
	eth_turn(&eth);
	if (!echo_turn(p) || (bare && bpf_skb_change_head(skb, sizeof(eth), 0)) ||
	    bpf_skb_store_bytes(skb, 0, &eth, bare ? sizeof(eth) : sizeof(eth) - 2, 0))
		return VERDICT_REWRITE_FAILED;
	bpf_redirect(skb->ifindex, 0);
	return VERDICT_ECHO;
}

/*
 * What becomes of a packet of a protocol nobody balances: of ICMP, only what
 * asks something is new (errors belong to flows, answers to questions).
 */
__noinline int stray_verdict(struct __sk_buff *skb)
{
	struct packet p;
	bool icmp;
	__u8 type;
	int v;

	if (tc_parse(skb, HOOK_TC_INGRESS, &p) != VERDICT_NOT_L4 || !stray_parse(&p))
		return VERDICT_NOT_L4;
	icmp = p.seg.key.proto == (p.seg.v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
	if (icmp && (bpf_skb_load_bytes(skb, p.l4_off, &type, sizeof(type)) ||
		     type != (p.seg.v4 ? ICMP_ECHO : ICMPV6_ECHO)))
		return VERDICT_NOT_L4;
	if (cfg_vip_echo && icmp && address_flags(&p.seg.key.dst) & ADDRESS_EXTERNAL)
		return echo_answer(skb, &p);
	if (!address_in_services(&p.seg.key.dst, p.seg.v4))
		return VERDICT_NOT_L4;
	v = address_verdict(&p.seg.key.dst);
	return v == VERDICT_NOT_SERVICE ? VERDICT_NOT_L4 : v;
}

#endif
