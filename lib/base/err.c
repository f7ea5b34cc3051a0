#include "lib/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const err_texts[] = {
#define ERR_TEXT(name, text) [name - ERR_FIRST] = text,
	ERR_LIST(ERR_TEXT)
#undef ERR_TEXT
};

const char *err_text(int code)
{
	if (code < 0)
		code = -code;
	if (code > ERR_FIRST && code < ERR_END)
		return err_texts[code - ERR_FIRST];
	const char *text = strerrordesc_np(code);
	return text ? text : "unknown error";
}

int error_set(struct error *err, int code, const char *format, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, format);
	int n = vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	if (code > -ERR_FIRST && code < 0 && (size_t)n < sizeof(err->text))
		snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", err_text(code));
	return code;
}

int error_wrap(struct error *err, int code, const char *format, ...)
{
	char inner[ERROR_TEXT_MAX];
	va_list ap;

	if (!err)
		return code;
	memcpy(inner, err->text, sizeof(inner));
	err->code = code;
	va_start(ap, format);
	int n = vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(err->text))
		snprintf(err->text + n, sizeof(err->text) - (size_t)n, ": %s", inner);
	return code;
}

int error_recode(struct error *err, int code)
{
	if (!err)
		return code;

	const char *tail = err_text(err->code);
	size_t length = strlen(err->text), tail_length = strlen(tail);

	if (err->code > -ERR_FIRST && length > tail_length + 2 &&
	    strcmp(err->text + length - tail_length, tail) == 0 &&
	    memcmp(err->text + length - tail_length - 2, ": ", 2) == 0)
		err->text[length - tail_length - 2] = '\0';
	err->code = code;
	return code;
}
