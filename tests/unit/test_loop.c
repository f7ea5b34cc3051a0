/* The loop on io_uring: the common suite, and what only real threads and files show. */
#include "tests/unit/loop_suite.h"

#include <dirent.h>
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

static struct loop *new_loop(struct bed *bed, const struct loop_options *options)
{
	struct error err = {0};
	struct loop *loop;

	if (loop_new(options, &loop, &err) < 0)
		fail_msg("%s", err.text);
	return loop;
}

int bed_setup(void **state)
{
	struct bed *bed = calloc(1, sizeof(*bed));

	bed->new_loop = new_loop;
	bed->tcp_any = "127.0.0.1:0";
	bed->tcp_dead = "127.0.0.1:1";
	/* Not /tmp, which may be a tmpfs: O_DIRECT is to be met where the build is. */
	(void)snprintf(bed->directory, sizeof(bed->directory), "test_loop.------");
	memset(strchr(bed->directory, '-'), 'X', 6);
	assert_non_null(mkdtemp(bed->directory));
	(void)snprintf(bed->unix_address, sizeof(bed->unix_address), "unix:%s/socket",
		       bed->directory);
	bed->loop = new_loop(bed, &(struct loop_options){.name = "test"});
	*state = bed;
	return 0;
}

static void remove_all(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	char name[512];

	while (dir && (entry = readdir(dir))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (unlink(name) < 0)
			remove_all(name);
	}
	if (dir)
		(void)closedir(dir);
	(void)rmdir(path);
}

int bed_teardown(void **state)
{
	struct bed *bed = *state;

	loop_free(bed->other);
	loop_free(bed->loop);
	remove_all(bed->directory);
	free(bed);
	return 0;
}

/* ---- threads ---- */

enum { SENDERS = 3, LETTERS = 20000 };

struct letter {
	struct loop_mail mail;
	unsigned sender;
	unsigned number;
};

struct office {
	struct loop *loop;
	unsigned next[SENDERS];
	unsigned delivered;
	bool is_ordered;
	pthread_t owner;
	bool is_on_owner;
};

struct sender {
	struct office *office;
	struct letter *letters;
	unsigned index;
};

static struct office *office; /* of the one test that runs; deliver() has no context */

static void on_letter(struct loop *loop, struct loop_mail *mail)
{
	struct letter *letter = container_of_type(mail, struct letter, mail);

	office->is_ordered &= letter->number == office->next[letter->sender]++;
	office->is_on_owner &= pthread_equal(pthread_self(), office->owner);
	office->delivered++;
	if (office->delivered == SENDERS * LETTERS)
		loop_stop(loop);
}

static void *send_letters(void *argument)
{
	struct sender *sender = argument;

	for (unsigned i = 0; i < LETTERS; i++) {
		sender->letters[i] = (struct letter){
			.mail.deliver = on_letter, .sender = sender->index, .number = i};
		loop_post(sender->office->loop, &sender->letters[i].mail);
		if (i % 1000 == 0)
			usleep(100); /* lets the loop fall asleep */
	}
	return NULL;
}

static void *run_loop(void *argument)
{
	struct office *mine = argument;

	mine->owner = pthread_self();
	return (void *)(intptr_t)loop_run(mine->loop);
}

/* A lost wakeup shows as a test that never ends. */
static void check_mail_from_threads(struct bed *bed, uint32_t busy_poll_us)
{
	struct office mine = {.is_ordered = true, .is_on_owner = true};
	struct sender senders[SENDERS];
	pthread_t threads[SENDERS], runner;
	void *rc;

	office = &mine;
	mine.loop = new_loop(bed, &(struct loop_options){.busy_poll_us = busy_poll_us});
	assert_int_equal(pthread_create(&runner, NULL, run_loop, &mine), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){&mine, calloc(LETTERS, sizeof(struct letter)), i};
		assert_int_equal(pthread_create(&threads[i], NULL, send_letters, &senders[i]), 0);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(pthread_join(runner, &rc), 0);
	assert_null(rc);
	assert_int_equal(mine.delivered, SENDERS * LETTERS);
	assert_true(mine.is_ordered);
	assert_true(mine.is_on_owner);
	for (unsigned i = 0; i < SENDERS; i++)
		free(senders[i].letters);
	loop_free(mine.loop);
}

