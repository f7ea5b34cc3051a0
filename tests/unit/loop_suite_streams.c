/* Sockets: listening, connecting, moving bytes, closing; on any back end. */
#include "tests/unit/loop_suite.h"

static int send_all(struct bed *bed, struct loop_socket *socket, const void *data, size_t size)
{
	struct iovec iov = {(void *)data, size};
	struct call call = {0};

	loop_send(bed->loop, call_begin(&call), socket, &iov, 1);
	return call_wait(bed, &call);
}

static int recv_some(struct bed *bed, struct loop_socket *socket, void *data, size_t size)
{
	struct iovec iov = {data, size};
	struct call call = {0};

	loop_recv(bed->loop, call_begin(&call), socket, &iov, 1);
	return call_wait(bed, &call);
}

static void close_both(struct bed *bed, struct loop_socket *sockets[2])
{
	loop_socket_close(bed->loop, sockets[0]);
	loop_socket_close(bed->loop, sockets[1]);
}

static void ping_pong(struct bed *bed, struct loop_socket *sockets[2])
{
	char back[16] = "";

	assert_int_equal(send_all(bed, sockets[0], "ping", 4), 4);
	assert_int_equal(recv_some(bed, sockets[1], back, sizeof(back)), 4);
	assert_memory_equal(back, "ping", 4);
	assert_int_equal(send_all(bed, sockets[1], "pong!", 5), 5);
	assert_int_equal(recv_some(bed, sockets[0], back, sizeof(back)), 5);
	assert_memory_equal(back, "pong!", 5);
}

static void test_tcp_unix_and_pair_carry_bytes_both_ways(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];

	bed_connect(bed, bed->tcp_any, sockets);
	ping_pong(bed, sockets);
	assert_non_null(strchr(loop_socket_peer(sockets[0]), ':'));
	assert_non_null(strchr(loop_socket_peer(sockets[1]), ':'));
	close_both(bed, sockets);
	bed_connect(bed, bed->unix_address, sockets);
	ping_pong(bed, sockets);
	assert_int_equal(strncmp(loop_socket_peer(sockets[1]), "unix:", 5), 0);
	close_both(bed, sockets);
	assert_int_equal(loop_socket_pair(bed->loop, &sockets[0], &sockets[1]), 0);
	ping_pong(bed, sockets);
	close_both(bed, sockets);
}

static void test_addresses_are_checked(void **state)
{
	struct error err = {0};
	char path[160] = "unix:/";

	assert_int_equal(loop_address_check("127.0.0.1:7000", &err), 0);
	assert_int_equal(loop_address_check("[::1]:0", &err), 0);
	assert_int_equal(loop_address_check("unix:/run/x", &err), 0);
	static const char *const bad[] = {"",	       "7000",		"1.2.3:80",   "host:80",
					  "::1:80",    "[::1]80",	"[::1:80",    "1.2.3.4:",
					  "1.2.3.4:x", "1.2.3.4:65536", "unix:",      "1.2.3.4",
					  "[]:1",      "[1.2.3.4]:1",	"1.2.3.4:-1", "]:1"};
	for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
		err.text[0] = '\0';
		assert_int_equal(loop_address_check(bad[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, bad[i]));
	}
	memset(path + 6, 'p', 106);
	assert_int_equal(loop_address_check(path, &err), 0); /* 107 bytes */
	path[112] = 'p';
	assert_int_equal(loop_address_check(path, &err), -EINVAL);
	assert_non_null(strstr(err.text, "107"));
	assert_true(loop_address_is_unix("unix:/x"));
	assert_false(loop_address_is_unix("127.0.0.1:1"));
	assert_true(loop_address_is_loopback("127.9.0.1:1"));
	assert_true(loop_address_is_loopback("[::1]:1"));
	assert_true(loop_address_is_loopback("unix:/x"));
	assert_false(loop_address_is_loopback("10.0.0.1:1"));
	assert_false(loop_address_is_loopback("[::]:1"));
	assert_false(loop_address_is_loopback("junk"));
}

