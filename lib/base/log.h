/*
 * Logging: one line per state change, none per request.
 *
 * The thread's current logger decides where lines go. A loop makes its own
 * logger current while it runs, so that a test with five daemons in one process
 * can tell them apart, and so that time stamps come from virtual time. Without
 * a current logger lines go to standard error at level info.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct logger {
	enum log_level level; /* lines above this level are dropped */
	/* Writes one line, without a newline; may be called from any thread that made it current. */
	void (*sink)(struct logger *logger, enum log_level level, const char *line);
	void *context; /* of the sink */
};

/* Make @logger (borrowed; NULL: the default) this thread's logger. Returns the one before. */
struct logger *log_set_current(struct logger *logger);
struct logger *log_current(void);

/* A sink for standard error: text lines with an RFC 3339 time stamp and the level. */
void log_sink_text(struct logger *logger, enum log_level level, const char *line);
/* The same as one JSON object per line. */
void log_sink_json(struct logger *logger, enum log_level level, const char *line);

/* "error", "warning", "info" or "debug" to a level; -EINVAL. */
int log_level_parse(const char *name);
const char *log_level_name(enum log_level level);

int log_would(enum log_level level);
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)	 log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                           \
	do {                                                     \
		if (log_would(LOG_LEVEL_DEBUG))                  \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__); \
	} while (0)

#endif