static void test_mail_from_several_threads_is_whole_and_ordered_per_sender(void **state)
{
	check_mail_from_threads(*state, 0);
}

static void test_mail_reaches_a_loop_that_polls_busily(void **state)
{
	check_mail_from_threads(*state, 50);
}

struct bouncer {
	struct loop_mail mail;
	struct loop *loops[2];
	unsigned left;
};

static void on_bounce(struct loop *loop, struct loop_mail *mail)
{
	struct bouncer *bouncer = container_of_type(mail, struct bouncer, mail);
	struct loop *to = bouncer->loops[loop == bouncer->loops[0]];

	if (bouncer->left-- > 0) {
		loop_post(to, mail);
	} else {
		loop_stop(bouncer->loops[0]);
		loop_stop(bouncer->loops[1]);
	}
}

/* Each hop finds the other loop asleep or about to sleep: the window in which a wakeup can be lost. */
static void test_two_running_loops_bounce_a_message(void **state)
{
	struct bed *bed = *state;
	struct bouncer bouncer = {.mail.deliver = on_bounce, .left = 20000};
	struct office offices[2] = {0};
	pthread_t threads[2];

	for (unsigned i = 0; i < 2; i++)
		offices[i].loop = bouncer.loops[i] = new_loop(bed, &(struct loop_options){0});
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_loop, &offices[i]), 0);
	loop_post(bouncer.loops[0], &bouncer.mail);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	loop_free(bouncer.loops[0]);
	loop_free(bouncer.loops[1]);
}

struct starter {
	struct loop_timer timer;
	struct call recv;
	struct loop *loop;
};

static void on_start_over(struct loop_timer *timer)
{
	struct starter *starter = container_of_type(timer, struct starter, timer);

	if (starter->recv.completions)
		loop_stop(starter->loop);
	else
		loop_timer_start(starter->loop, timer, loop_now(starter->loop) + NS_PER_MS);
}

static void test_ops_submitted_before_the_loop_has_a_thread_run_on_it(void **state)
{
	struct bed *bed = *state;
	struct starter starter = {.timer.fire = on_start_over};
	struct office mine = {0};
	struct loop_socket *sockets[2];
	struct iovec in = {(char[4]){0}, 4}, out = {(char[]){"abcd"}, 4};
	struct call send = {0};
	pthread_t thread;

	mine.loop = starter.loop = new_loop(bed, &(struct loop_options){0});
	assert_int_equal(loop_socket_pair(mine.loop, &sockets[0], &sockets[1]), 0);
	loop_recv(mine.loop, call_begin(&starter.recv), sockets[0], &in, 1);
	loop_send(mine.loop, call_begin(&send), sockets[1], &out, 1);
	loop_timer_start(mine.loop, &starter.timer, 0);
	assert_int_equal(pthread_create(&thread, NULL, run_loop, &mine), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(starter.recv.result, 4);
	loop_socket_close(mine.loop, sockets[0]);
	loop_socket_close(mine.loop, sockets[1]);
	loop_free(mine.loop);
}

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

static uint64_t thread_cpu_ns(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * NS_PER_S +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * NS_PER_US;
}

/* Rule 6 of the promise, cost follows work: polling stops where it does not pay. */
static void test_idle_loop_that_may_poll_does_not(void **state)
{
	struct bed *bed = *state;
	struct loop *loop = new_loop(bed, &(struct loop_options){.busy_poll_us = 10000});
	struct call call = {0};
	uint64_t before;

	for (unsigned i = 0; i < 100; i++) { /* a busy time first */
		loop_complete(loop, call_begin(&call), 0);
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
	}
	before = thread_cpu_ns();
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(loop_turn(loop, loop_now(loop) + 20 * NS_PER_MS), 0);
	assert_true(thread_cpu_ns() - before < 60 * NS_PER_MS); /* it would be 100 or more */
	loop_free(loop);
}

/* ---- io_uring forbidden, as in many containers ---- */

static bool text_has(const char *text, const char *a, const char *b)
{
	return strstr(text, a) && strstr(text, b);
}

/* In a process of its own: system call @number fails with @error from now on. */
static int loop_new_without(int number, int error, struct error *err)
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
	rc = loop_new(&(struct loop_options){0}, &loop, err);
	if (rc == 0)
		loop_free(loop);
	return rc;
}

