/* Disks of the model (sim_cpg.h): files that are appended to, made and removed. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_cpg_priv.h"

#define SLOW_NS (50 * NS_PER_MS) /* disks that are slow always have no slow moments besides */

static struct file *find(struct file *files, enum agree_file kind, uint64_t number)
{
	for (unsigned i = 0; i < FILES_MAX; i++)
		if (files[i].number == number && files[i].kind == kind && number)
			return &files[i];
	return NULL;
}

static void drop(struct file *file)
{
	free(file->data);
	*file = (struct file){0};
}

static struct file *make(struct node *node, enum agree_file kind, uint64_t number)
{
	struct file *file = find(node->files, kind, number);

	if (file) {
		drop(file);
	} else {
		for (file = node->files; file->number; file++)
			assert(file < node->files + FILES_MAX - 1);
	}
	*file = (struct file){.kind = kind, .number = number};
	return file;
}

static struct file *newest(struct node *node)
{
	struct file *best = NULL;

	for (unsigned i = 0; i < FILES_MAX; i++) {
		struct file *file = &node->files[i];

		if (file->number && file->kind == AGREE_FILE_LOG && !file->is_removed &&
		    (!best || file->number > best->number))
			best = file;
	}
	return best;
}

static void append(struct file *file, const uint8_t *data, size_t size)
{
	file->data = realloc(file->data, file->size + size + 1);
	memcpy(file->data + file->size, data, size);
	file->size += size;
}

/* A sync of the directory: names are as they look. */
static void names_are_durable(struct node *node)
{
	for (unsigned i = 0; i < FILES_MAX; i++) {
		node->files[i].is_named = node->files[i].number != 0;
		if (node->files[i].is_removed)
			drop(&node->files[i]);
	}
}

/* ---- operations ---- */

static void finish(struct node *node, struct write *write, enum agree_file kind)
{
	struct file *file = kind == AGREE_FILE_LOG && !write->is_next
				    ? newest(node)
				    : make(node, kind, write->number);

	append(file, write->data, write->size);
	file->synced = file->size;
	if (write->is_next)
		names_are_durable(node);
}

/* Not now: the process does not run any more, or it is stopped. */
static bool is_void(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;

	if (event->life != node->life)
		return true;
	if (!node->is_paused)
		return false;
	sim_cpg_at(sim, sim->now + 10 * NS_PER_MS, event->run, node);
	return true;
}

static void write_done(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;
	int rc = 0;

	if (is_void(sim, event))
		return;
	if (node->is_hanging) {
		node->write_waits = true;
		return;
	}
	if (node->fails_next)
		rc = -EIO;
	else
		finish(node, &node->write, AGREE_FILE_LOG);
	node->fails_next = false;
	node->write.is_on = false;
	agree_written(node->core, rc);
}

static void image_done(struct sim_cpg *sim, struct event *event)
{
	struct node *node = event->node;

	if (is_void(sim, event))
		return;
	if (node->is_hanging) {
		node->image_waits = true;
		return;
	}
	finish(node, &node->image, AGREE_FILE_IMAGE);
	node->image.is_on = false;
	agree_image_written(node->core, 0);
}

static uint64_t duration(struct sim_cpg *sim)
{
	uint64_t max = sim->options.write_max_ns ? sim->options.write_max_ns : 2 * NS_PER_MS;

	if (sim->slow_ns)
		return sim->slow_ns * 9 / 10 + sim_cpg_below(sim, sim->slow_ns / 5);
	if (sim_cpg_below(sim, 100) == 0 && max < SLOW_NS)
		max *= 30;
	return 50 * NS_PER_US + sim_cpg_below(sim, max);
}

static void begin(struct node *node, struct write *write, bool is_next, uint64_t number,
		  const void *data, size_t size)
{
	struct sim_cpg *sim = node->sim;

	assert(!write->is_on);
	*write = (struct write){true, is_next, number, data, size};
	sim_cpg_at(sim, sim->now + duration(sim), write == &node->write ? write_done : image_done,
		   node);
}

void disk_write(void *context, const void *data, size_t size)
{
	struct node *node = context;

	begin(node, &node->write, false, 0, data, size);
}

void disk_write_next(void *context, uint64_t number, const void *data, size_t size)
{
	struct node *node = context;

	begin(node, &node->write, true, number, data, size);
}

void disk_write_image(void *context, uint64_t number, const void *data, size_t size)
{
	struct node *node = context;

	begin(node, &node->image, true, number, data, size);
}

void disk_remove_below(void *context, enum agree_file kind, uint64_t number)
{
	struct node *node = context;

	for (unsigned i = 0; i < FILES_MAX; i++)
		if (node->files[i].number && node->files[i].kind == kind &&
		    node->files[i].number < number)
			node->files[i].is_removed = true;
}

