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
#ifndef EBB_SKB_ANSWER_H
#define EBB_SKB_ANSWER_H

#include "wire/icmp.h"
#include "wire/nat.h"
#include "wire/sctp.h"
#include "flow/decide.h"
#include "flow/limit.h"
#include "skb/context.h"

#define L2_MAX    22 /* Ethernet and as many tags as are parsed */
#define QUOTE_MAX 128

/* Cut here, a packet has its ports, but no checksum of TCP or UDP. */
#define L4_PORTS 4

/* The making of one answer. In a map: the stack is short, see fib_scratch. */
struct reject_scratch {
	struct segment seg; /* of the packet that is answered */
	__u32 l3_off;       /* in it; 0: no Ethernet header, see tc_parse() */
	__u32 l4_off;
	__u32 l2_len;  /* of the answer; 0 where the device has no Ethernet */
	__u32 data;    /* bytes behind the TCP header */
	__u32 partial; /* the packet lacks its checksum */
	__u32 chunk;   /* SCTP: type of the answer */
	union {
		struct eth_hdr eth;
		__u8 l2[L2_MAX + 2];
	};
	union {
		struct tcp_hdr tcp;
		struct udp_hdr udp;
		struct sctp_hdr sctp;
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
	__type(value, struct reject_scratch);
} reject_scratch SEC(".maps");

/*
 * Complete p where parsing ended with VERDICT_NOT_L4, another protocol: all but ports. False: a
 * fragment, or a header that makes no sense.
 */
static __always_inline bool other_parse(struct packet *p)
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
		p->l4_off = p->l3_off + ipv4_header_bytes(v4->version_ihl);
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

/* No answer to broadcast, multicast, or an address that cannot be a sender (RFC 1122, 3.2.2). */
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
static __always_inline long reject_load_l2(struct __sk_buff *skb, struct reject_scratch *r)
{
	long err;

	if (cfg_no_ethernet) {
		__builtin_memset(&r->eth, 0, sizeof(r->eth));
		return 0;
	}
	if (r->l3_off)
		err = bpf_skb_load_bytes(skb, 0, r->l2, L2_MAX);
	else
		err = bpf_skb_load_bytes_relative(skb, 0, &r->eth, sizeof(r->eth),
						  BPF_HDR_START_MAC);
	return err;
}

/* All an answer depends on. False: there is none. */
static __always_inline bool reject_load(struct __sk_buff *skb, struct reject_scratch *r)
{
	enum verdict v;
	struct packet p;

	v = tc_parse(skb, HOOK_TC_INGRESS, &p);
	if (v == VERDICT_FRAGMENT) /* the first is answered, no other (RFC 1122, 3.2.2) */
		v = parse_first((void *)(long)skb->data, (void *)(long)skb->data_end, &p);
	if (v != VERDICT_NONE && (v != VERDICT_NOT_L4 || !other_parse(&p)))
		return false;
	r->seg = p.seg;
	r->l3_off = p.l3_off;
	r->l4_off = p.l4_off;
	r->l2_len = p.l2 || cfg_no_ethernet ? p.l3_off : sizeof(struct eth_hdr);
	r->data = p.len - (p.l4_off - p.l3_off) - p.tcp_header;
	if (reject_load_l2(skb, r) || !reject_answers(&r->seg, &r->eth))
		return false;
	eth_turn(&r->eth);
	return true;
}

/* Bytes of the layer 4 header that stay. */
static __always_inline __u32 reject_keep(const struct reject_scratch *r, bool whole)
{
	if (whole && r->seg.key.proto == IPPROTO_TCP)
		return sizeof(struct tcp_hdr);
	if (whole && r->seg.key.proto == IPPROTO_SCTP)
		return sizeof(struct sctp_hdr);
	return ICMP_QUOTE;
}

/*
 * Cut the packet behind the layer 4 header, or as much of it as has to stay. The
 * kernel does not cut off a checksum that is still to be written: so that is found out.
 */
static __always_inline bool reject_cut(struct __sk_buff *skb, struct reject_scratch *r, bool whole)
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
	return !bpf_skb_store_bytes(skb, off, &r->l4, ICMP_QUOTE, 0);
}

