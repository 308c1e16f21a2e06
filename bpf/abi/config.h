/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Settings, fixed when a program is loaded; the verifier removes dead branches. */
#ifndef EBB_ABI_CONFIG_H
#define EBB_ABI_CONFIG_H

#include <linux/types.h>

/* One tick is 2^cfg_tick_shift jiffies, about a second. The loader knows CONFIG_HZ. */
const volatile __u32 cfg_tick_shift = 8;
const volatile __u32 cfg_hz = 250;

/* Source ports of flows sent to other nodes: [min, max]. */
const volatile __u16 cfg_snat_min = 1024;
const volatile __u16 cfg_snat_max = 29999;

/* What becomes of the middle of a TCP or SCTP connection that belongs to no flow. */
enum __attribute__((packed)) unknown_flow {
	UNKNOWN_RESET = 0, /* answered with a RST, SCTP with an ABORT */
	UNKNOWN_DROP = 1,
	UNKNOWN_PASS = 2, /* passed untouched */
	UNKNOWN_PEER =
		3, /* TCP to the node of the backend, see skb/peer.h; else as UNKNOWN_RESET */
};
const volatile enum unknown_flow cfg_unknown_flow = UNKNOWN_RESET;

/* Refused TCP is answered with a RST instead of an ICMP error. */
const volatile __u8 cfg_reject_reset = 0;

/* Established TCP whose backend is gone. 1: answered with a RST, 0: sent there on. */
const volatile __u8 cfg_gone_reset = 0;

/* Pings of load balancer addresses and external IPs are answered. */
const volatile __u8 cfg_vip_echo = 0;

/* Nanoseconds between two packets a CPU makes itself; 0: it makes none. See flow/limit.h. */
const volatile __u64 cfg_answer_interval = 1000000;

/* The XDP program runs in generic mode: see tc_lacks_l2(). */
const volatile __u8 cfg_xdp_generic = 0;

/* The device has no Ethernet header (tun, WireGuard, tunnels): packets begin with IP. */
const volatile __u8 cfg_no_ethernet = 0;

/* Sockets outside the node's namespace are left to pod links, whatever they connect to. */
const volatile __u8 cfg_pods_by_packet = 0;

/* The kernel has MPTCP, and so bpf_skc_to_mptcp_sock(). */
const volatile __u8 cfg_mptcp = 0;

#endif