int disk_read(void *context, enum agree_file kind, uint64_t number, void **data, size_t *size)
{
	struct node *node = context;
	struct file *file = find(node->files, kind, number);

	if (!file || file->is_removed)
		return -ENOENT;
	names_are_durable(node);
	file = find(node->files, kind, number);
	file->synced = file->size;
	*data = malloc(file->size + 1);
	memcpy(*data, file->data ? file->data : (uint8_t *)"", file->size);
	*size = file->size;
	return 0;
}

uint32_t disk_numbers(struct node *node, uint64_t *numbers)
{
	uint32_t count = 0;

	for (unsigned i = 0; i < FILES_MAX; i++) {
		const struct file *file = &node->files[i];
		uint32_t at = count;

		if (!file->number || file->kind != AGREE_FILE_LOG || file->is_removed)
			continue;
		for (; at && numbers[at - 1] > file->number; at--)
			numbers[at] = numbers[at - 1];
		numbers[at] = file->number;
		count++;
	}
	return count;
}

/* ---- faults ---- */

/* A write in flight: nothing, all, or parts of it. */
static void finish_in_part(struct node *node, struct write *write, enum agree_file kind)
{
	struct sim_cpg *sim = node->sim;
	bool is_append = kind == AGREE_FILE_LOG && !write->is_next;
	struct file *file;
	size_t size = write->size;

	if (!write->is_on)
		return;
	write->is_on = false;
	if (sim_cpg_below(sim, 3) == 0 || (is_append && !newest(node)))
		return;
	file = is_append ? newest(node) : make(node, kind, write->number);
	if (sim_cpg_below(sim, 2))
		size = sim_cpg_below(sim, size + 1);
	append(file, write->data, size);
}

void disk_killed(struct node *node)
{
	finish_in_part(node, &node->write, AGREE_FILE_LOG);
	finish_in_part(node, &node->image, AGREE_FILE_IMAGE);
	node->write_waits = node->image_waits = false;
}

/* Each sector that was not synced may have become anything that it was. */
static void tear(struct sim_cpg *sim, struct file *file)
{
	size_t size = file->synced + sim_cpg_below(sim, file->size - file->synced + 1);

	for (size_t at = file->synced; at < size; at = (at | 511) + 1)
		if (sim_cpg_below(sim, 2))
			memset(file->data + at, 0, min_of((at | 511) + 1, size) - at);
	file->size = size;
}

void disk_cut(struct node *node)
{
	struct sim_cpg *sim = node->sim;

	disk_killed(node);
	for (unsigned i = 0; i < FILES_MAX; i++) {
		struct file *file = &node->files[i];

		if (!file->number)
			continue;
		tear(sim, file);
		file->synced = file->size;
		if (!file->is_named && sim_cpg_below(sim, 2)) {
			drop(file);
			continue;
		}
		if (file->is_removed && sim_cpg_below(sim, 2)) {
			drop(file);
			continue;
		}
		file->is_removed = false;
		file->is_named = true;
	}
}

void disk_free(struct file *files)
{
	for (unsigned i = 0; i < FILES_MAX; i++)
		drop(&files[i]);
}

void sim_cpg_blank_disk(struct sim_cpg *sim, unsigned node)
{
	assert(!sim->nodes[node].core);
	disk_free(sim->nodes[node].files);
}

void sim_cpg_hang_disk(struct sim_cpg *sim, unsigned number, bool is_hanging)
{
	struct node *node = &sim->nodes[number];

	node->is_hanging = is_hanging;
	if (is_hanging)
		return;
	if (node->write_waits)
		sim_cpg_at(sim, sim->now, write_done, node);
	if (node->image_waits)
		sim_cpg_at(sim, sim->now, image_done, node);
	node->write_waits = node->image_waits = false;
}

void sim_cpg_fail_disk(struct sim_cpg *sim, unsigned node)
{
	sim->nodes[node].fails_next = true;
}

static void copy(struct file *to, const struct file *from)
{
	disk_free(to);
	for (unsigned i = 0; i < FILES_MAX; i++) {
		to[i] = from[i];
		to[i].data = NULL;
		to[i].size = 0;
		if (from[i].number)
			append(&to[i], from[i].data ? from[i].data : (uint8_t *)"", from[i].size);
	}
}

void sim_cpg_save_disk(struct sim_cpg *sim, unsigned node)
{
	copy(sim->nodes[node].saved, sim->nodes[node].files);
}

void sim_cpg_slow_disks(struct sim_cpg *sim, uint64_t ns)
{
	sim->slow_ns = ns;
}

void sim_cpg_clone_disk(struct sim_cpg *sim, unsigned from, unsigned to)
{
	assert(!sim->nodes[to].core);
	copy(sim->nodes[to].files, sim->nodes[from].files);
}

void sim_cpg_restore_disk(struct sim_cpg *sim, unsigned node)
{
	assert(!sim->nodes[node].core);
	copy(sim->nodes[node].files, sim->nodes[node].saved);
}

uint8_t *sim_cpg_log_bytes(struct sim_cpg *sim, unsigned node, size_t *size)
{
	struct file *file = newest(&sim->nodes[node]);

	*size = file ? file->size : 0;
	return file ? file->data : NULL;
}