static void test_connect_fails_where_nobody_listens_and_on_bad_addresses(void **state)
{
	struct bed *bed = *state;
	struct call call = {0};

	loop_connect(bed->loop, call_begin(&call), bed->tcp_dead);
	assert_int_equal(call_wait(bed, &call), -ECONNREFUSED);
	assert_null(call.op.out.socket);
	loop_connect(bed->loop, call_begin(&call), bed->unix_address);
	assert_int_equal(call_wait(bed, &call), -ENOENT);
	loop_connect(bed->loop, call_begin(&call), "nonsense");
	assert_int_equal(call_wait(bed, &call), -EINVAL);
}

static void test_listen_refuses_a_live_address_and_can_be_repeated(void **state)
{
	struct bed *bed = *state;
	struct loop_listener *first, *second;
	struct error err = {0};
	const char *addresses[] = {bed->tcp_any, bed->unix_address};
	char bound[LOOP_ADDRESS_MAX];

	for (unsigned i = 0; i < ARRAY_COUNT(addresses); i++) {
		assert_int_equal(loop_listen(bed->loop, addresses[i], &first, &err), 0);
		(void)strncpy(bound, loop_listener_address(first), sizeof(bound) - 1);
		assert_int_equal(loop_address_check(bound, &err), 0);
		assert_int_equal(loop_listen(bed->loop, bound, &second, &err), -EADDRINUSE);
		assert_non_null(strstr(err.text, bound));
		loop_listener_close(bed->loop, first);
		assert_int_equal(loop_listen(bed->loop, bound, &second, &err), 0);
		assert_string_equal(loop_listener_address(second), bound);
		loop_listener_close(bed->loop, second);
	}
	assert_int_equal(loop_listen(bed->loop, "junk", &first, &err), -EINVAL);
	loop_listener_close(bed->loop, NULL);
}

static void test_closing_a_listener_cancels_its_accepts(void **state)
{
	struct bed *bed = *state;
	struct loop_listener *listener;
	struct call accepts[3] = {0}, call = {0};
	char address[LOOP_ADDRESS_MAX] = "";
	struct error err = {0};

	assert_int_equal(loop_listen(bed->loop, bed->tcp_any, &listener, &err), 0);
	(void)strncpy(address, loop_listener_address(listener), sizeof(address) - 1);
	for (unsigned i = 0; i < 3; i++)
		loop_accept(bed->loop, call_begin(&accepts[i]), listener);
	bed_turn(bed);
	loop_listener_close(bed->loop, listener);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(i > 0 || !accepts[i].completions);
		BED_UNTIL(bed, accepts[i].completions);
		assert_int_equal(accepts[i].result, -ECANCELED);
		assert_null(accepts[i].op.out.socket);
	}
	loop_connect(bed->loop, call_begin(&call), address);
	assert_int_equal(call_wait(bed, &call), -ECONNREFUSED);
}

static void test_one_accept_can_be_cancelled_and_the_others_go_on(void **state)
{
	struct bed *bed = *state;
	struct loop_listener *listener;
	struct call first = {0}, second = {0}, call = {0};
	struct error err = {0};

	assert_int_equal(loop_listen(bed->loop, bed->tcp_any, &listener, &err), 0);
	loop_accept(bed->loop, call_begin(&first), listener);
	loop_accept(bed->loop, call_begin(&second), listener);
	bed_turn(bed);
	loop_cancel(bed->loop, &first.op);
	assert_int_equal(call_wait(bed, &first), -ECANCELED);
	loop_connect(bed->loop, call_begin(&call), loop_listener_address(listener));
	assert_int_equal(call_wait(bed, &call), 0);
	BED_UNTIL(bed, second.completions);
	assert_int_equal(second.result, 0);
	loop_socket_close(bed->loop, call.op.out.socket);
	loop_socket_close(bed->loop, second.op.out.socket);
	loop_listener_close(bed->loop, listener);
}

