/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * IPv4 packets that are larger than the way they are to go, and may be
 * fragmented (DF is clear). As a router would have done one hop earlier, they are
 * cut, untranslated, and the pieces come in anew by the same device: each is
 * then a fragment as any other, see fragment.h, and has its next hop resolved
 * like any other. TCP that the kernel has put together is told to be taken apart
 * in smaller segments instead. TC ingress only.
 */
#ifndef EBB_SKB_CUT_H
#define EBB_SKB_CUT_H

#include "wire/csum.h"
#include "wire/packet.h"
#include "skb/context.h"

#define TC_NOT_CUT 102 /* it may not be, or cannot */

#define CUT_MOST   16384 /* bytes behind the IP header, a power of two */
#define CUT_PIECE  8192  /* of a piece, likewise */
#define CUT_PIECES 256
#define CUT_STEP   512 /* bytes bpf_csum_diff() takes at once */

/* What offsets reach: a fragment behind that is of no datagram. */
#define CUT_DATAGRAM 65535

/* What bpf_skb_adjust_room() takes. */
#define CUT_MOST_OVER 0xfff

/* More than headers have, see cut_settle(). */
#define CUT_SHRINK 128

/* The packet that is cut, per CPU. */
struct cut_scratch {
	union {
		struct ipv4_hdr ip;
		__u8 header[64]; /* and options; zeros behind */
	};
	__u32 sum; /* see cut_sum_step(); here, for the stack */
	__u8 left; /* see cut_option(): bytes of the option that is looked at */
	__u8 wipe;
	__u8 pad[2];
	__u8 data[CUT_MOST + CUT_PIECE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cut_scratch);
} cut_scratch SEC(".maps");

struct cut {
	struct __sk_buff *skb;
	struct cut_scratch *room;
	__u32 bytes; /* behind the header */
	__u32 size;  /* of a piece but the last, a multiple of 8 */
	__u16 l3_off;
	__u16 header; /* bytes */
	__u16 frag;   /* flags and offset of the packet, which may be a fragment itself */
	__u8 done;
	__u8 pad;
};

/* n, which is from 1 to most, a power of two: the verifier does not know. */
static __always_inline __u32 cut_bound(__u32 n, __u32 most)
{
	return verifier_forget(n - 1, most - 1, n) + 1;
}

/* Read the header. False: it must not be cut, or is not understood. */
static __always_inline bool cut_load_header(struct cut *c)
{
	struct cut_scratch *room = c->room;
	__u32 header;

	__builtin_memset(room->header, 0, sizeof(room->header));
	if (bpf_skb_load_bytes(c->skb, c->l3_off, &room->ip, sizeof(room->ip)))
		return false;
	if (room->ip.version_ihl >> 4 != 4)
		return false;
	c->frag = bpf_ntohs(room->ip.frag);
	header = ipv4_header_bytes(room->ip.version_ihl);
	if (c->frag & IP_DONT_FRAGMENT || header < sizeof(room->ip) || header > IPV4_HEADER_MOST)
		return false;
	c->header = header;
	if (bpf_ntohs(room->ip.len) <= header)
		return false;
	c->bytes = bpf_ntohs(room->ip.len) - header;
	if ((c->frag & IP_OFFSET_MASK) * 8 + c->bytes > CUT_DATAGRAM)
		return false;
	return !bpf_skb_load_bytes(c->skb, c->l3_off, room->header, cut_bound(header, 64));
}

/* All of the packet, so that nothing of it is needed any more. */
static __always_inline bool cut_load(struct cut *c)
{
	__u32 bytes = c->bytes, end = c->l3_off + c->header + bytes;

	if (bytes < CUT_SHRINK + 8 || bytes > CUT_MOST || end > c->skb->len)
		return false;
	/* The kernel grows only what has no fragments of its own. */
	if (bpf_skb_pull_data(c->skb, c->skb->len))
		return false;
	bytes = cut_bound(bytes, CUT_MOST);
	if (bpf_skb_load_bytes(c->skb, c->l3_off + c->header, c->room->data, bytes))
		return false;
	for (int i = 0; i < 4; i++) /* for cut_sum() */
		c->room->data[bytes + i] = 0;
	return true;
}

