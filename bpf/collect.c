//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Run by the agent now and then: removes what is over, and says how much is left. */
#include "flow/sweep.h"

struct collection {
	__u32 flows; /* entries left in the maps */
	__u32 half_open;
	__u32 closed;
	__u32 deleted; /* from all of them */
	__u32 pods;    /* entries left of flows that act at pods' links */
};

/* A sweep that also counts what needs the programs at pods' links. */
struct collect {
	struct sweep s;
	__u32 pods;
};

static long collect_flow(void *map, const struct flow_key *key, struct flow *f, struct collect *c)
{
	__u32 deleted = c->s.deleted;
	bool pod = f->flags & FLOW_POD;

	sweep_flow(map, key, f, &c->s);
	if (pod && c->s.deleted == deleted)
		c->pods++;
	return 0;
}

static long collect_half(void *map, const struct flow_key *key, struct half_flow *h,
			 struct collect *c)
{
	c->s.entries++;
	if (ticks_between(h->flow.seen, c->s.now) > half_timeout(key->proto, h->flow.flags)) {
		bpf_map_delete_elem(map, key);
		c->s.deleted++;
	} else if (h->flow.flags & FLOW_POD) {
		c->pods++;
	}
	return 0;
}

static long collect_closed(void *map, const struct flow_key *key, struct flow *f, struct collect *c)
{
	c->s.entries++;
	if (ticks_between(f->seen, c->s.now) > ticks(TIMEOUT_CLOSED) &&
	    ticks_between(f->began, c->s.now) > ticks(TIMEOUT_CLOSED)) {
		bpf_map_delete_elem(map, key);
		c->s.deleted++;
	} else if (f->flags & FLOW_POD) {
		c->pods++;
	}
	return 0;
}

SEC("syscall")
int ebb_collect(struct collection *c)
{
	struct collect all = {};
	struct sweep *s = &all.s;

	sweep_begins(s);
	bpf_for_each_map_elem(&flows, collect_flow, &all, 0);
	sweep_ends(s);
	c->flows = s->entries - s->deleted;
	c->deleted = s->deleted;
	s->entries = s->deleted = 0;
	bpf_for_each_map_elem(&half_open, collect_half, &all, 0);
	c->half_open = s->entries - s->deleted;
	c->deleted += s->deleted;
	s->entries = s->deleted = 0;
	bpf_for_each_map_elem(&closed, collect_closed, &all, 0);
	c->closed = s->entries - s->deleted;
	c->deleted += s->deleted;
	c->pods = all.pods;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