/* 8 MiB in uneven vectors against small reads: partial transfers in every place. */
static void test_send_is_whole_however_slowly_the_peer_reads(void **state)
{
	struct bed *bed = *state;
	enum { SIZE = 8 * 1024 * 1024 + 123, PARTS = 3000 };
	struct loop_socket *sockets[2];
	uint8_t *data = malloc(SIZE), *back = malloc(SIZE);
	struct iovec *iov = calloc(PARTS, sizeof(*iov));
	struct call send = {0};
	size_t got = 0, at = 0;

	pattern_fill(data, SIZE, 9);
	for (unsigned i = 0; i < PARTS; i++) {
		size_t size = i + 1 < PARTS ? SIZE / PARTS - 500 + i % 1000 : SIZE - at;

		iov[i] = (struct iovec){data + at, size};
		at += size;
	}
	bed_connect(bed, bed->tcp_any, sockets);
	loop_send(bed->loop, call_begin(&send), sockets[0], iov, PARTS);
	while (got < SIZE) {
		struct iovec two[2] = {{back + got, min_of((size_t)1000, SIZE - got)}, {0}};

		two[1].iov_base = back + got + two[0].iov_len;
		two[1].iov_len = min_of((size_t)100000, SIZE - got - two[0].iov_len);
		struct call recv = {0};
		loop_recv(bed->loop, call_begin(&recv), sockets[1], two, 2);
		int n = call_wait(bed, &recv);
		assert_true(n > 0);
		got += (size_t)n;
	}
	BED_UNTIL(bed, send.completions);
	assert_int_equal(send.result, SIZE);
	assert_true(pattern_is(back, SIZE, 9));
	close_both(bed, sockets);
	free(data);
	free(back);
	free(iov);
}

static void test_recv_is_zero_at_the_end_of_the_stream_and_data_comes_first(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];
	char back[16];

	bed_connect(bed, bed->tcp_any, sockets);
	assert_int_equal(send_all(bed, sockets[0], "bye", 3), 3);
	loop_socket_shutdown(bed->loop, sockets[0], false);
	assert_int_equal(recv_some(bed, sockets[1], back, sizeof(back)), 3);
	assert_int_equal(recv_some(bed, sockets[1], back, sizeof(back)), 0);
	assert_int_equal(recv_some(bed, sockets[1], back, sizeof(back)), 0);
	/* The other direction still works. */
	assert_int_equal(send_all(bed, sockets[1], "ok", 2), 2);
	assert_int_equal(recv_some(bed, sockets[0], back, sizeof(back)), 2);
	assert_int_equal(send_all(bed, sockets[0], "x", 1), -EPIPE);
	close_both(bed, sockets);
}

static void test_shutdown_waits_for_the_send_in_flight(void **state)
{
	struct bed *bed = *state;
	enum { SIZE = 4 * 1024 * 1024 };
	struct loop_socket *sockets[2];
	uint8_t *data = malloc(SIZE), *back = malloc(SIZE);
	struct iovec iov = {data, SIZE};
	struct call send = {0};
	size_t got = 0;
	int n;

	pattern_fill(data, SIZE, 4);
	bed_connect(bed, bed->tcp_any, sockets);
	loop_send(bed->loop, call_begin(&send), sockets[0], &iov, 1);
	loop_socket_shutdown(bed->loop, sockets[0], false);
	while ((n = recv_some(bed, sockets[1], back + got, min_of(SIZE - got + 1, 100000ul))) > 0)
		got += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(got, SIZE);
	assert_true(pattern_is(back, SIZE, 4));
	assert_int_equal(send.result, SIZE);
	close_both(bed, sockets);
	free(data);
	free(back);
}