/* What step i of the bytes behind the header adds to their sum. In a callback, as cut_option(). */
static long cut_sum_step(__u32 i, struct cut *c)
{
	__u32 at = i * CUT_STEP, n = c->bytes - at;

	if (at >= c->bytes || at >= CUT_MOST)
		return 1;
	if (n > CUT_STEP)
		n = CUT_STEP;
	n = (n + 3) & ~3;
	c->room->sum = csum_fold(
		(__u32)bpf_csum_diff(NULL, 0, (__be32 *)(c->room->data + at), n, c->room->sum));
	return 0;
}

/* The sum of all that is behind the header. */
static __always_inline __u32 cut_sum(struct cut *c)
{
	c->room->sum = 0;
	bpf_loop(CUT_MOST / CUT_STEP, cut_sum_step, c, 0);
	return c->room->sum;
}

/* Where the checksum of TCP or UDP is, from the header on; 0: another protocol, or none in this
 * piece.
 */
static __always_inline __u32 cut_check(const struct cut *c)
{
	if (c->frag & IP_FRAGMENT_MASK)
		return 0;
	if (c->room->ip.proto == IPPROTO_TCP)
		return __builtin_offsetof(struct tcp_hdr, check);
	return c->room->ip.proto == IPPROTO_UDP ? __builtin_offsetof(struct udp_hdr, check) : 0;
}

/*
 * Is that checksum still to be written by the kernel? What the helper does not touch is
 * such a one. It does not matter what becomes of another: all is written anew. (Some
 * kernels refuse to cut a packet in front of such a checksum, others give it up.)
 */
static __always_inline bool cut_unfinished(struct cut *c, __u32 check)
{
	__u32 off = c->l3_off + c->header + check;
	__u16 was, is;

	if (bpf_skb_load_bytes(c->skb, off, &was, sizeof(was)))
		return false;
	bpf_l4_csum_replace(c->skb, off, 0, 1, sizeof(is));
	return !bpf_skb_load_bytes(c->skb, off, &is, sizeof(is)) && is == was;
}

/*
 * Complete it: the kernel would write it into each piece. The kernel forgets about that when the
 * place it counts from is cut off.
 */
static __always_inline bool cut_complete(struct cut *c)
{
	__u16 check = ~csum_fold(cut_sum(c));

	if (c->room->ip.proto == IPPROTO_TCP)
		((struct tcp_hdr *)c->room->data)->check = check;
	else
		((struct udp_hdr *)c->room->data)->check = check ? check : 0xffff;
	return !bpf_skb_adjust_room(c->skb, -CUT_SHRINK, BPF_ADJ_ROOM_NET, 0);
}

/* Make the packet one whose checksum is finished. False: it is as it was. */
static __always_inline bool cut_settle(struct cut *c)
{
	__u32 check = cut_check(c);

	if (check && cut_unfinished(c, check))
		return cut_complete(c);
	/* Growing again makes the kernel forget the sum of a NIC. */
	return !bpf_skb_change_tail(c->skb, c->l3_off + c->header + 4, 0);
}

/* Byte i of the options. In a callback, because the verifier walks a loop's every way. */
static long cut_option(__u32 i, struct cut *c)
{
	__u32 at = sizeof(struct ipv4_hdr) + i;
	__u8 *option;

	if (at >= c->header || at >= IPV4_HEADER_MOST)
		return 1;
	option = &c->room->header[at];
	if (!c->room->left) {
		if (*option == IPV4_OPTION_NOP)
			return 0;
		c->room->left = option[1];
		if (*option == IPV4_OPTION_END || c->room->left < 2)
			return 1;
		c->room->wipe = !(*option & IPV4_OPTION_COPIED);
	}
	if (c->room->wipe)
		*option = IPV4_OPTION_NOP;
	c->room->left--;
	return 0;
}

/* Options that are not to be copied are of the first piece only (RFC 791): they become
 * no-operations.
 */
