/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A packet as an skb: where its headers are, how long it is, and what a program
 * returns.
 *
 * Every exit but drop and redirect is TC_NEXT, so that other programs on the
 * device run (TCX_NEXT and TC_ACT_UNSPEC are the same number).
 */
#ifndef EBB_SKB_CONTEXT_H
#define EBB_SKB_CONTEXT_H

#include "abi/config.h"
#include "wire/parse.h"

#define TC_NEXT     -1
#define TC_DROP     2
#define TC_REDIRECT 7
#define PULL_BYTES  128 /* headers the parser may look at */

#define GSO_BY_FRAGS 0xffff /* SCTP: segments of any size */

/*
 * Does the program see the packet without its Ethernet header? Linux 6.9 and
 * later copy packets for generic XDP and forget the header's length over it
 * (skb_pp_cow_data, skb->mac_len), so TC programs on the same device find
 * the IP header where Ethernet should be.
 */
static __always_inline bool tc_lacks_l2(struct __sk_buff *skb, struct eth_hdr *mac)
{
	struct eth_hdr *eth = (void *)(long)skb->data;

	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return false;
	if (bpf_skb_load_bytes_relative(skb, 0, mac, sizeof(*mac), BPF_HDR_START_MAC))
		return false;
	if (__builtin_memcmp(eth, mac, sizeof(*mac)))
		return true;
	/* What IPsec has decrypted then has none at all. */
	return mac->proto != skb->protocol && mac->proto != bpf_htons(ETH_P_8021Q) &&
	       mac->proto != bpf_htons(ETH_P_8021AD);
}

/*
 * Give a packet its Ethernet header back, once it is not for the stack any more.
 * Where there never was one it gets an empty one: bpf_redirect_neigh() takes none
 * without, and writes its own.
 */
static __always_inline long tc_restore_l2(struct __sk_buff *skb, bool no_l2)
{
	struct eth_hdr mac;

	if (!no_l2)
		return 0;
	if (cfg_no_ethernet)
		return bpf_skb_change_head(skb, sizeof(mac), 0);
	if (bpf_skb_load_bytes_relative(skb, 0, &mac, sizeof(mac), BPF_HDR_START_MAC) ||
	    bpf_skb_change_head(skb, sizeof(mac), 0))
		return -1;
	return bpf_skb_store_bytes(skb, 0, &mac, sizeof(mac), 0);
}

/* Make sure the headers are where direct access finds them. */
static __always_inline void tc_pull(struct __sk_buff *skb)
{
	__u32 bytes = skb->len < PULL_BYTES ? skb->len : PULL_BYTES;

	if ((void *)(long)skb->data + bytes > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, bytes);
}

static __always_inline enum verdict tc_parse(struct __sk_buff *skb, enum hook hook,
					     struct packet *p)
{
	void *data_end, *data;
	bool no_l2 = cfg_no_ethernet;

	tc_pull(skb);
	if (!no_l2 && cfg_xdp_generic && hook == HOOK_TC_INGRESS) {
		struct eth_hdr mac;

		no_l2 = tc_lacks_l2(skb, &mac);
		/* clang would load data_end before, as a number. */
		barrier_var(no_l2);
	}
	data_end = (void *)(long)skb->data_end;
	data = (void *)(long)skb->data;
	return no_l2 ? parse_l3(data, data_end, skb->len, skb->protocol, p)
		     : parse_packet(data, data_end, skb->len, p);
}

/* Layer 3 bytes of all. */
static __always_inline __u32 tc_len(const struct __sk_buff *skb, const struct packet *p)
{
	return p->len == LEN_MOST ? skb->len - p->l3_off : p->len;
}

/* Layer 3 bytes of one packet on the wire, also where the skb stands for several. */
static __always_inline __u32 tc_wire_len(const struct __sk_buff *skb, const struct packet *p)
{
	__u32 header = p->l4_off - p->l3_off;

	if (!skb->gso_size)
		return p->len;
	/* Cut where its sender has put the pieces together: none is larger than its route takes. */
	if (skb->gso_size == GSO_BY_FRAGS)
		return header;
	/* BIG TCP has a header between IPv6 and TCP that is left out when it is cut. */
	if (tc_len(skb, p) > LEN_MOST && !p->seg.v4)
		header = sizeof(struct ipv6_hdr);
	if (p->seg.key.proto == IPPROTO_TCP)
		header += p->tcp_header;
	else
		header += sizeof(struct udp_hdr);
	/* Its sender need not say how many segments there are: it may be less than one. */
	return header + skb->gso_size < tc_len(skb, p) ? header + skb->gso_size : p->len;
}

#endif
