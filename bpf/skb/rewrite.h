/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Carries out a flow's rewrite on an skb, with the checksums above layer 3. */
#ifndef EBB_SKB_REWRITE_H
#define EBB_SKB_REWRITE_H

#include "wire/nat.h"
#include "wire/sctp.h"

/*
 * Tell the sum a NIC has made of a packet what new addresses, and one less in the
 * TTL, add to it: IPv6 has no header checksum that would balance them. Refused,
 * and not needed, for other skbs.
 */
static __always_inline void tc_fix_sum(struct __sk_buff *skb, bool v4, __u32 diff, bool routed)
{
	if (!v4)
		bpf_csum_update(skb, diff + (routed ? bpf_htons(HOP_DIFF) : 0));
}

/*
 * The helpers know whether the checksum is finished, partial (local senders,
 * veth) or the NIC's; they reckon with a header checksum, see tc_fix_sum().
 * Addresses are in the pseudo header, ports are not.
 */
static __always_inline long tc_fix_l4(struct __sk_buff *skb, const struct packet *p,
				      const struct flow *f, bool routed, __u32 check, __u64 mangled)
{
	__u32 off = p->l4_off + check;
	long err;

	err = bpf_l4_csum_replace(skb, off, 0, f->csum_addr, BPF_F_PSEUDO_HDR | mangled);
	if (!err && f->csum_port)
		err = bpf_l4_csum_replace(skb, off, 0, f->csum_port, mangled);
	tc_fix_sum(skb, p->seg.v4, f->csum_addr, routed);
	return err;
}

/*
 * Is a checksum of zero one that is still to be made? The kernel makes it over
 * a field of zero (skb_crc32c_csum_help), which therefore must stay. What the
 * helper below refuses to touch is such a one; else it leaves its mark.
 */
static __always_inline bool tc_sctp_unfinished(struct __sk_buff *skb, __u32 off)
{
	__u16 mark = 0;

	bpf_l4_csum_replace(skb, off, 0, 1, sizeof(mark));
	return !bpf_skb_load_bytes(skb, off, &mark, sizeof(mark)) && !mark;
}

/* Change the checksum at off, and what the ports and it add to a sum the NIC made. */
__noinline int tc_sctp_check(struct __sk_buff *skb, __u32 off, __u32 change, __u16 ports)
{
	__u32 check, was;

	if (bpf_skb_load_bytes(skb, off, &check, sizeof(check)))
		return -1;
	if (!check && tc_sctp_unfinished(skb, off))
		return 0;
	was = check;
	check ^= change;
	bpf_csum_update(skb, csum_fold((__u64)(__u32)~was + check + ports));
	return bpf_skb_store_bytes(skb, off, &check, sizeof(check), 0);
}

static __always_inline long tc_fix_sctp(struct __sk_buff *skb, const struct packet *p,
					const struct flow *f, bool routed)
{
	__u32 change = sctp_change(p, f);

	tc_fix_sum(skb, p->seg.v4, f->csum_addr, routed);
	return change ? tc_sctp_check(skb, p->l4_off + SCTP_CHECK, change, f->csum_port) : 0;
}

static __always_inline long tc_rewrite(struct __sk_buff *skb, struct packet *p,
				       const struct flow *f, bool routed)
{
	if (!nat_headers(p, f, routed))
		return -1;
	if (p->seg.key.proto == IPPROTO_TCP)
		return tc_fix_l4(skb, p, f, routed, __builtin_offsetof(struct tcp_hdr, check), 0);
	if (p->seg.key.proto == IPPROTO_SCTP)
		return tc_fix_sctp(skb, p, f, routed);
	if (!((struct udp_hdr *)p->l4)->check)
		return 0;
	return tc_fix_l4(skb, p, f, routed, __builtin_offsetof(struct udp_hdr, check),
			 BPF_F_MARK_MANGLED_0);
}

#endif
