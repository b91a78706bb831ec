// A vector of scalars as wide as the instruction set gives, and what is done to it.
//
// The sources are compiled once for each scalar (float, double) and once for each instruction
// set; SCALAR and VECTOR_BYTES come from the build. Everything is in an unnamed namespace, so
// that code made for one instruction set can never be linked into another's.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

using T = SCALAR;
typedef T V __attribute__((vector_size(VECTOR_BYTES)));
constexpr int L = VECTOR_BYTES / sizeof(T);  // lanes

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
inline V splat(T x) { return V{} + x; }

inline V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}
inline void store(T* p, V v) { std::memcpy(p, &v, sizeof(V)); }

// The first n lanes, the others zero. No memory behind them is touched.
inline V load(const T* p, int64_t n) {
  if (n >= L) return load(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (V)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
  if constexpr (sizeof(T) == 8) return (V)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#endif
  V v{};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}
inline void store(T* p, V v, int64_t n) {
  if (n >= L) return store(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
  if constexpr (sizeof(T) == 8) return _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#endif
  for (int i = 0; i < n; i++) p[i] = v[i];
}

// The comparisons let a NaN in the first argument through, as all of the following do: a run whose
// numbers are lost has to notice.
inline V maximum(V a, V b) { return a < b ? b : a; }
inline V minimum(V a, V b) { return a > b ? b : a; }

// e^x: x = k ln 2 + r, a polynomial in r (Cephes' expf, 2 ulp), the exponent put together from k.
// Double is for checking only and goes lane by lane.
inline V exponential(V x) {
  if constexpr (sizeof(T) == 8) {
    for (int i = 0; i < L; i++) x[i] = std::exp(x[i]);
    return x;
  } else {
    typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Integer;
    typedef Integer I __attribute__((vector_size(VECTOR_BYTES)));
    x = minimum(maximum(x, splat(T(-87.3))), splat(T(88.3)));
    const V rounder = splat(T(12582912));  // 1.5 * 2^23: adding it rounds to an integer
    V k = (x * T(1.44269504088896341) + rounder) - rounder;
    V r = (x - k * T(0.693359375)) + k * T(2.12194440e-4);
    V p = splat(T(1.9875691500e-4));
    p = p * r + T(1.3981999507e-3);
    p = p * r + T(8.3334519073e-3);
    p = p * r + T(4.1665795894e-2);
    p = p * r + T(1.6666665459e-1);
    p = p * r + T(5.0000001201e-1);
    p = p * (r * r) + r + T(1);
    I bits = (__builtin_convertvector(k, I) + 127) << 23;
    V power;
    std::memcpy(&power, &bits, sizeof(V));
    return p * power;
  }
}
inline V sigmoid(V x) { return T(1) / (T(1) + exponential(-x)); }

enum class Act : int64_t { identity = 0, relu = 1, relu6 = 2, hardswish = 3, silu = 4 };

template <Act A>
inline V activate(V z) {
  const V zero{};
  if constexpr (A == Act::relu) return maximum(z, zero);
  if constexpr (A == Act::relu6) return minimum(maximum(z, zero), splat(6));
  if constexpr (A == Act::hardswish) return z * minimum(maximum(z + T(3), zero), splat(6)) * T(1.0 / 6.0);
  if constexpr (A == Act::silu) return z * sigmoid(z);
  return z;
}

// g times the activation's derivative at z, with Paddle's choice at the corners.
template <Act A>
inline V activate_gradient(V g, V z) {
  const V zero{};
  if constexpr (A == Act::relu) return z <= zero ? zero : g;
  if constexpr (A == Act::relu6) return (z <= zero) | (z >= splat(6)) ? zero : g;
  if constexpr (A == Act::hardswish) {
    V slope = z * T(1.0 / 3.0) + T(0.5);
    slope = z >= splat(3) ? splat(1) : slope;
    return z <= splat(-3) ? zero : g * slope;
  }
  if constexpr (A == Act::silu) {
    V s = sigmoid(z);
    return g * (s * (T(1) + z * (T(1) - s)));
  }
  return g;
}

template <Act A>
struct ActTag {
  static constexpr Act value = A;
};

// Calls f with the activation as a compile-time constant.
template <class F>
inline auto with_activation(Act act, F f) {
  switch (act) {
    case Act::relu: return f(ActTag<Act::relu>{});
    case Act::relu6: return f(ActTag<Act::relu6>{});
    case Act::hardswish: return f(ActTag<Act::hardswish>{});
    case Act::silu: return f(ActTag<Act::silu>{});
    default: return f(ActTag<Act::identity>{});
  }
}

}  // namespace
