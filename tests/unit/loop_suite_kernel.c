/* What only a real kernel shows: descriptors, full rings, refusals, and things done by half. */
#include "lib/base/text.h"
#include "tests/unit/loop_suite.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the kernel's own ---- */

static void test_poll_sees_a_descriptor_of_others(void **state)
{
	struct bed *bed = *state;
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t one = 1;
	struct call call = {0};

	loop_poll(bed->loop, call_begin(&call), fd, POLLIN);
	bed_turn(bed);
	assert_int_equal(call.completions, 0);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_true(call_wait(bed, &call) & POLLIN);
	assert_int_equal(read(fd, &one, sizeof(one)), sizeof(one));
	loop_poll(bed->loop, call_begin(&call), fd, POLLIN);
	bed_turn(bed);
	loop_cancel(bed->loop, &call.op);
	assert_int_equal(call_wait(bed, &call), -ECANCELED);
	(void)close(fd);
}

/* The names in a directory are synced like a file. */
static void test_directory_is_synced(void **state)
{
	struct bed *bed = *state;
	struct call opened = {0}, synced = {0};

	assert_int_equal(loop_sync_mkdir(bed->loop, bed_path(bed, "names")), 0);
	loop_file_open(bed->loop, call_begin(&opened), bed_path(bed, "names"), LOOP_FILE_READ);
	assert_int_equal(call_wait(bed, &opened), 0);
	loop_file_sync_all(bed->loop, call_begin(&synced), opened.op.out.file);
	assert_int_equal(call_wait(bed, &synced), 0);
	loop_file_close(bed->loop, opened.op.out.file);
}

static void test_abandoned_unix_socket_is_replaced_and_another_file_is_not(void **state)
{
	struct bed *bed = *state;
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	const char *path = bed->unix_address + 5;
	struct loop_listener *listener;
	struct error err = {0};
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	(void)close(fd);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(loop_listen(bed->loop, bed->unix_address, &listener, &err), 0);
	loop_listener_close(bed->loop, listener);
	assert_int_equal(stat(path, &st), -1);

	FILE *file = fopen(path, "w");
	assert_non_null(file);
	(void)fclose(file);
	assert_int_equal(loop_listen(bed->loop, bed->unix_address, &listener, &err), -EADDRINUSE);
	assert_int_equal(stat(path, &st), 0);
}

/* A file that another process has put in our place is not ours to remove. */
static void test_closing_leaves_a_unix_socket_that_is_not_its_own(void **state)
{
	struct bed *bed = *state;
	const char *path = bed->unix_address + 5;
	struct loop_listener *first, *second;
	struct error err = {0};
	struct stat st;

	assert_int_equal(loop_listen(bed->loop, bed->unix_address, &first, &err), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(loop_listen(bed->loop, bed->unix_address, &second, &err), 0);
	loop_listener_close(bed->loop, first);
	assert_int_equal(stat(path, &st), 0);
	loop_listener_close(bed->loop, second);
	assert_int_equal(stat(path, &st), -1);
}

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	(void)closedir(dir);
	return count;
}

static void test_no_descriptor_is_left_behind(void **state)
{
	struct bed *bed = *state;
	struct iovec in = {(char[8]){0}, 8};
	unsigned before;

	bed_turn(bed);
	before = open_descriptors();
	for (unsigned i = 0; i < 10; i++) {
		struct loop_socket *sockets[2];
		struct call recv = {0}, connect = {0};

		bed_connect(bed, bed->tcp_any, sockets);
		loop_recv(bed->loop, call_begin(&recv), sockets[0], &in, 1);
		bed_turn(bed);
		loop_socket_close(bed->loop, sockets[0]);
		loop_socket_close(bed->loop, sockets[1]);
		assert_int_equal(call_wait(bed, &recv), -ECANCELED);
		loop_connect(bed->loop, call_begin(&connect), bed->tcp_dead);
		assert_int_equal(call_wait(bed, &connect), -ECONNREFUSED);
	}
	assert_int_equal(open_descriptors(), before);
}

/* ---- io_uring forbidden, as in many containers ---- */

