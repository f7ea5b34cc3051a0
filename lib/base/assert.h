/*
 * assert() states what we guarantee, and stays on in every build. Bytes from a
 * peer, a client or a disk are never asserted: they are answered.
 */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#ifdef NDEBUG
#error "assertions stay on: do not build with NDEBUG"
#endif
#include <assert.h>

#endif
