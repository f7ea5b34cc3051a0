/* HELLO: who may talk to whom, in which version; and every half-true greeting. */
#include "tests/unit/wire_frames.h"

static const struct uuid cluster_a = {{0xa1, 2, 3}}, cluster_b = {{0xb1, 2, 3}}, no_cluster;

static struct wire_protocol protocol_of(uint16_t min, uint16_t max)
{
	return (struct wire_protocol){
		.name = "peer",
		.magic = FRAME_MAGIC_PEER,
		.version_min = min,
		.version_max = max,
		.open_classes = BIT(0),
		.classes = 3,
	};
}

static struct wire_identity identity_of(struct uuid cluster, uint32_t node_id)
{
	return (struct wire_identity){
		.cluster = cluster,
		.node = {{(uint8_t)node_id, 1}},
		.node_id = node_id,
		.incarnation = 100 + node_id,
		.nonce = 200 + node_id,
		.flags = FRAME_HELLO_UNCLEAN,
		.loops = 4,
	};
}

struct side {
	struct wire_protocol protocol;
	struct wire_identity self;
};

/* What one side says, as the frame that the other gets. */
static struct wire_frame frame_of(const void *body, uint32_t size, uint16_t flags, uint32_t status,
				  const char *text)
{
	return (struct wire_frame){
		.op = FRAME_OP_HELLO,
		.flags = flags,
		.status = status,
		.request = 1,
		.body = body,
		.body_size = size,
		.payload_size = text ? (uint32_t)strlen(text) : 0,
		.payload = {.data = (uint8_t *)(uintptr_t)text,
			    .size = text ? (uint32_t)strlen(text) : 0},
	};
}

struct outcome {
	int acceptor, dialler;
	struct wire_agreement at_acceptor, at_dialler;
	struct error acceptor_err, dialler_err;
};

/* A whole greeting between two sides. */
static struct outcome greet(const struct side *dialler, const struct side *acceptor, uint16_t class)
{
	struct outcome o = {0};
	struct frame_hello hello;
	struct frame_hello_reply reply;

	wire_hello_make(&hello, &dialler->protocol, &dialler->self, class, 2, 0x77);
	struct wire_frame frame = frame_of(&hello, sizeof(hello), 0, 0, NULL);
	o.acceptor = wire_hello_judge(&acceptor->protocol, &acceptor->self, &frame, &o.at_acceptor,
				      &o.acceptor_err);
	o.at_acceptor.session = 5;
	o.at_acceptor.credit_requests = 10;
	o.at_acceptor.credit_bytes = 1 << 20;
	wire_hello_reply_make(&reply, &acceptor->protocol, &acceptor->self,
			      o.acceptor < 0 ? NULL : &o.at_acceptor);
	frame = frame_of(&reply, sizeof(reply), FRAME_REPLY, wire_status_of(o.acceptor),
			 o.acceptor < 0 ? o.acceptor_err.text : NULL);
	o.at_dialler.class = class;
	o.dialler = wire_hello_reply_judge(&dialler->protocol, &dialler->self, &frame,
					   &o.at_dialler, &o.dialler_err);
	return o;
}

static struct side side_of(uint16_t min, uint16_t max, struct uuid cluster, uint32_t id)
{
	return (struct side){protocol_of(min, max), identity_of(cluster, id)};
}

/* Versions: every pair of ranges agrees on the highest common one, or names both. */
static void test_versions_agree_on_the_highest_common_one(void **state)
{
	enum { VERSIONS = 5 };

	for (uint16_t a = 1; a <= VERSIONS; a++)
		for (uint16_t b = a; b <= VERSIONS; b++)
			for (uint16_t c = 1; c <= VERSIONS; c++)
				for (uint16_t d = c; d <= VERSIONS; d++) {
					struct side dialler = side_of(a, b, cluster_a, 1);
					struct side acceptor = side_of(c, d, cluster_a, 2);
					struct outcome o = greet(&dialler, &acceptor, 1);
					uint16_t best = min_of(b, d);
					if (best >= a && best >= c) {
						assert_int_equal(o.acceptor, 0);
						assert_int_equal(o.dialler, 0);
						assert_int_equal(o.at_acceptor.version, best);
						assert_int_equal(o.at_dialler.version, best);
						continue;
					}
					assert_int_equal(o.acceptor, -E_WRONG_VERSION);
					assert_int_equal(o.dialler, -E_WRONG_VERSION);
				}
	struct side old = side_of(1, 2, cluster_a, 1), new = side_of(3, 4, cluster_a, 2);
	struct outcome o = greet(&old, &new, 1);
	assert_non_null(strstr(o.dialler_err.text, "3 to 4"));
	assert_non_null(strstr(o.dialler_err.text, "1 to 2"));
}

