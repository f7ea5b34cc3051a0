/*
 * CRC32C (Castagnoli), by ISA-L. The standard value: crc32c("123456789") is
 * 0xe3069283 (RFC 3720, B.4).
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t size);
/* Go on from @crc, the value of the bytes before. */
uint32_t crc32c_extend(uint32_t crc, const void *data, size_t size);

#endif
