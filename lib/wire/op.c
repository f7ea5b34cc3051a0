/* Looking up rows of op tables. */
#include "lib/wire/wire.h"

#include "lib/base/text.h"

const struct wire_op *wire_op_find(const struct wire_protocol *protocol, uint16_t op,
				   uint16_t version)
{
	if (op >= protocol->op_count)
		return NULL;
	const struct wire_op *row = &protocol->ops[op];
	return row->name && row->since <= version ? row : NULL;
}

const char *wire_op_name(const struct wire_protocol *protocol, uint16_t op,
			 char out[WIRE_OP_NAME_MAX])
{
	if (op == FRAME_OP_HELLO)
		return "hello";
	if (op == FRAME_OP_PING)
		return "ping";
	if (op < protocol->op_count && protocol->ops[op].name)
		return protocol->ops[op].name;

	struct text text = text_of(out, WIRE_OP_NAME_MAX);
	text_append(&text, "op %u", op);
	return out;
}