/* Both sides learn who the other is, also from a refusal. */
static void test_both_sides_learn_who_is_there(void **state)
{
	struct side dialler = side_of(1, 1, cluster_a, 1), acceptor = side_of(1, 1, cluster_a, 2);
	struct outcome o = greet(&dialler, &acceptor, 2);

	assert_int_equal(o.dialler, 0);
	assert_int_equal(o.at_acceptor.peer.node_id, 1);
	assert_int_equal(o.at_acceptor.peer.incarnation, 101);
	assert_int_equal(o.at_acceptor.peer.nonce, 201);
	assert_int_equal(o.at_acceptor.peer.flags, FRAME_HELLO_UNCLEAN);
	assert_int_equal(o.at_acceptor.class, 2);
	assert_int_equal(o.at_acceptor.loop, 2);
	assert_int_equal(o.at_acceptor.link, 0x77);
	assert_memory_equal(&o.at_acceptor.peer.node, &dialler.self.node, sizeof(struct uuid));
	assert_int_equal(o.at_dialler.peer.node_id, 2);
	assert_int_equal(o.at_dialler.peer.incarnation, 102);
	assert_int_equal(o.at_dialler.peer.loops, 4);
	assert_int_equal(o.at_dialler.session, 5);
	assert_int_equal(o.at_dialler.credit_requests, 10);
	assert_int_equal(o.at_dialler.credit_bytes, 1 << 20);

	acceptor = side_of(2, 2, cluster_a, 2);
	o = greet(&dialler, &acceptor, 2);
	assert_int_equal(o.at_acceptor.peer.node_id, 1);
	assert_int_equal(o.at_dialler.peer.node_id, 2);
}

/* Clusters: the rows are dialler, acceptor, class, and what comes of it. */
static void test_clusters_do_not_mix(void **state)
{
	static const struct {
		const struct uuid *dialler, *acceptor;
		uint16_t class;
		int result;
	} rows[] = {
		{&cluster_a, &cluster_a, 0, 0},
		{&cluster_a, &cluster_a, 1, 0},
		{&cluster_a, &cluster_b, 0, -E_WRONG_CLUSTER},
		{&cluster_a, &cluster_b, 1, -E_WRONG_CLUSTER},
		{&no_cluster, &cluster_a, 0, 0}, /* it wants to join */
		{&no_cluster, &cluster_a, 1, -E_NOT_FORMATTED},
		{&cluster_a, &no_cluster, 0, 0},
		{&cluster_a, &no_cluster, 2, -E_NOT_FORMATTED},
		{&no_cluster, &no_cluster, 0, 0},
		{&no_cluster, &no_cluster, 1, -E_NOT_FORMATTED},
		{&cluster_a, &cluster_a, 3, -E_PROTOCOL}, /* no such class */
	};

	for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
		struct side dialler = side_of(1, 1, *rows[i].dialler, 1);
		struct side acceptor = side_of(1, 1, *rows[i].acceptor, 2);
		struct outcome o = greet(&dialler, &acceptor, rows[i].class);
		if (o.acceptor != rows[i].result || o.dialler != rows[i].result)
			fail_msg("row %u: %d, %d: %s", i, o.acceptor, o.dialler,
				 o.dialler_err.text);
	}
	struct side dialler = side_of(1, 1, cluster_a, 1), acceptor = side_of(1, 1, cluster_b, 2);
	struct outcome o = greet(&dialler, &acceptor, 1);
	char text[UUID_TEXT_SIZE];
	assert_non_null(strstr(o.dialler_err.text, uuid_format(&cluster_a, text)));
	assert_non_null(strstr(o.dialler_err.text, uuid_format(&cluster_b, text)));
}