static void test_shutdown_of_both_ends_a_recv_in_flight(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];
	struct iovec iov = {(char[8]){0}, 8};
	struct call recv = {0};
	char back[8];

	bed_connect(bed, bed->tcp_any, sockets);
	loop_recv(bed->loop, call_begin(&recv), sockets[0], &iov, 1);
	bed_turn(bed);
	loop_socket_shutdown(bed->loop, sockets[0], true);
	assert_int_equal(call_wait(bed, &recv), 0);
	assert_int_equal(recv_some(bed, sockets[1], back, sizeof(back)), 0);
	close_both(bed, sockets);
}

/* All the ways an op can be when its socket goes: waiting, ended but not told, not even begun. */
static void test_close_with_ops_in_flight_cancels_each_once(void **state)
{
	struct bed *bed = *state;
	enum { SIZE = 16 * 1024 * 1024 };
	uint8_t *data = calloc(1, SIZE);
	struct iovec in = {(char[8]){0}, 8}, out = {data, SIZE};

	for (unsigned turns = 0; turns < 3; turns++) {
		struct loop_socket *sockets[2];
		struct call recv = {0}, send = {0};
		char back[8];
		int n;

		bed_connect(bed, bed->tcp_any, sockets);
		loop_recv(bed->loop, call_begin(&recv), sockets[0], &in, 1);
		loop_send(bed->loop, call_begin(&send), sockets[0], &out, 1);
		for (unsigned i = 0; i < turns; i++)
			bed_turn(bed);
		loop_socket_close(bed->loop, sockets[0]);
		assert_int_equal(recv.completions + send.completions, 0);
		assert_int_equal(call_wait(bed, &recv), -ECANCELED);
		BED_UNTIL(bed, send.completions);
		assert_int_equal(send.result, -ECANCELED);
		for (unsigned i = 0; i < 5; i++)
			bed_turn(bed);
		assert_int_equal(recv.completions, 1);
		assert_int_equal(send.completions, 1);
		/* The peer notices, after what was sent at most. */
		while ((n = recv_some(bed, sockets[1], back, sizeof(back))) > 0)
			if (recv_some(bed, sockets[1], data, SIZE) <= 0)
				break;
		loop_socket_close(bed->loop, sockets[1]);
	}
	free(data);
}

static void test_cancelled_recv_leaves_the_socket_usable(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];
	struct iovec iov = {(char[8]){0}, 8};
	struct call recv = {0};

	bed_connect(bed, bed->tcp_any, sockets);
	for (unsigned turns = 0; turns < 2; turns++) {
		loop_recv(bed->loop, call_begin(&recv), sockets[0], &iov, 1);
		for (unsigned i = 0; i < turns; i++)
			bed_turn(bed);
		loop_cancel(bed->loop, &recv.op);
		assert_int_equal(call_wait(bed, &recv), -ECANCELED);
	}
	ping_pong(bed, sockets);
	close_both(bed, sockets);
}

/* The trap: a cancel of the op's last life must not meet the next. */
static void test_op_submitted_again_from_done_survives_an_old_cancel(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];
	char bytes[8];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct call recv = {0};

	bed_connect(bed, bed->tcp_any, sockets);
	for (unsigned i = 0; i < 20; i++) {
		loop_recv(bed->loop, call_begin(&recv), sockets[0], &iov, 1);
		bed_turn(bed);
		assert_int_equal(send_all(bed, sockets[1], "a", 1), 1);
		loop_cancel(bed->loop, &recv.op);
		BED_UNTIL(bed, recv.completions);
		bool was_cancelled = recv.result == -ECANCELED;
		loop_recv(bed->loop, call_begin(&recv), sockets[0], &iov, 1);
		if (!was_cancelled) {
			bed_turn(bed);
			assert_int_equal(recv.completions, 0);
			assert_int_equal(send_all(bed, sockets[1], "b", 1), 1);
		}
		BED_UNTIL(bed, recv.completions);
		assert_int_equal(recv.result, 1);
		assert_int_equal(bytes[0], was_cancelled ? 'a' : 'b');
	}
	close_both(bed, sockets);
}