static bool text_has(const char *text, const char *a, const char *b)
{
	return strstr(text, a) && strstr(text, b);
}

/*
 * In a process of its own: system call @number fails with @error from now on. 1: epoll it is.
 */
static int loop_new_without(int number, int error, enum loop_backend_kind kind, struct error *err)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = ARRAY_COUNT(filter), .filter = filter};
	struct loop *loop;
	int rc;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(3);
	rc = loop_new(&(struct loop_options){.backend = kind}, &loop, err);
	if (rc == 0) {
		rc = strcmp(loop_backend_name(loop), "epoll") == 0;
		loop_free(loop);
	}
	return rc;
}

static void check_forbidden(int number, int error, const char *says, const char *advises)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = {0};
		int rc = loop_new_without(number, error, LOOP_BACKEND_URING, &err);

		_exit(rc < 0 && text_has(err.text, says, advises) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void test_loop_where_io_uring_is_forbidden_says_what_to_do(void **state)
{
	check_forbidden(__NR_io_uring_setup, EPERM, "kernel.io_uring_disabled", "seccomp");
	check_forbidden(__NR_io_uring_setup, ENOSYS, "Linux 5.11", "seccomp");
	check_forbidden(__NR_io_uring_setup, ENOMEM, "ulimit -l", "memory");
	check_forbidden(__NR_io_uring_register, EPERM, "io_uring_register", "seccomp");
}

static void check_auto(int number, int error, int expected)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = {0};

		_exit(loop_new_without(number, error, LOOP_BACKEND_AUTO, &err) == expected ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* What ran out is an error: epoll would only hide it. */
static void test_auto_takes_epoll_where_io_uring_is_forbidden_only(void **state)
{
	check_auto(__NR_io_uring_setup, EPERM, 1);
	check_auto(__NR_io_uring_setup, ENOSYS, 1);
	check_auto(__NR_io_uring_register, EPERM, 1);
	check_auto(__NR_io_uring_setup, ENOMEM, -ENOMEM);
}

/* ---- a full ring ---- */

enum { SLOTS = 512, CROWD = 700 }; /* as many as the ring has, and more */

/* What waits for a slot must not sleep with those who hold them. */
static void test_op_behind_a_ring_full_of_sleepers_runs(void **state)
{
	struct bed *bed = *state;
	struct call *polls = calloc(CROWD, sizeof(*polls)), read = {0};
	struct iovec iov = {(char[4]){0}, 4};
	struct loop_file *file;
	struct error err = {0};
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t began_ns;

	bed_turn(bed);
	began_ns = loop_now(bed->loop);
	assert_int_equal(loop_sync_open(bed->loop, bed_path(bed, "f"),
					LOOP_FILE_READ | LOOP_FILE_CREATE, &file, &err),
			 0);
	for (unsigned i = 0; i < CROWD; i++)
		loop_poll(bed->loop, call_begin(&polls[i]), fd, POLLIN);
	loop_file_read(bed->loop, call_begin(&read), file, &iov, 1, 0);
	for (unsigned i = 0; i < 10 && !read.completions; i++)
		assert_int_equal(loop_turn(bed->loop, began_ns + 5 * NS_PER_S), 0);
	assert_int_equal(read.completions, 1);
	assert_true(loop_now(bed->loop) < began_ns + 4 * NS_PER_S);
	for (unsigned i = 0; i < CROWD; i++)
		loop_cancel(bed->loop, &polls[i].op);
	for (unsigned i = 0; i < CROWD; i++) {
		BED_UNTIL(bed, polls[i].completions);
		assert_int_equal(polls[i].result, -ECANCELED);
	}
	loop_file_close(bed->loop, file);
	free(polls);
	(void)close(fd);
}

struct late_letter {
	struct loop_mail mail;
	struct loop *to;
	bool is_delivered;
};

static void on_late_letter(struct loop *loop, struct loop_mail *mail)
{
	container_of_type(mail, struct late_letter, mail)->is_delivered = true;
}

static void *post_late(void *argument)
{
	struct late_letter *letter = argument;

	usleep(50000);
	loop_post(letter->to, &letter->mail);
	return NULL;
}

/* The trap: the first turn finds every slot taken, and none left for what hears wakeups. */
static void test_wakeup_reaches_a_loop_whose_ring_was_full_at_first(void **state)
{
	struct bed *bed = *state;
	struct late_letter letter = {.mail.deliver = on_late_letter, .to = bed->loop};
	struct call *polls = calloc(CROWD, sizeof(*polls));
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t began_ns = loop_now(bed->loop);
	pthread_t thread;

	for (unsigned i = 0; i < SLOTS; i++)
		loop_poll(bed->loop, call_begin(&polls[i]), fd, POLLIN);
	assert_int_equal(pthread_create(&thread, NULL, post_late, &letter), 0);
	for (unsigned i = 0; i < 10 && !letter.is_delivered; i++)
		assert_int_equal(loop_turn(bed->loop, began_ns + 5 * NS_PER_S), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_true(loop_now(bed->loop) < began_ns + 4 * NS_PER_S);
	for (unsigned i = 0; i < SLOTS; i++)
		loop_cancel(bed->loop, &polls[i].op);
	for (unsigned i = 0; i < SLOTS; i++)
		BED_UNTIL(bed, polls[i].completions);
	free(polls);
	(void)close(fd);
}

/* The trap: cancels that find the ring full, of ops that end before there is room for them. */
static void test_cancels_that_come_too_late_leave_nothing_behind(void **state)
{
	struct bed *bed = *state;
	struct call *polls = calloc(CROWD, sizeof(*polls));
	int fd = eventfd(1, EFD_CLOEXEC); /* ready at once */
	uint64_t until_ns;

	for (unsigned i = 0; i < CROWD; i++)
		loop_poll(bed->loop, call_begin(&polls[i]), fd, POLLIN);
	for (unsigned i = 0; i < CROWD; i++)
		loop_cancel(bed->loop, &polls[i].op);
	for (unsigned i = 0; i < CROWD; i++) {
		BED_UNTIL(bed, polls[i].completions);
		assert_int_equal(polls[i].completions, 1);
		assert_true(polls[i].result == -ECANCELED || polls[i].result == POLLIN);
	}
	for (unsigned i = 0; i < 5; i++)
		bed_turn(bed);
	until_ns = loop_now(bed->loop) + 5 * NS_PER_MS;
	assert_int_equal(loop_turn(bed->loop, until_ns), 0);
	assert_true(loop_now(bed->loop) >= until_ns);
	free(polls);
	(void)close(fd);
}

/* ---- dialling ourselves ---- */

/*
 * Source ports are handed out in turn, so that one of these dials would get the
 * very port that it dials; such a connection succeeds, and nobody listens.
 */
static void test_dial_of_a_free_port_never_reaches_itself(void **state)
{
	struct bed *bed = *state;
	enum { AT_ONCE = 100, ROUNDS = 150 };
	struct call *dials = calloc(AT_ONCE, sizeof(*dials));
	struct loop_listener *listener;
	struct error err = {0};
	char address[32];
	uint64_t port;
	bool connected = false;

	assert_int_equal(loop_listen(bed->loop, bed->tcp_any, &listener, &err), 0);
	assert_int_equal(
		text_parse_u64(strrchr(loop_listener_address(listener), ':') + 1, 65535, &port), 0);
	loop_listener_close(bed->loop, listener);
	(void)snprintf(address, sizeof(address), "127.0.0.1:%u", (unsigned)port ^ 1u);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < AT_ONCE; i++)
			loop_connect(bed->loop, call_begin(&dials[i]), address);
		for (unsigned i = 0; i < AT_ONCE; i++) {
			BED_UNTIL(bed, dials[i].completions);
			connected |= dials[i].result == 0;
			if (dials[i].result == 0)
				loop_socket_close(bed->loop, dials[i].op.out.socket);
		}
	}
	/* Unless somebody else began to listen there: then it goes on working. */
	if (connected) {
		loop_connect(bed->loop, call_begin(&dials[0]), address);
		assert_int_equal(call_wait(bed, &dials[0]), 0);
		loop_socket_close(bed->loop, dials[0].op.out.socket);
	}
	free(dials);
}

/* ---- what the kernel does only half ---- */

/* The file may grow by half of the write: the first half is written, the rest is not. */
static void test_write_that_does_not_fit_is_an_error_not_a_short_count(void **state)
{
	struct bed *bed = *state;
	struct rlimit limit, small = {.rlim_cur = 64 * KIB};
	uint8_t *data = calloc(1, 64 * KIB);
	struct iovec iov = {data, 64 * KIB};
	struct call call = {0};
	struct loop_file *file;
	struct error err = {0};

	assert_int_equal(loop_sync_open(bed->loop, bed_path(bed, "f"),
					LOOP_FILE_WRITE | LOOP_FILE_CREATE, &file, &err),
			 0);
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small.rlim_max = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	loop_file_write(bed->loop, call_begin(&call), file, &iov, 1, 32 * KIB);
	int rc = call_wait(bed, &call);
	int sync_rc = loop_sync_write(bed->loop, file, data, 64 * KIB, 32 * KIB);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(rc, -EFBIG);
	assert_int_equal(sync_rc, -EFBIG);
	assert_int_equal(loop_sync_size(bed->loop, file), 64 * KIB);
	loop_file_close(bed->loop, file);
	free(data);
}

/*
 * Files of /proc give a page or so at a time: the one place where short reads
 * in the middle are sure to come, and end within a vector.
 */
static void test_read_goes_on_after_a_short_count(void **state)
{
	struct bed *bed = *state;
	enum { COUNT = 5, EACH = 46621 };
	uint8_t *data = calloc(COUNT, EACH), *plain = calloc(COUNT, EACH);
	struct iovec iov[COUNT];
	struct call call = {0};
	struct loop_file *file;
	struct error err = {0};
	int fd = open("/proc/kallsyms", O_RDONLY | O_CLOEXEC);
	ssize_t first = fd < 0 ? 0 : read(fd, plain, COUNT * EACH);

	if (fd >= 0)
		(void)close(fd);
	if (first <= 0 || first == COUNT * EACH) {
		free(data);
		free(plain);
		skip();
	}
	assert_int_equal(loop_sync_open(bed->loop, "/proc/kallsyms", LOOP_FILE_READ, &file, &err),
			 0);
	for (unsigned i = 0; i < COUNT; i++)
		iov[i] = (struct iovec){data + i * EACH, EACH};
	loop_file_read(bed->loop, call_begin(&call), file, iov, COUNT, 0);
	assert_int_equal(call_wait(bed, &call), COUNT * EACH);
	assert_int_equal(loop_sync_read(bed->loop, file, plain, COUNT * EACH, 0), COUNT * EACH);
	assert_memory_equal(data, plain, COUNT * EACH);
	loop_file_close(bed->loop, file);
	free(data);
	free(plain);
}

const struct CMUnitTest loop_suite_kernel[] = {
	BED_TEST(test_poll_sees_a_descriptor_of_others),
	BED_TEST(test_directory_is_synced),
	BED_TEST(test_abandoned_unix_socket_is_replaced_and_another_file_is_not),
	BED_TEST(test_closing_leaves_a_unix_socket_that_is_not_its_own),
	BED_TEST(test_no_descriptor_is_left_behind),
	BED_TEST(test_loop_where_io_uring_is_forbidden_says_what_to_do),
	BED_TEST(test_auto_takes_epoll_where_io_uring_is_forbidden_only),
	BED_TEST(test_op_behind_a_ring_full_of_sleepers_runs),
	BED_TEST(test_wakeup_reaches_a_loop_whose_ring_was_full_at_first),
	BED_TEST(test_cancels_that_come_too_late_leave_nothing_behind),
	BED_TEST(test_dial_of_a_free_port_never_reaches_itself),
	BED_TEST(test_write_that_does_not_fit_is_an_error_not_a_short_count),
	BED_TEST(test_read_goes_on_after_a_short_count),
};
const size_t loop_suite_kernel_count = ARRAY_COUNT(loop_suite_kernel);
