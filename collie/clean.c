#include "collie/clean.h"

#include <locale.h>
#include <stdbool.h>
#include <string.h>
#include <wchar.h>

#include "lib/base/text.h"

/* The length of the clean character at @text, 0 if there is none. */
static size_t character_length(const char *text, size_t size)
{
	for (size_t n = 1; n <= 4 && n <= size; n++)
		if (text_is_clean(text, n))
			return n;
	return 0;
}

size_t clean_copy(char *out, size_t out_size, const char *text, size_t size)
{
	size_t used = 0;

	while (size > 0) {
		size_t n = character_length(text, size);
		size_t take = n ? n : 1;
		if (used + take >= out_size)
			break;
		if (n)
			memcpy(out + used, text, n);
		else
			out[used] = '?';
		used += take;
		text += take;
		size -= take;
	}
	out[used] = '\0';
	return used;
}

static bool is_ascii(const char *text)
{
	while (*text && !(*text & 0x80))
		text++;
	return !*text;
}

size_t clean_width(const char *text)
{
	if (is_ascii(text))
		return strlen(text);

	/* Whatever the user's locale is: the text is UTF-8. */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
	locale_t before = utf8 ? uselocale(utf8) : NULL;
	mbstate_t state = {0};
	size_t width = 0, size = strlen(text);

	while (size > 0) {
		wchar_t wide;
		size_t n = utf8 ? mbrtowc(&wide, text, size, &state) : character_length(text, size);
		if (n == 0 || n > size) {
			memset(&state, 0, sizeof(state));
			n = 1;
			width++;
		} else {
			int columns = utf8 ? wcwidth(wide) : 1;
			width += columns < 0 ? 1 : (size_t)columns;
		}
		text += n;
		size -= n;
	}
	if (utf8) {
		uselocale(before);
		freelocale(utf8);
	}
	return width;
}
