// What stands beside the chains: change of layout, pictures to numbers, the mean over a map.
#include "parallel.h"

namespace {

// [images, rows, columns] -> [images, columns, rows], in squares that fit the cache.
void transpose(const T* from, T* to, int64_t batch, int64_t rows, int64_t columns, int64_t threads) {
  constexpr int64_t SIDE = 64;
  const int64_t strips = (columns + SIDE - 1) / SIDE;
  parallel_for(threads, batch * strips, [&](int64_t task) {
    const int64_t image = task / strips, first = task % strips * SIDE, last = std::min(first + SIDE, columns);
    const T* source = from + image * rows * columns;
    T* target = to + image * rows * columns;
    for (int64_t r0 = 0; r0 < rows; r0 += SIDE)
      for (int64_t c = first; c < last; c++)
        for (int64_t r = r0; r < std::min(r0 + SIDE, rows); r += L) {
          const int64_t n = std::min<int64_t>(L, rows - r);
          V v{};
          for (int i = 0; i < n; i++) v[i] = source[(r + i) * columns + c];
          store(target + c * rows + r, v, n);
        }
  });
}

// [images, pixels, channels] -> means [images, channels]
void pool(const T* x, T* mean, int64_t batch, int64_t channels, int64_t pixels, int64_t threads) {
  parallel_for(threads, batch, [&](int64_t n) {
    for (int64_t c = 0; c < channels; c += L) {
      V sum{};
      for (int64_t p = 0; p < pixels; p++) sum += load(x + (n * pixels + p) * channels + c, channels - c);
      store(mean + n * channels + c, sum / T(pixels), channels - c);
    }
  });
}

void pool_backward(const T* dmean, T* dx, int64_t batch, int64_t channels, int64_t pixels, int64_t threads) {
  parallel_for(threads, batch, [&](int64_t n) {
    for (int64_t p = 0; p < pixels; p++)
      for (int64_t c = 0; c < channels; c += L)
        store(dx + (n * pixels + p) * channels + c, load(dmean + n * channels + c, channels - c) / T(pixels), channels - c);
  });
}

// Bytes to what the table [256, CHANNELS] says of each. The number of channels is a constant, so that the inner loop
// is unrolled: it does little else than load and store.
template <int64_t CHANNELS>
void look_up(const uint8_t* pixels, const float* table, float* out, int64_t count, int64_t threads) {
  constexpr int64_t PART = 1 << 14;
  parallel_for(threads, (count + PART - 1) / PART, [&](int64_t part) {
    for (int64_t i = part * PART; i < std::min((part + 1) * PART, count); i++)
      for (int64_t c = 0; c < CHANNELS; c++) out[i * CHANNELS + c] = table[pixels[i * CHANNELS + c] * CHANNELS + c];
  });
}

}  // namespace

#include "export.h"

EXPORT void NAME(ppcls_to_channels_last)(const T* from, T* to, int64_t batch, int64_t channels, int64_t pixels,
                                         int64_t threads) {
  transpose(from, to, batch, channels, pixels, threads);
}
EXPORT void NAME(ppcls_to_channels_first)(const T* from, T* to, int64_t batch, int64_t channels, int64_t pixels,
                                          int64_t threads) {
  transpose(from, to, batch, pixels, channels, threads);
}
EXPORT void NAME(ppcls_look_up)(const uint8_t* pixels, const float* table, float* out, int64_t count, int64_t threads) {
  look_up<3>(pixels, table, out, count, threads);
}
EXPORT void NAME(ppcls_pool)(const T* x, T* mean, int64_t batch, int64_t channels, int64_t pixels, int64_t threads) {
  pool(x, mean, batch, channels, pixels, threads);
}
EXPORT void NAME(ppcls_pool_backward)(const T* dmean, T* dx, int64_t batch, int64_t channels, int64_t pixels,
                               int64_t threads) {
  pool_backward(dmean, dx, batch, channels, pixels, threads);
}
