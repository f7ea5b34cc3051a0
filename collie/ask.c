/* A command's question to the sheep, and its whole answer. */
#include <string.h>

#include "collie/command.h"
#include "lib/base/size.h"

struct op_row {
	const char *key; /* a list's rows are sorted by it; NULL: the answer is an object */
};

static const struct op_row op_rows[ADMIN_OP_END] = {
#define OP_ROW(name, number, text, since, key) [number] = {key},
	ADMIN_OP_LIST(OP_ROW)
#undef OP_ROW
};

int ask_prepare(struct collie *collie)
{
	if (collie->call)
		return 0;
	int rc = call_new(collie->sheep, &collie->call, &collie->failure);
	if (rc == 0)
		collie->deadline_ns = call_now(collie->call) + collie->timeout_ns;
	return rc;
}

static int bad_answer(struct collie *collie, const char *why)
{
	return failure_set(&collie->failure, COLLIE_UNREACHABLE, "protocol",
			   "the sheep's answer makes no sense: %s", why);
}

/* Is @next behind @last in a list's order? Numbers by value, strings by their bytes. */
static bool is_behind(struct json_object *next, struct json_object *last)
{
	if (json_object_get_type(next) != json_object_get_type(last))
		return false;
	if (json_object_is_type(next, json_type_int))
		return json_object_get_uint64(next) > json_object_get_uint64(last);
	return json_object_is_type(next, json_type_string) &&
	       strcmp(json_object_get_string(next), json_object_get_string(last)) > 0;
}

/*
 * Move the rows of a page to the end of @list. @last: the key of the list's last row, updated. A row
 * out of order would make us ask for ever, or show a row twice.
 */
static int add_page(struct collie *collie, struct json_object *list, struct json_object *page,
		    const char *key, struct json_object **last)
{
	size_t count = json_object_array_length(page);

	for (size_t i = 0; i < count; i++) {
		struct json_object *row = json_object_array_get_idx(page, i), *value = NULL;
		if (!json_object_is_type(row, json_type_object) ||
		    !json_object_object_get_ex(row, key, &value))
			return bad_answer(collie, "a row of the list has no key");
		if (*last && !is_behind(value, *last))
			return bad_answer(collie, "the list is not in order");
		*last = value;
		json_object_array_add(list, json_object_get(row));
	}
	return 0;
}

static int ask_list(struct collie *collie, enum admin_op op, struct json_object *arguments,
		    struct json_object **out)
{
	const char *key = op_rows[op].key;
	struct json_object *list = json_object_new_array();
	struct json_object *question = json_object_new_object();
	struct json_object *last = NULL; /* belongs to a row of the list */
	bool has_more = true;
	int rc = 0;

	if (arguments) {
		json_object_object_foreach(arguments, name, value)
			json_object_object_add(question, name, json_object_get(value));
	}
	while (rc == 0 && has_more) {
		struct call_reply reply;
		rc = call_request(collie->call, op, question, collie->deadline_ns, &reply,
				  &collie->failure);
		if (rc != 0)
			break;
		has_more = reply.has_more;
		if (!json_object_is_type(reply.document, json_type_array))
			rc = bad_answer(collie, "a list was asked for");
		else if (has_more && json_object_array_length(reply.document) == 0)
			rc = bad_answer(collie, "an empty page is not the last");
		else
			rc = add_page(collie, list, reply.document, key, &last);
		json_object_put(reply.document);
		if (rc == 0 && has_more)
			json_object_object_add(question, "after", json_object_get(last));
	}
	json_object_put(question);
	if (rc == 0)
		*out = list;
	else
		json_object_put(list);
	return rc;
}

int ask(struct collie *collie, enum admin_op op, struct json_object *arguments,
	struct json_object **out)
{
	struct call_reply reply;
	int rc = ask_prepare(collie);

	if (rc != 0)
		return rc;
	if (op_rows[op].key)
		return ask_list(collie, op, arguments, out);
	rc = call_request(collie->call, op, arguments, collie->deadline_ns, &reply,
			  &collie->failure);
	if (rc != 0)
		return rc;
	if (!json_object_is_type(reply.document, json_type_object)) {
		json_object_put(reply.document);
		return bad_answer(collie, "an object was asked for");
	}
	*out = reply.document;
	return 0;
}