static void test_features_are_those_of_both(void **state)
{
	struct side dialler = side_of(1, 1, cluster_a, 1), acceptor = side_of(1, 1, cluster_a, 2);

	dialler.protocol.features = 0x7;
	acceptor.protocol.features = 0xe;
	dialler.protocol.required = 0x2;
	acceptor.protocol.required = 0x4;
	struct outcome o = greet(&dialler, &acceptor, 1);
	assert_int_equal(o.dialler, 0);
	assert_int_equal(o.at_dialler.features, 0x6);
	assert_int_equal(o.at_acceptor.features, 0x6);
	dialler.protocol.required = 0x1;
	o = greet(&dialler, &acceptor, 1);
	assert_int_equal(o.acceptor, -EOPNOTSUPP);
	assert_int_equal(o.dialler, -EOPNOTSUPP);
	dialler.protocol.required = 0;
	acceptor.protocol.required = 0x8;
	o = greet(&dialler, &acceptor, 1);
	assert_int_equal(o.acceptor, -EOPNOTSUPP);
	assert_int_equal(o.dialler, -EOPNOTSUPP);
}

/* A HELLO that is not quite one. */
static void test_malformed_hellos_are_refused(void **state)
{
	struct side side = side_of(1, 2, cluster_a, 1);
	struct wire_agreement agreement;
	struct frame_hello hello;
	struct error err = {0};

	wire_hello_make(&hello, &side.protocol, &side.self, 1, 0, 1);
	const struct wire_frame good = frame_of(&hello, sizeof(hello), 0, 0, NULL);
#define JUDGE(frame) wire_hello_judge(&side.protocol, &side.self, frame, &agreement, &err)
	struct wire_frame bad = good;
	assert_int_equal(JUDGE(&bad), 0);
	for (uint32_t size = 0; size < sizeof(hello); size++) {
		bad.body_size = size;
		assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	}
	bad = good;
	bad.op = 1;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = good;
	bad.flags = FRAME_REPLY;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = good;
	bad.flags = FRAME_ONEWAY;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = good;
	bad.payload_size = 1;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	hello.reserved[4] = to_le64(1);
	assert_int_equal(JUDGE(&good), -E_PROTOCOL);
	hello.reserved[4] = to_le64(0);
	hello.version_min = to_le16(2);
	hello.version_max = to_le16(1);
	assert_int_equal(JUDGE(&good), -E_PROTOCOL);
	hello.version_max = to_le16(9);
	/* Longer ones of later versions are fine. */
	uint8_t longer[200] = {0};
	memcpy(longer, &hello, sizeof(hello));
	memset(longer + sizeof(hello), 0xff, sizeof(longer) - sizeof(hello));
	bad = frame_of(longer, sizeof(longer), 0, 0, NULL);
	assert_int_equal(JUDGE(&bad), 0);
	assert_int_equal(agreement.version, 2);
#undef JUDGE
}

