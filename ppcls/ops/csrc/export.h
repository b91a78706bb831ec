// Names of exported functions end in the scalar's: ppcls_chain_forward_f32.
#pragma once

#include <cstdint>
#include <new>

#define PPCLS_JOIN(a, b) a##b
#define PPCLS_SUFFIXED(name, suffix) PPCLS_JOIN(name, suffix)
#define NAME(name) PPCLS_SUFFIXED(name, SUFFIX)
#define EXPORT extern "C" __attribute__((visibility("default")))

// What a caller in C sees of running out of memory.
enum { DONE = 0, OUT_OF_MEMORY = 1 };
template <class F>
static int64_t guarded(F f) {
  try {
    f();
    return DONE;
  } catch (const std::bad_alloc&) {
    return OUT_OF_MEMORY;
  }
}