static __always_inline void cut_options(struct cut *c)
{
	c->room->left = 0;
	if (c->header > sizeof(struct ipv4_hdr))
		bpf_loop(IPV4_HEADER_MOST - sizeof(struct ipv4_hdr), cut_option, c, 0);
}

/* Make the skb the piece of n bytes from at on. */
static __always_inline bool cut_shape(struct cut *c, __u32 at, __u32 n, bool last)
{
	__u32 header = c->header;
	struct cut_scratch *room = c->room;
	struct __sk_buff *skb = c->skb;
	__u16 frag = c->frag + at / 8;

	room->ip.len = bpf_htons(header + n);
	room->ip.frag = bpf_htons(last ? frag : frag | IP_MORE_FRAGMENTS);
	room->ip.check = 0;
	room->ip.check = ~csum_fold(
		(__u32)bpf_csum_diff(NULL, 0, (__be32 *)room->header, sizeof(room->header), 0));
	if (bpf_skb_change_tail(skb, c->l3_off + header + n, 0))
		return false;
	at &= CUT_MOST - 1;
	return !bpf_skb_store_bytes(skb, c->l3_off, room->header, cut_bound(header, 64), 0) &&
	       !bpf_skb_store_bytes(skb, c->l3_off + header, room->data + at,
				    cut_bound(n, CUT_PIECE), 0);
}

/* Piece i. The last is left for the caller to send: the skb itself. */
static long cut_piece(__u32 i, struct cut *c)
{
	__u32 at = i * c->size, n = c->bytes - at;
	bool last = n <= c->size;

	if (!last)
		n = c->size;
	if (!cut_shape(c, at, n, last))
		return 1;
	if (!i)
		cut_options(c);
	c->done = last;
	if (!last)
		bpf_clone_redirect(c->skb, c->skb->ifindex, BPF_F_INGRESS);
	return last;
}

/* Cut an skb that is one packet into pieces that fit into mtu. */
static __always_inline int cut_packet(struct cut *c, __u32 mtu)
{
	if (mtu < c->header + 8 || !cut_load(c) || !cut_settle(c))
		return TC_NOT_CUT;
	c->size = (mtu - c->header) & ~7;
	if (c->size > CUT_PIECE)
		c->size = CUT_PIECE;
	bpf_loop(CUT_PIECES, cut_piece, c, 0);
	return c->done ? bpf_redirect(c->skb->ifindex, BPF_F_INGRESS) : TC_DROP;
}

/*
 * TCP that stands for several packets, each over bytes too large: growing the headers and not
 * giving that back makes the segments smaller.
 */
static __always_inline int cut_segments(struct cut *c, __u32 over)
{
	struct __sk_buff *skb = c->skb;

	if (c->room->ip.proto != IPPROTO_TCP || !over || over + 8 > skb->gso_size ||
	    over > CUT_MOST_OVER)
		return TC_NOT_CUT;
	if (bpf_skb_adjust_room(skb, over, BPF_ADJ_ROOM_NET, 0))
		return TC_NOT_CUT;
	if (bpf_skb_adjust_room(skb, -(__s32)over, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
		return TC_DROP;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

/*
 * A packet, the IP header of which is at l3_off, that is over bytes larger than mtu. Returns the
 * action, or TC_NOT_CUT: then it is as it was, but for how the kernel stores it.
 */
__noinline int cut(struct __sk_buff *skb, __u32 l3_off, __u32 mtu, __u32 over)
{
	struct cut c = {.skb = skb, .l3_off = l3_off};
	__u32 zero = 0;

	c.room = bpf_map_lookup_elem(&cut_scratch, &zero);
	if (!c.room || !cut_load_header(&c))
		return TC_NOT_CUT;
	if (!l3_off && !cfg_no_ethernet) { /* see tc_lacks_l2() */
		if (tc_restore_l2(skb, true))
			return TC_DROP;
		c.l3_off = sizeof(struct eth_hdr);
	}
	return skb->gso_size ? cut_segments(&c, over) : cut_packet(&c, mtu);
}

#endif