/* An acceptance that does not fit what we offered. */
static void test_malformed_acceptances_are_refused(void **state)
{
	struct side side = side_of(1, 2, cluster_a, 1);
	struct wire_agreement agreed = {
		.version = 1, .credit_requests = 10, .credit_bytes = 1000, .session = 4};
	struct frame_hello_reply reply;
	struct error err = {0};

	side.protocol.features = 1;
	wire_hello_reply_make(&reply, &side.protocol, &side.self, &agreed);
	const struct frame_hello_reply good_reply = reply;
	const struct wire_frame good = frame_of(&reply, sizeof(reply), FRAME_REPLY, 0, NULL);
#define JUDGE(frame) wire_hello_reply_judge(&side.protocol, &side.self, frame, &agreed, &err)
#define EXPECT_BAD(change, code)                      \
	do {                                          \
		reply = good_reply;                   \
		change;                               \
		assert_int_equal(JUDGE(&good), code); \
	} while (0)
	assert_int_equal(JUDGE(&good), 0);
	EXPECT_BAD(reply.version = to_le16(0), -E_PROTOCOL);
	EXPECT_BAD(reply.version = to_le16(3), -E_PROTOCOL);
	EXPECT_BAD(reply.features = to_le64(2), -E_PROTOCOL);
	EXPECT_BAD(reply.required = to_le64(4), -EOPNOTSUPP);
	EXPECT_BAD(reply.credit_requests = to_le32(0), -E_PROTOCOL);
	EXPECT_BAD(reply.reserved16 = to_le16(1), -E_PROTOCOL);
	EXPECT_BAD(reply.reserved[0] = to_le64(1), -E_PROTOCOL);
	EXPECT_BAD(memcpy(reply.cluster, cluster_b.bytes, 16), -E_WRONG_CLUSTER);
	EXPECT_BAD(reply.credit_requests = to_le32(UINT32_MAX), 0);
	assert_int_equal(agreed.credit_requests, WIRE_CREDIT_REQUESTS_MAX);
	reply = good_reply;
	struct wire_frame bad = good;
	bad.flags = 0;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = good;
	bad.op = 3;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = good;
	bad.body_size = 127;
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	bad = frame_of(&reply, sizeof(reply), FRAME_REPLY, 0, "text");
	assert_int_equal(JUDGE(&bad), -E_PROTOCOL);
	/* Refusals: any number, any text. */
	bad = frame_of(&reply, sizeof(reply), FRAME_REPLY, 9999, "\x80\x81");
	assert_int_equal(JUDGE(&bad), -EIO);
	assert_non_null(strstr(err.text, "UNKNOWN"));
	bad = frame_of(&reply, sizeof(reply), FRAME_REPLY, PROTO_STATUS_BUSY, "too many");
	assert_int_equal(JUDGE(&bad), -EBUSY);
	assert_non_null(strstr(err.text, "too many"));
#undef EXPECT_BAD
#undef JUDGE
}

/* ---- the tables ---- */

