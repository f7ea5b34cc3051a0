/*
 * Endian types for every byte that leaves the process.
 *
 * le32 and friends are one-member structs around a sparse "bitwise" integer:
 * gcc, clang and sparse all refuse `req->pg = 5` and `if (req->pg)`. Values
 * go in and out by to_le32() and from_le32() only. The types have alignment 1,
 * so a struct of them never has padding and may be laid over any bytes.
 */
#ifndef PROTO_ENDIAN_H
#define PROTO_ENDIAN_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CHECKER__
#define PROTO_BITWISE __attribute__((bitwise))
#define PROTO_FORCE __attribute__((force))
#else
#define PROTO_BITWISE
#define PROTO_FORCE
#endif

#define PROTO_ENDIAN_TYPE(name, width, order)                                                      \
	typedef uint##width##_t PROTO_BITWISE name##_raw;                                          \
	typedef struct {                                                                           \
		name##_raw raw;                                                                    \
	} __attribute__((packed)) name;                                                            \
	static inline name to_##name(uint##width##_t value)                                        \
	{                                                                                          \
		return (name){(PROTO_FORCE name##_raw)hto##order##width(value)};                   \
	}                                                                                          \
	static inline uint##width##_t from_##name(name value)                                      \
	{                                                                                          \
		return order##width##toh((PROTO_FORCE uint##width##_t)value.raw);                  \
	}                                                                                          \
	_Static_assert(sizeof(name) == (width) / 8, "size of " #name)

PROTO_ENDIAN_TYPE(le16, 16, le);
PROTO_ENDIAN_TYPE(le32, 32, le);
PROTO_ENDIAN_TYPE(le64, 64, le);
PROTO_ENDIAN_TYPE(be16, 16, be);
PROTO_ENDIAN_TYPE(be32, 32, be);
PROTO_ENDIAN_TYPE(be64, 64, be);

/* Layouts are asserted where they are declared. */
#define WIRE_SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)
#define WIRE_OFFSET(type, field, offset)                                                           \
	_Static_assert(offsetof(type, field) == (offset), "offset of " #type "." #field)

#endif