/* The sum of what is quoted, as it will be once it has left. */
static __always_inline bool quote_sum(struct __sk_buff *skb, struct reject_scratch *r, __u32 len,
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
static __always_inline void reject_fill_ip(struct reject_scratch *r, __u8 proto, __u32 bytes)
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
static __always_inline __u64 reject_pseudo(const struct reject_scratch *r, __u8 proto, __u32 bytes)
{
	return sum16(&r->seg.key.src, 16) + sum16(&r->seg.key.dst, 16) + bpf_htons(bytes) +
	       bpf_htons(proto);
}

/* Write Ethernet and tags, and return where IP begins; negative: refused. */
static __always_inline long reject_store_l2(struct __sk_buff *skb, const struct reject_scratch *r)
{
	__u32 len = r->l2_len;

	if (cfg_no_ethernet)
		return 0;
	if (len < sizeof(struct eth_hdr) || len > L2_MAX)
		return -1;
	/* As in quote_sum(). */
	len = verifier_forget(len - 1, 31, len) + 1;
	return bpf_skb_store_bytes(skb, 0, r->l2, len, 0) ? -1 : len;
}

/* Write Ethernet, tags and IP header, and return where the next header is; 0: refused. */
static __always_inline __u32 reject_store(struct __sk_buff *skb, struct reject_scratch *r)
{
	long len = reject_store_l2(skb, r);

	if (len < 0)
		return 0;
	if (r->seg.v4)
		return bpf_skb_store_bytes(skb, len, &r->v4, sizeof(r->v4), 0)
			       ? 0
			       : len + sizeof(r->v4);
	return bpf_skb_store_bytes(skb, len, &r->v6, sizeof(r->v6), 0) ? 0 : len + sizeof(r->v6);
}

/* The code of an error about a packet without a way: what the kernel's routes say, as its own. */
static __always_inline __u8 icmp_no_way(__u32 why, bool v4)
{
	switch (why) {
	case BPF_FIB_LKUP_RET_PROHIBIT:
		return v4 ? ICMP_FILTERED : ICMPV6_PROHIBITED;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return v4 ? ICMP_HOST_UNREACH : ICMPV6_ADDR_UNREACH;
	case BPF_FIB_LKUP_RET_UNREACHABLE:
		return v4 ? ICMP_HOST_UNREACH : ICMPV6_NO_ROUTE;
	default:
		return v4 ? ICMP_NET_UNREACH : ICMPV6_NO_ROUTE;
	}
}

/* detail: the MTU, or why there is no way. */
static __always_inline void icmp_of(__u32 v, bool v4, __u32 detail, struct icmp_hdr *icmp)
{
	icmp->rest = 0;
	icmp->code = 0;
	if (v == VERDICT_TOO_BIG) {
		icmp->type = v4 ? ICMP_DEST_UNREACH : ICMPV6_PKT_TOOBIG;
		icmp->code = v4 ? ICMP_FRAG_NEEDED : 0;
		icmp->rest = bpf_htonl(detail);
	} else if (v == VERDICT_TTL_EXPIRED) {
		icmp->type = v4 ? ICMP_TIME_EXCEEDED : ICMPV6_TIME_EXCEEDED;
	} else if (v == VERDICT_NO_ROUTE) {
		icmp->type = v4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH;
		icmp->code = icmp_no_way(detail, v4);
	} else {
		icmp->type = v4 ? ICMP_DEST_UNREACH : ICMPV6_DEST_UNREACH;
		icmp->code = v4 ? ICMP_PORT_UNREACH : ICMPV6_PORT_UNREACH;
	}
}

/*
 * Make space for the headers of an answer in front of the packet. Where there is no Ethernet, what
 * comes first is the network header, and bpf_skb_change_head() would leave that where it
 * was: redirecting cuts off what is in front of it.
 */
static __always_inline long reject_grow(struct __sk_buff *skb, const struct reject_scratch *r,
					__u32 bytes)
{
	if (cfg_no_ethernet)
		return bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_MAC, 0);
	if (!r->l3_off)
		bytes += sizeof(struct eth_hdr);
	return bytes ? bpf_skb_change_head(skb, bytes, 0) : 0;
}