static void test_send_to_a_peer_that_is_gone_fails_without_a_signal(void **state)
{
	struct bed *bed = *state;
	struct loop_socket *sockets[2];
	int rc = 0;

	bed_connect(bed, bed->tcp_any, sockets);
	loop_socket_close(bed->loop, sockets[1]);
	for (unsigned i = 0; i < 1000 && rc >= 0; i++)
		rc = send_all(bed, sockets[0], "data", 4);
	assert_true(rc == -EPIPE || rc == -ECONNRESET);
	loop_socket_close(bed->loop, sockets[0]);
	bed_turn(bed);
}

static void test_socket_moves_to_another_loop(void **state)
{
	struct bed *bed = *state;
	struct loop *other = bed_other(bed);
	struct loop_socket *sockets[2], *moved;
	char back[16];
	struct iovec iov = {back, sizeof(back)};
	struct call recv = {0};

	bed_connect(bed, bed->tcp_any, sockets);
	ping_pong(bed, sockets);
	moved = loop_socket_detach(bed->loop, sockets[1]);
	loop_socket_attach(other, moved);
	loop_recv(other, call_begin(&recv), moved, &iov, 1);
	assert_int_equal(send_all(bed, sockets[0], "over there", 10), 10);
	BED_UNTIL(bed, recv.completions);
	assert_int_equal(recv.result, 10);
	assert_memory_equal(back, "over there", 10);
	loop_socket_close(other, moved);
	assert_int_equal(recv_some(bed, sockets[0], back, sizeof(back)), 0);
	loop_socket_close(bed->loop, sockets[0]);
}

/* Many small requests in flight both ways at once, each answered in order. */
static void test_many_connections_at_once(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 100 };
	struct loop_socket *sockets[COUNT][2];
	struct call sends[COUNT] = {0}, recvs[COUNT] = {0};
	uint32_t out[COUNT], in[COUNT];
	struct iovec iov[COUNT][2];

	for (uint32_t i = 0; i < COUNT; i++)
		bed_connect(bed, i % 2 ? bed->tcp_any : bed->unix_address, sockets[i]);
	for (unsigned round = 0; round < 10; round++) {
		for (uint32_t i = 0; i < COUNT; i++) {
			out[i] = i * 1000 + round;
			iov[i][0] = (struct iovec){&out[i], 4};
			iov[i][1] = (struct iovec){&in[i], 4};
			loop_recv(bed->loop, call_begin(&recvs[i]), sockets[i][1], &iov[i][1], 1);
			loop_send(bed->loop, call_begin(&sends[i]), sockets[i][0], &iov[i][0], 1);
		}
		for (unsigned i = 0; i < COUNT; i++) {
			BED_UNTIL(bed, recvs[i].completions && sends[i].completions);
			assert_int_equal(recvs[i].result, 4);
			assert_int_equal(in[i], out[i]);
		}
	}
	for (unsigned i = 0; i < COUNT; i++)
		close_both(bed, sockets[i]);
}

/* ---- anything, in any order ---- */

enum { MONKEY_PAIRS = 8, MONKEY_BYTES = 200000 };

struct monkey_end {
	struct loop_socket *socket;
	struct call recv, send;
	struct iovec recv_iov, send_iov;
	uint8_t in[5000];
};

static bool monkey_is_idle(const struct monkey_end *end)
{
	return !loop_op_is_busy(&end->recv.op) && !loop_op_is_busy(&end->send.op);
}

