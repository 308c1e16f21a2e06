/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looks through the maps for flows that are over. The agent has it done every
 * few seconds. If there is none and flows is full, a packet that wants room does
 * it: some 20 ms for the default size, at most once in SWEEP_TICKS.
 */
#ifndef EBB_FLOW_SWEEP_H
#define EBB_FLOW_SWEEP_H

#include "flow/life.h"

#define SWEEP_TICKS 15

struct sweep {
	__u32 now;
	__u32 entries; /* seen */
	__u32 deleted;
};

static long sweep_flow(void *map __attribute__((unused)), const struct flow_key *key,
		       struct flow *f, struct sweep *s)
{
	struct halves *room = halves_room(); /* the stack is short */

	s->entries++;
	if (!room || !flow_silent(key->proto, f, s->now))
		return 0;
	room->swept = *key; /* global functions might write to it, a key in a map must not be */
	if (flow_over(&room->swept, f)) {
		flow_forget(&room->swept, f);
		s->deleted += 2;
	}
	return 0;
}

static __always_inline void sweep_begins(struct sweep *s)
{
	struct flows_pressure *p = pressure_get();

	s->now = now_tick();
	if (p)
		p->swept = s->now;
}

static __always_inline void sweep_ends(const struct sweep *s)
{
	struct flows_pressure *p = pressure_get();

	if (p && s->deleted)
		p->refused = 0;
}

/* Whether there is room in flows; if not, and nobody has for long, look for what is over. */
__noinline int flows_have_room(void)
{
	struct sweep s = {};
	struct flows_pressure *p;
	__u32 swept;

	if (!flows_full())
		return 1;
	p = pressure_get();
	if (!p)
		return 1;
	swept = p->swept;
	if (now_tick() - swept < SWEEP_TICKS ||
	    __sync_val_compare_and_swap(&p->swept, swept, now_tick()) != swept)
		return 0;
	sweep_begins(&s);
	bpf_for_each_map_elem(&flows, sweep_flow, &s, 0);
	sweep_ends(&s);
	return s.deleted != 0;
}

#endif
