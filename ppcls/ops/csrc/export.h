// Names of exported functions end in the scalar's: ppcls_chain_forward_f32.
#pragma once

#define PPCLS_JOIN(a, b) a##b
#define PPCLS_SUFFIXED(name, suffix) PPCLS_JOIN(name, suffix)
#define NAME(name) PPCLS_SUFFIXED(name, SUFFIX)
#define EXPORT extern "C" __attribute__((visibility("default")))