static void check_forbidden(int number, int error, const char *says, const char *advises)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct error err = {0};
		int rc = loop_new_without(number, error, &err);

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

static void on_signal(int number)
{
}

/* A handler on the loop's thread interrupts its wait; nothing else happens. */
static void test_signals_do_not_disturb_a_running_loop(void **state)
{
	struct bed *bed = *state;
	struct sigaction action = {.sa_handler = on_signal};
	struct office mine = {.loop = new_loop(bed, &(struct loop_options){0})};
	pthread_t runner;
	void *rc;

	assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
	assert_int_equal(pthread_create(&runner, NULL, run_loop, &mine), 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(pthread_kill(runner, SIGUSR1), 0);
		usleep(200);
	}
	loop_stop(mine.loop);
	assert_int_equal(pthread_join(runner, &rc), 0);
	assert_null(rc);
	loop_free(mine.loop);
}

static void test_epoll_is_refused_with_a_text(void **state)
{
	struct loop *loop;
	struct error err = {0};

	assert_true(loop_new(&(struct loop_options){.backend = LOOP_BACKEND_EPOLL}, &loop, &err) <
		    0);
	assert_non_null(strstr(err.text, "epoll"));
}

static const struct CMUnitTest tests_of_real_loops[] = {
	BED_TEST(test_mail_from_several_threads_is_whole_and_ordered_per_sender),
	BED_TEST(test_mail_reaches_a_loop_that_polls_busily),
	BED_TEST(test_two_running_loops_bounce_a_message),
	BED_TEST(test_ops_submitted_before_the_loop_has_a_thread_run_on_it),
	BED_TEST(test_poll_sees_a_descriptor_of_others),
	BED_TEST(test_abandoned_unix_socket_is_replaced_and_another_file_is_not),
	BED_TEST(test_closing_leaves_a_unix_socket_that_is_not_its_own),
	BED_TEST(test_no_descriptor_is_left_behind),
	BED_TEST(test_idle_loop_that_may_poll_does_not),
	BED_TEST(test_loop_where_io_uring_is_forbidden_says_what_to_do),
	BED_TEST(test_write_that_does_not_fit_is_an_error_not_a_short_count),
	BED_TEST(test_signals_do_not_disturb_a_running_loop),
	BED_TEST(test_epoll_is_refused_with_a_text),
};

int main(void)
{
	struct error err = {0};
	struct loop *probe;
	int failed = 0;

	if (loop_new(&(struct loop_options){0}, &probe, &err) < 0) {
		(void)fprintf(stderr, "skipped: %s\n", err.text);
		return 77;
	}
	loop_free(probe);
	failed +=
		_cmocka_run_group_tests("core", loop_suite_core, loop_suite_core_count, NULL, NULL);
	failed += _cmocka_run_group_tests("files", loop_suite_files, loop_suite_files_count, NULL,
					  NULL);
	failed += _cmocka_run_group_tests("streams", loop_suite_streams, loop_suite_streams_count,
					  NULL, NULL);
	failed += cmocka_run_group_tests_name("io_uring", tests_of_real_loops, NULL, NULL);
	return failed != 0;
}
