/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The programme: the rules of each chain, as the head of ruleset.h has them. */
#include "datapath/ruleset.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *const ruleset_chain_names[RULESET_CHAINS] = {
	[CHAIN_FORWARD] = "forward",
	[CHAIN_MANAGED] = "managed",
	[CHAIN_INSERT] = "accelerate",
	[CHAIN_CLASSIFY] = "classify",
	[CHAIN_ACCOUNTING] = "accounting",
};

#define EXPR(...) (&(struct rule_expr){__VA_ARGS__})
#define VERDICT_ACCEPT EXPR(.op = OP_ACCEPT)
#define VERDICT_INSERT EXPR(.op = OP_GOTO, .chain = CHAIN_INSERT)

/* Appends an empty rule; its address is valid until the next one is. */
static struct rule *add_rule(struct rule_list *list)
{
	return VEC_ADD(list->items, list->n, list->cap);
}

static void add_expr(struct rule *r, const struct rule_expr *e)
{
	if (r->n == RULE_EXPRS_MAX)
		abort(); /* RULE_MATCHES_MAX leaves room for every verdict below */
	r->exprs[r->n++] = *e;
}

static struct rule *add_copy(struct rule_list *list, const struct rule *match)
{
	struct rule *r = add_rule(list);

	*r = *match;
	return r;
}

static bool any_off(const struct ruleset *rs)
{
	for (size_t i = 0; i < TRAFFIC_TYPES; i++)
		if (rs->off[i])
			return true;
	return false;
}

static bool managed_is_empty(const struct ruleset *rs)
{
	return !rs->sets[SET_CHECKED_UPLINKS].n && !rs->exclusions.n && !any_off(rs);
}

static void end_front(const struct ruleset *rs, struct rule *r)
{
	add_expr(r, EXPR(.op = OP_ORIGINAL));
	add_expr(r, EXPR(.op = OP_UNMARKED));
	add_expr(r, EXPR(.op = OP_GOTO, .chain = managed_is_empty(rs) ? CHAIN_INSERT : CHAIN_MANAGED));
}

static void forward_rules(const struct ruleset *rs, struct rule_list *ret)
{
	struct rule *r = add_rule(ret);

	add_expr(r, EXPR(.op = OP_PAIR_IN_SET, .set = SET_PAIRS));
	end_front(rs, r);
	if (!rs->sets[SET_HAIRPINS].n)
		return;
	/* a set of its own behind a cheap test: the managed pairs pay one look-up, and so does what is
	 * foreign */
	r = add_rule(ret);
	add_expr(r, EXPR(.op = OP_DNAT));
	add_expr(r, EXPR(.op = OP_PAIR_IN_SET, .set = SET_HAIRPINS));
	end_front(rs, r);
}

/*
 * Classes while any type is off. Those at the end whose verdict is the chain's last one are left out: every
 * look-up in front of the insert costs short connections (measurements 1.1).
 */
static void class_verdicts(const struct ruleset *rs, struct rule_list *ret)
{
	size_t n = rs->n_classes;

	while (n && rs->off[rs->classes[n - 1].type] == rs->off[TYPE_OTHER])
		n--;
	for (size_t i = 0; i < n; i++) {
		const struct class_rule *c = &rs->classes[i];

		add_expr(add_copy(ret, &c->match), rs->off[c->type] ? VERDICT_ACCEPT : VERDICT_INSERT);
	}
}

static void managed_rules(const struct ruleset *rs, struct rule_list *ret)
{
	struct rule *r;

	if (managed_is_empty(rs))
		return;
	if (rs->sets[SET_CHECKED_UPLINKS].n) {
		r = add_rule(ret);
		add_expr(r, EXPR(.op = OP_IIF_IN_SET, .set = SET_CHECKED_UPLINKS));
		add_expr(r, EXPR(.op = OP_NO_WAY_BACK));
		add_expr(r, VERDICT_ACCEPT);
	}
	for (size_t i = 0; i < rs->exclusions.n; i++)
		add_expr(add_copy(ret, &rs->exclusions.items[i]), VERDICT_ACCEPT);
	class_verdicts(rs, ret);
	add_expr(add_rule(ret), rs->off[TYPE_OTHER] ? VERDICT_ACCEPT : VERDICT_INSERT);
}

static void insert_rules(struct rule_list *ret)
{
	struct rule *r = add_rule(ret);

	add_expr(r, EXPR(.op = OP_TCP));
	add_expr(r, EXPR(.op = OP_FLOW_ADD));
	add_expr(r, EXPR(.op = OP_GOTO, .chain = CHAIN_CLASSIFY));
	r = add_rule(ret);
	add_expr(r, EXPR(.op = OP_UDP));
	add_expr(r, EXPR(.op = OP_ESTABLISHED));
	add_expr(r, EXPR(.op = OP_FLOW_ADD));
	add_expr(r, EXPR(.op = OP_GOTO, .chain = CHAIN_CLASSIFY));
}

static void classify_rules(const struct ruleset *rs, struct rule_list *ret)
{
	for (size_t i = 0; i < rs->n_classes; i++) {
		struct rule *r = add_copy(ret, &rs->classes[i].match);

		add_expr(r, EXPR(.op = OP_COUNT, .type = rs->classes[i].type));
		add_expr(r, VERDICT_ACCEPT);
	}
	add_expr(add_rule(ret), EXPR(.op = OP_COUNT, .type = TYPE_OTHER));
}

static void accounting_rules(const struct ruleset *rs, struct rule_list *ret)
{
	struct rule *r;

	if (!rs->accounting)
		return;
	r = add_rule(ret);
	add_expr(r, EXPR(.op = OP_PACKETS));
	add_expr(r, VERDICT_ACCEPT);
}

void ruleset_chain_rules(const struct ruleset *rs, enum ruleset_chain chain, struct rule_list *ret)
{
	*ret = (struct rule_list){0};
	if (!rs->present)
		return;
	switch (chain) {
	case CHAIN_FORWARD:
		forward_rules(rs, ret);
		break;
	case CHAIN_MANAGED:
		managed_rules(rs, ret);
		break;
	case CHAIN_INSERT:
		insert_rules(ret);
		break;
	case CHAIN_CLASSIFY:
		classify_rules(rs, ret);
		break;
	case CHAIN_ACCOUNTING:
		accounting_rules(rs, ret);
		break;
	case RULESET_CHAINS:
		break;
	}
}
