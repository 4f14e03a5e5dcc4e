/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list.h - intrusive doubly linked list; the head is a node whose neighbours are first and last
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/macros.h"

struct av_list {
	struct av_list *next, *prev;
};

static inline void av_list_init(struct av_list *l)
{
	l->next = l->prev = l;
}
static inline bool av_list_empty(const struct av_list *l)
{
	return l->next == l;
}
static inline void av_list_append(struct av_list *head, struct av_list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}
/* Removing twice is harmless: the node points at itself afterwards. */
static inline void av_list_remove(struct av_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	n->next = n->prev = n;
}
static inline size_t av_list_count(const struct av_list *head)
{
	size_t n = 0;

	for (const struct av_list *i = head->next; i != head; i = i->next)
		n++;
	return n;
}
#define AV_LIST_FIRST(head, type, member)                                                          \
	(av_list_empty(head) ? NULL : AV_CONTAINER_OF((head)->next, type, member))
/* The current node may be removed (and freed) inside the loop; no other may. */
#define AV_LIST_FOREACH(it, head, type, member)                                                    \
	for (struct av_list *n_ = (head)->next, *next_ = n_->next;                                 \
	     n_ != (head) && ((it) = AV_CONTAINER_OF(n_, type, member), true);                     \
	     n_ = next_, next_ = n_->next)
