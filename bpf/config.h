/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Settings, fixed when a program is loaded; the verifier removes dead branches. */
#ifndef EBB_CONFIG_H
#define EBB_CONFIG_H

#include <linux/types.h>

/* One tick is 2^cfg_tick_shift jiffies, about a second. The loader knows CONFIG_HZ. */
const volatile __u32 cfg_tick_shift = 8;

/* Source ports of flows sent to other nodes: [min, max]. */
const volatile __u16 cfg_snat_min = 1024;
const volatile __u16 cfg_snat_max = 29999;

/*
 * The middle of a connection nobody knows, to be sent to another node:
 * the source port is lost, so it cannot be continued. 1: drop, 0: pass untouched.
 */
const volatile __u8 cfg_unknown_flow_drop = 1;

/* Refused TCP is answered with a RST instead of an ICMP error. */
const volatile __u8 cfg_reject_reset = 0;

/* Established TCP whose backend is gone. 1: answered with a RST, 0: sent there on. */
const volatile __u8 cfg_gone_reset = 0;

/* Pings of load balancer addresses and external IPs are answered. */
const volatile __u8 cfg_vip_echo = 0;

/* Nanoseconds between two packets a CPU makes itself; 0: it makes none. See limit.h. */
const volatile __u64 cfg_answer_interval = 1000000;

/* The XDP program runs in generic mode: see tc_bare(). */
const volatile __u8 cfg_xdp_generic = 0;

/* Sockets outside the node's namespace are left to pod links, whatever they dial. */
const volatile __u8 cfg_pods_by_packet = 0;

#endif
