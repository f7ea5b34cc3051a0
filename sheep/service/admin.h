/*
 * What collie asks: include/proto/admin.h, docs/protocol/admin.md. On the engine's loop.
 */
#ifndef SERVICE_ADMIN_H
#define SERVICE_ADMIN_H

#include "lib/base/err.h"

struct admin;
struct node;

/* Listens at once on all addresses of the settings. */
int admin_new(struct node *node, struct admin **out, struct error *err);
/* We are registered: what waited for that is proposed. */
void admin_resume(struct admin *admin);
/* Close listeners; requests that wait are answered with SHUTDOWN. */
void admin_stop(struct admin *admin);
void admin_free(struct admin *admin); /* NULL is allowed */

#endif
