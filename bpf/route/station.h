/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which frames that come in at an uplink are for this node: those to a MAC of it, on a
 * VLAN it is in. Others are seen where a switch floods, a port is mirrored, or a device
 * is promiscuous; the node they are for handles them.
 *
 * Before a TC program runs the kernel has compared the frame with the device's own
 * MAC. XDP programs, and TC where the kernel says it is somebody else's or there is a
 * tag, ask the map stations, which the agent fills with what is stacked on the device
 * as well. What it lacks there goes by TC.
 */
#ifndef EBB_ROUTE_STATION_H
#define EBB_ROUTE_STATION_H

#include "abi/maps.h"
#include "wire/packet.h"

/* __sk_buff.pkt_type (include/uapi/linux/if_packet.h) */
#define PACKET_HOST      0
#define PACKET_OTHERHOST 3

/* One tag, of the kind that devices in stations have: others have none there. */
static __always_inline bool tag_single(__be16 outer, __be16 inner)
{
	return outer == bpf_htons(ETH_P_8021Q) && inner != bpf_htons(ETH_P_8021Q) &&
	       inner != bpf_htons(ETH_P_8021AD);
}

static __always_inline bool proto_tags(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD);
}

/* Whether a frame at XDP is for somebody else. */
__noinline int frame_foreign_xdp(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct eth_hdr *eth = (void *)(long)ctx->data;
	struct vlan_hdr *tag = (void *)(eth + 1);
	struct station_key key = {};

	if ((void *)(eth + 1) > end)
		return 1;
	if (proto_tags(eth->proto)) {
		if ((void *)(tag + 1) > end || !tag_single(eth->proto, tag->proto))
			return 1;
		/* 0 is a priority, no VLAN: it is the device's own. */
		key.vlan_id = bpf_ntohs(tag->tci) & VLAN_ID_MASK;
	}
	key.ifindex = ctx->ingress_ifindex;
	__builtin_memcpy(key.mac, eth->dst, sizeof(key.mac));
	return !bpf_map_lookup_elem(&stations, &key);
}

/* Whether stations does not know the address of a frame at TC. */
__noinline int station_unknown(struct __sk_buff *skb)
{
	struct station_key key = {};

	if (skb->pkt_type != PACKET_HOST && skb->pkt_type != PACKET_OTHERHOST)
		return 1;
	if (skb->vlan_present) {
		if (!tag_single(skb->vlan_proto, skb->protocol))
			return 1;
		key.vlan_id = skb->vlan_tci & VLAN_ID_MASK;
	}
	key.ifindex = skb->ifindex;
	if (bpf_skb_load_bytes_relative(skb, 0, key.mac, sizeof(key.mac), BPF_HDR_START_MAC))
		return 1;
	return !bpf_map_lookup_elem(&stations, &key);
}

/* Whether a frame at TC, coming in, is for somebody else. */
static __always_inline bool frame_foreign_skb(struct __sk_buff *skb)
{
	return (skb->pkt_type != PACKET_HOST || skb->vlan_present) && station_unknown(skb);
}

/*
 * The same for the core, at any hook. TC has asked before, see tc_handle(). A pod's
 * link is not asked at all: there is nobody else on it, and where it is a
 * port of a bridge the pod sends to the bridge.
 */
static __always_inline bool frame_foreign(void *ctx, enum hook hook)
{
	return hook == HOOK_XDP && frame_foreign_xdp(ctx);
}

#endif