/* The packet becomes an ICMP error from the address it was sent to. */
static __always_inline bool reject_icmp(struct __sk_buff *skb, struct reject_scratch *r, __u32 v,
					__u32 detail)
{
	__u32 quote, grow, at;
	__u64 sum;

	if (!reject_cut(skb, r, false))
		return false;
	quote = r->l4_off - r->l3_off + reject_keep(r, r->partial);
	if (!quote_sum(skb, r, quote, &sum))
		return false;
	icmp_of(v, r->seg.v4, detail, &r->icmp);
	r->icmp.check = 0;
	sum += sum16(&r->icmp, sizeof(r->icmp));
	if (!r->seg.v4)
		sum += reject_pseudo(r, IPPROTO_ICMPV6, sizeof(r->icmp) + quote);
	r->icmp.check = ~csum_fold(sum);
	reject_fill_ip(r, r->seg.v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, sizeof(r->icmp) + quote);
	grow = sizeof(r->icmp) + (r->seg.v4 ? sizeof(r->v4) : sizeof(r->v6));
	if (reject_grow(skb, r, grow))
		return false;
	at = reject_store(skb, r);
	return at && !bpf_skb_store_bytes(skb, at, &r->icmp, sizeof(r->icmp), 0);
}

/* RFC 9293, 3.10.7.1. */
static __always_inline void reset_fill(struct reject_scratch *r)
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

/* The answer to a chunk of an unknown association (RFC 9260, 8.4 and 8.5.1); 0: none. */
static __always_inline __u8 abort_chunk(struct __sk_buff *skb, const struct reject_scratch *r)
{
	struct {
		__u8 type;
		__u8 flags;
		__be16 len;
		__be16 cause;
	} chunk = {};
	__u32 off = r->l4_off + __builtin_offsetof(struct sctp_hdr, chunk);

	/* With a cause, or without one. */
	if (bpf_skb_load_bytes(skb, off, &chunk, sizeof(chunk)) &&
	    bpf_skb_load_bytes(skb, off, &chunk, offsetof(typeof(chunk), cause)))
		return 0;
	switch (chunk.type) {
	case SCTP_INIT: /* with a tag */
	case SCTP_ABORT:
	case SCTP_SHUTDOWN_COMPLETE:
	case SCTP_COOKIE_ACK:
		return 0;
	case SCTP_ERROR:
		return chunk.cause == bpf_htons(SCTP_STALE_COOKIE) ? 0 : SCTP_ABORT;
	case SCTP_SHUTDOWN_ACK:
		return SCTP_SHUTDOWN_COMPLETE;
	}
	return SCTP_ABORT;
}

/* An ABORT or SHUTDOWN COMPLETE with the tag that came. */
static __always_inline void abort_fill(struct reject_scratch *r)
{
	const struct segment *s = &r->seg;
	struct sctp_hdr *sctp = &r->l4.sctp;

	sctp->sport = s->key.dport;
	sctp->dport = s->key.sport;
	sctp->tag = bpf_htonl(s->ack);
	sctp->check = 0;
	sctp->chunk = r->chunk;
	sctp->chunk_flags = SCTP_REFLECTED;
	sctp->chunk_len = bpf_htons(sizeof(*sctp) - __builtin_offsetof(struct sctp_hdr, chunk));
	/* Whoever sends a partial one sums over a field of zero: see tc_sctp_unfinished(). */
	if (!r->partial)
		sctp->check = sctp_sum(sctp);
}

/*
 * The packet becomes a RST, or an ABORT. Options go; behind tags the kernel does
 * not cut them out.
 */
