#include "lib/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static _Thread_local struct logger *current;

struct logger *log_set_current(struct logger *logger)
{
	struct logger *before = current;

	current = logger;
	return before;
}

struct logger *log_current(void)
{
	return current;
}

static int stamp(char *out, size_t size)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
	return (int)n + snprintf(out + n, size - n, ".%03ldZ", ts.tv_nsec / 1000000);
}

/* One write(2) a line, so that lines of several threads never mix. */
static void write_line(const char *text, size_t n)
{
	ssize_t done = write(STDERR_FILENO, text, n);
	(void)done; /* there is nowhere left to say it */
}

void log_sink_text(struct logger *logger, enum log_level level, const char *line)
{
	char text[LOG_LINE_MAX + 64], when[48];

	stamp(when, sizeof(when));
	int n = snprintf(text, sizeof(text), "%s %s: %s\n", when, level_names[level], line);
	if (n > (int)sizeof(text) - 1)
		n = (int)sizeof(text) - 1;
	write_line(text, (size_t)n);
}

void log_sink_json(struct logger *logger, enum log_level level, const char *line)
{
	char text[6 * LOG_LINE_MAX + 128], when[48];
	size_t n;

	stamp(when, sizeof(when));
	n = (size_t)snprintf(text, sizeof(text), "{\"time\":\"%s\",\"level\":\"%s\",\"message\":\"",
			     when, level_names[level]);
	for (const unsigned char *c = (const unsigned char *)line; *c; c++) {
		if (*c == '"' || *c == '\\') {
			text[n++] = '\\';
			text[n++] = (char)*c;
		} else if (*c < 0x20 || *c == 0x7f) {
			n += (size_t)snprintf(text + n, 7, "\\u%04x", *c);
		} else {
			text[n++] = (char)*c;
		}
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\"}\n");
	write_line(text, n);
}

int log_level_parse(const char *name)
{
	for (int i = 0; i <= LOG_LEVEL_DEBUG; i++)
		if (strcmp(name, level_names[i]) == 0)
			return i;
	return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_would(enum log_level level)
{
	return level <= (current ? current->level : LOG_LEVEL_INFO);
}

void log_write(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_MAX];
	va_list ap;

	if (!log_would(level))
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (current && current->sink)
		current->sink(current, level, line);
	else
		log_sink_text(NULL, level, line);
}