static void monkey_step(struct bed *bed, struct monkey_end *end, uint8_t *data, uint64_t dice)
{
	size_t size = 1 + (dice >> 8) % (dice & 64 ? MONKEY_BYTES - 1 : 100);

	switch (dice % 16) {
	case 0:
		loop_socket_close(bed->loop, end->socket);
		end->socket = NULL;
		break;
	case 1:
		loop_cancel(bed->loop, &end->recv.op);
		break;
	case 2:
		loop_cancel(bed->loop, &end->send.op);
		break;
	case 3:
		loop_socket_shutdown(bed->loop, end->socket, dice & 32);
		break;
	case 4:
		assert_int_equal(loop_turn(bed->loop, loop_now(bed->loop) + 100 * NS_PER_US), 0);
		break;
	default:
		if ((dice & 1) && !loop_op_is_busy(&end->recv.op)) {
			end->recv_iov = (struct iovec){end->in, min_of(size, sizeof(end->in))};
			loop_recv(bed->loop, call_begin(&end->recv), end->socket, &end->recv_iov,
				  1);
		} else if (!loop_op_is_busy(&end->send.op)) {
			end->send_iov = (struct iovec){data, size};
			loop_send(bed->loop, call_begin(&end->send), end->socket, &end->send_iov,
				  1);
		} else {
			assert_int_equal(loop_turn(bed->loop, 0), 0);
		}
		break;
	}
}

static void test_random_use_ends_with_every_op_completed_once(void **state)
{
	struct bed *bed = *state;
	struct monkey_end(*ends)[2] = calloc(MONKEY_PAIRS, sizeof(*ends));
	uint8_t *data = calloc(1, MONKEY_BYTES);
	struct random random;

	random_init(&random, 99);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned pair = (unsigned)random_below(&random, MONKEY_PAIRS);
		struct monkey_end *end = &ends[pair][random_below(&random, 2)];
		struct loop_socket *fresh[2];

		if (end->socket) {
			monkey_step(bed, end, data, random_u64(&random));
			assert_true(end->recv.completions <= 1 && end->send.completions <= 1);
		} else if (!ends[pair][0].socket && !ends[pair][1].socket &&
			   monkey_is_idle(&ends[pair][0]) && monkey_is_idle(&ends[pair][1])) {
			bed_connect(bed, step % 2 ? bed->tcp_any : bed->unix_address, fresh);
			ends[pair][0].socket = fresh[0];
			ends[pair][1].socket = fresh[1];
		} else {
			assert_int_equal(loop_turn(bed->loop, 0), 0);
		}
	}
	for (unsigned i = 0; i < MONKEY_PAIRS * 2; i++) {
		struct monkey_end *end = &ends[i / 2][i % 2];

		loop_socket_close(bed->loop, end->socket);
		BED_UNTIL(bed, monkey_is_idle(end));
		assert_true(end->recv.completions <= 1 && end->send.completions <= 1);
	}
	free(ends);
	free(data);
}

const struct CMUnitTest loop_suite_streams[] = {
	BED_TEST(test_tcp_unix_and_pair_carry_bytes_both_ways),
	BED_TEST(test_addresses_are_checked),
	BED_TEST(test_connect_fails_where_nobody_listens_and_on_bad_addresses),
	BED_TEST(test_listen_refuses_a_live_address_and_can_be_repeated),
	BED_TEST(test_closing_a_listener_cancels_its_accepts),
	BED_TEST(test_one_accept_can_be_cancelled_and_the_others_go_on),
	BED_TEST(test_send_is_whole_however_slowly_the_peer_reads),
	BED_TEST(test_recv_is_zero_at_the_end_of_the_stream_and_data_comes_first),
	BED_TEST(test_shutdown_waits_for_the_send_in_flight),
	BED_TEST(test_shutdown_of_both_ends_a_recv_in_flight),
	BED_TEST(test_close_with_ops_in_flight_cancels_each_once),
	BED_TEST(test_cancelled_recv_leaves_the_socket_usable),
	BED_TEST(test_op_submitted_again_from_done_survives_an_old_cancel),
	BED_TEST(test_send_to_a_peer_that_is_gone_fails_without_a_signal),
	BED_TEST(test_socket_moves_to_another_loop),
	BED_TEST(test_many_connections_at_once),
	BED_TEST(test_random_use_ends_with_every_op_completed_once),
};
const size_t loop_suite_streams_count = ARRAY_COUNT(loop_suite_streams);