/* What we can say with a number of its own comes back as it was. */
static void test_codes_survive_the_way_there_and_back(void **state)
{
	unsigned own = 0;

	for (int code = 1; code < ERR_END; code++) {
		uint32_t status = wire_status_of(-code);
		assert_int_not_equal(status, PROTO_STATUS_OK);
		assert_string_not_equal(wire_status_name(status), "UNKNOWN");
		if (wire_status_code(status) == -code)
			own++;
		if (code == 200)
			code = ERR_FIRST - 1;
	}
	/* Every number of the protocol but OK is used. */
	unsigned rows = 0;
#define COUNT_STATUS(name, number, text)                                                    \
	do {                                                                                \
		rows++;                                                                     \
		if ((number) != 0)                                                          \
			assert_int_equal(wire_status_of(wire_status_code(number)), number); \
		assert_string_equal(wire_status_name(number), #name);                       \
		assert_int_equal((number), rows - 1); /* without gaps */                    \
	} while (0);
	PROTO_STATUS_LIST(COUNT_STATUS)
#undef COUNT_STATUS
	assert_int_equal(own, rows - 1);
	assert_int_equal(wire_status_of(0), PROTO_STATUS_OK);
	assert_int_equal(wire_status_of(17), PROTO_STATUS_OK);
	assert_int_equal(wire_status_code(PROTO_STATUS_OK), 0);
	assert_int_equal(wire_status_code(123456), -EIO);
}

/* Every code of ours but those that are local says what it means; none turns into "closed". */
static void test_closed_never_travels(void **state)
{
	static const int ours[] = {
#define CODE(name, text) name,
		ERR_LIST(CODE)
#undef CODE
	};

	for (unsigned i = 0; i < ARRAY_COUNT(ours); i++) {
		int back = wire_status_code(wire_status_of(-ours[i]));
		assert_int_not_equal(back, -E_CLOSED);
		bool is_local = ours[i] == E_CLOSED || ours[i] == E_USAGE;
		if (!is_local && back != -ours[i])
			fail_msg("%s becomes %s", err_text(ours[i]), err_text(back));
	}
	for (uint32_t status = 0; status < 200; status++)
		assert_int_not_equal(wire_status_code(status), -E_CLOSED);
}

static void test_ops_are_found_by_version(void **state)
{
	static const struct wire_op ops[] = {
		[1] = {.name = "one"}, [2] = {.name = "two", .since = 2}, [4] = {.name = "four"}};
	const struct wire_protocol protocol = {.ops = ops, .op_count = ARRAY_COUNT(ops)};
	char name[WIRE_OP_NAME_MAX];

	assert_ptr_equal(wire_op_find(&protocol, 1, 1), &ops[1]);
	assert_null(wire_op_find(&protocol, 0, 9));
	assert_null(wire_op_find(&protocol, 2, 1));
	assert_ptr_equal(wire_op_find(&protocol, 2, 2), &ops[2]);
	assert_null(wire_op_find(&protocol, 3, 9));
	assert_null(wire_op_find(&protocol, 5, 9));
	assert_null(wire_op_find(&protocol, 0xffff, 9));
	assert_string_equal(wire_op_name(&protocol, 4, name), "four");
	assert_string_equal(wire_op_name(&protocol, 3, name), "op 3");
	assert_string_equal(wire_op_name(&protocol, 0, name), "hello");
	assert_string_equal(wire_op_name(&protocol, 0xffff, name), "ping");
}

/* ---- the window ---- */

static void test_window_keeps_to_its_credit(void **state)
{
	struct wire_window window = {0};
	int owners[8];
	uint64_t ids[8];

	assert_int_equal(wire_window_open(&window, 4, 1000), 0);
	assert_null(wire_window_owner(&window, 0));
	for (unsigned i = 0; i < 4; i++) {
		ids[i] = wire_window_take(&window, 100, &owners[i]);
		assert_int_not_equal(ids[i], 0);
	}
	assert_int_equal(wire_window_take(&window, 100, &owners[4]), 0); /* four are out */
	for (unsigned i = 0; i < 4; i++)
		assert_ptr_equal(wire_window_owner(&window, ids[i]), &owners[i]);
	wire_window_give(&window, ids[1]);
	assert_null(wire_window_owner(&window, ids[1]));
	assert_int_equal(wire_window_take(&window, 701, &owners[5]), 0); /* 1001 bytes */
	ids[5] = wire_window_take(&window, 700, &owners[5]);
	assert_int_not_equal(ids[5], 0);
	assert_int_not_equal(ids[5], ids[1]); /* the slot is the same, the number is not */
	assert_null(wire_window_owner(&window, ids[1]));
	assert_ptr_equal(wire_window_owner(&window, ids[5]), &owners[5]);
	assert_null(wire_window_owner(&window, ids[5] + 1));
	assert_null(wire_window_owner(&window, UINT64_MAX));
	wire_window_give(&window, ids[0]);
	wire_window_give(&window, ids[2]);
	wire_window_give(&window, ids[3]);
	wire_window_give(&window, ids[5]);
	assert_int_equal(window.used, 0);
	assert_int_equal(window.bytes_used, 0);
	/* Alone, any charge goes. */
	ids[0] = wire_window_take(&window, 1 << 30, &owners[0]);
	assert_int_not_equal(ids[0], 0);
	assert_int_equal(wire_window_take(&window, 1, &owners[1]), 0);
	/* A new connection forgets. */
	assert_int_equal(wire_window_open(&window, 2, 1000), 0);
	assert_int_equal(window.used, 0);
	assert_null(wire_window_owner(&window, ids[0]));
	wire_window_done(&window);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_versions_agree_on_the_highest_common_one),
		cmocka_unit_test(test_both_sides_learn_who_is_there),
		cmocka_unit_test(test_clusters_do_not_mix),
		cmocka_unit_test(test_features_are_those_of_both),
		cmocka_unit_test(test_malformed_hellos_are_refused),
		cmocka_unit_test(test_malformed_acceptances_are_refused),
		cmocka_unit_test(test_codes_survive_the_way_there_and_back),
		cmocka_unit_test(test_closed_never_travels),
		cmocka_unit_test(test_ops_are_found_by_version),
		cmocka_unit_test(test_window_keeps_to_its_credit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