static __always_inline bool reject_reset(struct __sk_buff *skb, struct reject_scratch *r)
{
	__u32 header = r->seg.v4 ? sizeof(r->v4) : sizeof(r->v6), at;
	__s32 options = r->l4_off - r->l3_off - header;
	bool tcp = r->seg.key.proto == IPPROTO_TCP;

	if (!reject_cut(skb, r, true))
		return false;
	if (options && (r->l3_off != (cfg_no_ethernet ? 0 : sizeof(struct eth_hdr)) ||
			bpf_skb_adjust_room(skb, -options, BPF_ADJ_ROOM_MAC, 0)))
		return false;
	if (!cfg_no_ethernet && reject_grow(skb, r, 0))
		return false;
	if (tcp)
		reset_fill(r);
	else
		abort_fill(r);
	reject_fill_ip(r, tcp ? IPPROTO_TCP : IPPROTO_SCTP, reject_keep(r, true));
	at = reject_store(skb, r);
	if (!at)
		return false;
	if (tcp)
		return !bpf_skb_store_bytes(skb, at, &r->l4.tcp, sizeof(r->l4.tcp), 0);
	return !bpf_skb_store_bytes(skb, at, &r->l4.sctp, sizeof(r->l4.sctp), 0);
}

/* Whether a packet refused for the reason v is answered by its own protocol. */
static __always_inline bool reject_resets(const struct reject_scratch *r, __u32 v)
{
	if (r->seg.key.proto == IPPROTO_SCTP)
		return v == VERDICT_NO_FLOW;
	return r->seg.key.proto == IPPROTO_TCP &&
	       (v == VERDICT_BACKEND_GONE || v == VERDICT_NO_FLOW ||
		(cfg_reject_reset && verdict_refuses(v)));
}

/* Whether such an answer is the end of it, and not one to what ends already. */
static __always_inline bool reject_silent(struct __sk_buff *skb, struct reject_scratch *r, __u32 v)
{
	if (!verdict_refuses(v))
		return false;
	if (r->seg.tcp_flags & TCP_RST)
		return true;
	if (v != VERDICT_NO_FLOW || r->seg.key.proto != IPPROTO_SCTP)
		return false;
	r->chunk = abort_chunk(skb, r);
	return !r->chunk;
}

/* What reject() returns instead of an action, if too much was answered already. */
#define REJECT_LIMITED -2

/*
 * Answer a packet that goes no further for the reason v; detail: see icmp_of(). Returns what the
 * program is to return, or REJECT_LIMITED.
 */
__noinline int reject(struct __sk_buff *skb, __u32 v, __u32 detail)
{
	struct reject_scratch *r;
	__u32 zero = 0;
	bool done;

	r = bpf_map_lookup_elem(&reject_scratch, &zero);
	if (!r || !reject_load(skb, r) || reject_silent(skb, r, v))
		return TC_DROP;
	if (!answer_allowed())
		return REJECT_LIMITED;
	if (reject_resets(r, v))
		done = reject_reset(skb, r);
	else
		done = reject_icmp(skb, r, v, detail);
	return done ? bpf_redirect(skb->ifindex, 0) : TC_DROP;
}

/* Tell the sender why its packet goes no further. */
static __always_inline int tc_answer(struct __sk_buff *skb, enum verdict v, __u32 detail)
{
	int action = reject(skb, v, detail);

	return action == REJECT_LIMITED ? TC_DROP : action;
}

/* The same for what is refused: beyond the limit, that is a verdict of its own. */
static __always_inline int tc_refuse(struct __sk_buff *skb, struct packet *p, struct outcome *o,
				     enum verdict *v)
{
	int action;

	if (*v == VERDICT_BACKEND_GONE && o->flow)
		flow_abort(&p->seg.key, o->flow);
	action = reject(skb, *v, 0);
	if (action != REJECT_LIMITED)
		return action;
	*v = VERDICT_REJECT_LIMITED;
	return TC_DROP;
}

#endif
