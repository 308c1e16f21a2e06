/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How long a route that was looked up is used.
 *
 * The agent hears of every change of routes and neighbours and writes the tick of
 * it to the map routes; flows compare that with the tick of their last packet,
 * once a tick (flow_refresh). So a change is seen in the next tick, and nothing is
 * paid per packet. What the agent says holds until a tick it sets anew every few
 * seconds. After that, changes are not noticed, and routes are looked up again in
 * every tick.
 */
#ifndef EBB_ROUTE_ROUTE_H
#define EBB_ROUTE_ROUTE_H

#include <bpf/bpf_endian.h>

#include "abi/config.h"
#include "abi/maps.h"

/*
 * Even if nothing changes, a flow looks its route up again after so many ticks:
 * this tells which next hops are in use, and bounds how long a change that no
 * event tells of (a learned path MTU, a sysctl) stays unseen. A power of two.
 */
#define ROUTE_TICKS 32

#define LOOPBACK_IFINDEX 1 /* include/net/flow.h: who asks is this machine itself */

static __always_inline __u32 now_tick(void)
{
	return bpf_jiffies64() >> cfg_tick_shift;
}

static __always_inline struct route_state *routes_get(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&routes, &zero);
}

/* Whether an agent tells of changes and keeps neighbours fresh. */
static __always_inline bool routes_watched(__u32 now)
{
	struct route_state *r = routes_get();

	return r && (__s32)(r->until - now) >= 0;
}

/* Whether what was looked up in tick since, or later, still holds. */
static __always_inline bool route_holds(__u32 since, __u32 now)
{
	struct route_state *r = routes_get();

	return r && (__s32)(r->until - now) >= 0 && (__s32)(since - r->changed) > 0;
}

/* Whether flow f, whose last packet was in tick was, keeps its route in tick now. */
static __always_inline bool route_stays(const struct flow *f, __u32 was, __u32 now)
{
	/* So that not all flows look theirs up in one tick. */
	__u32 phase = bpf_ntohs(f->sport ^ f->dport);

	return route_holds(was, now) && (was + phase) / ROUTE_TICKS == (now + phase) / ROUTE_TICKS;
}

/*
 * Whether flows to one backend may share a route. By a route with several paths
 * each flow asks for itself, from its first packet on: the kernel chooses by the
 * ports, so a flow would leave the path it has begun on.
 */
static __always_inline bool routes_shared(void)
{
	struct route_state *r = routes_get();

	return r && !(r->flags & ROUTES_MULTIPATH);
}

#endif
