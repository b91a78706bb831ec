// Depthwise convolution: rows of the input, normalised once on the way into a ring of `kernel`
// rows that stays in the cache; channels fill the vectors, so every map size is served alike.
#pragma once

#include "layer.h"
#include "rows.h"

namespace {

// The last few rows of a padded map, row i at slot i % height.
class Ring {
 public:
  Ring(int64_t height, int64_t width, int64_t channels)
      : height_(height), stride_(width * channels), data_(height * width * channels) {}
  T* row(int64_t i) { return data_.get() + (i % height_ + height_) % height_ * stride_; }
  void clear(int64_t i) { std::memset(row(i), 0, stride_ * sizeof(T)); }

 private:
  int64_t height_, stride_;
  Buffer data_;
};

// Weights [channels, 1, K, K] -> [K * K, padded channels].
inline void pack_depthwise(const Layer& l, T* out) {
  const int64_t area = l.kernel * l.kernel, padded = round_up(l.channels_in, L);
  for (int64_t c = 0; c < l.channels_in; c++)
    for (int64_t k = 0; k < area; k++) out[k * padded + c] = l.weight[c * area + k];
}

// OUT output pixels of one row, all channels. rows: the K input rows at the first pixel.
template <int K, int STRIDE, int OUT>
inline void depthwise_pixels(const T* const* rows, const T* weights, int64_t padded, int64_t channels, T* y) {
  for (int64_t c = 0; c < channels; c += L) {
    V sum[OUT] = {};
    for (int i = 0; i < K; i++) {
      const T* x = rows[i] + c;
#pragma GCC unroll 7
      for (int j = 0; j < K; j++) {
        const V w = load(weights + (i * K + j) * padded + c);
#pragma GCC unroll 8
        for (int t = 0; t < OUT; t++) sum[t] += w * load(x + (t * STRIDE + j) * padded);
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < OUT; t++) store(y + t * channels + c, sum[t], channels - c);
  }
}

// Bands of output rows an image is cut into, so that a small batch still has work for all; like the
// slots, they depend on the number of threads only beyond 16.
inline int64_t depthwise_bands(const Layer& l, int64_t batch, int64_t threads) {
  const int64_t wanted = std::max<int64_t>(16, threads);
  return std::max<int64_t>(1, std::min((wanted + batch - 1) / batch, l.out_h / 4));
}

template <int K, int STRIDE, class Finish>
void depthwise_forward_as(const Layer& l, const Source& source, T* y, int64_t threads, Slots slots, int64_t bands,
                          Finish finish) {
  const int64_t channels = l.channels_in, padded = round_up(channels, L);
  Buffer weights(K * K * padded);
  pack_depthwise(l, weights.get());
  const int64_t width = std::max(l.in_w + l.pad_left, (l.out_w - 1) * STRIDE + K);
  parallel_for(threads, slots.count, [&](int64_t slot) {
    Ring ring(K, width, padded);
    for (int64_t task = slots.begin(slot); task < slots.end(slot); task++) {
      const int64_t image = task / bands, band = task % bands;
      const int64_t first = l.out_h * band / bands, last = l.out_h * (band + 1) / bands;
      int64_t next = first * STRIDE - l.pad_top;  // the next input row to read
      for (int64_t o = first; o < last; o++) {
        for (; next < o * STRIDE - l.pad_top + K; next++) {
          if (next < 0 || next >= l.in_h) {
            ring.clear(next);
            continue;
          }
          source.read((image * l.in_h + next) * l.in_w, l.in_w, 0, channels, ring.row(next) + l.pad_left * padded, padded,
                      PANEL);
        }
        T* out = y + (image * l.out_h + o) * l.out_w * channels;
        const T* rows[K];
        for (int i = 0; i < K; i++) rows[i] = ring.row(o * STRIDE - l.pad_top + i);
        int64_t w = 0;
        auto run = [&](auto count) {
          constexpr int N = decltype(count)::value;
          for (; w + N <= l.out_w; w += N) {
            depthwise_pixels<K, STRIDE, N>(rows, weights.get(), padded, channels, out + w * channels);
            for (int i = 0; i < K; i++) rows[i] += N * STRIDE * padded;
          }
        };
        run(std::integral_constant<int, 8>{});
        run(std::integral_constant<int, 4>{});
        run(std::integral_constant<int, 2>{});
        run(std::integral_constant<int, 1>{});
        finish(slot, (image * l.out_h + o) * l.out_w, l.out_w);
      }
    }
  });
}

// OUT input pixels of one row, STRIDE apart, and the output rows that saw them: the gradient of
// the pixels (to dx, unless null) and their share of the weights' gradient (to dw, unless null).
// `first` is the first kernel column that meets an output, whose gradient is dy[.][0]; each
// further one, STRIDE columns on, meets the output one pixel to the left.
template <int K, int STRIDE, int OUT>
inline void depthwise_gradient_pixels(const T* x, const T* const* dy, const int* kernel_rows, int count, int first,
                                      const T* weights, int64_t padded, int64_t channels, T* dx, T* dw) {
  for (int64_t c = 0; c < channels; c += L) {
    V sum[OUT] = {}, in[OUT] = {};
    if (dw)
#pragma GCC unroll 8
      for (int t = 0; t < OUT; t++) in[t] = load(x + t * STRIDE * padded + c);
    for (int i = 0; i < count; i++)
      for (int j = first, back = 0; j < K; j += STRIDE, back++) {
        const int64_t at = (kernel_rows[i] * K + j) * padded + c;
        const T* g = dy[i] - back * padded + c;
        const V w = load(weights + at);
        V even{}, odd{};  // two chains of sums hide the latency of each
#pragma GCC unroll 8
        for (int t = 0; t < OUT; t++) {
          const V d = load(g + t * padded);
          sum[t] += w * d;
          (t % 2 ? odd : even) += in[t] * d;
        }
        if (dw) store(dw + at, load(dw + at) + (even + odd));
      }
    if (dx)
#pragma GCC unroll 8
      for (int t = 0; t < OUT; t++) store(dx + t * STRIDE * channels + c, sum[t], channels - c);
  }
}

// One task is one image. `finish(slot, first input pixel, rows)` sees each row of dx.
template <int K, int STRIDE, class Finish>
void depthwise_backward_as(const Layer& l, const Source& source, const Gradient& gradient, T* dx, int64_t threads,
                           Slots slots, Finish finish) {
  const int64_t channels = l.channels_in, padded = round_up(channels, L), sum_size = K * K * padded;
  Buffer weights(sum_size), sums(slots.count * sum_size);
  pack_depthwise(l, weights.get());
  constexpr int64_t MARGIN = K;  // zero pixels before an output row, and as many as are asked for behind it
  const int64_t out_width = MARGIN + std::max(l.out_w, (l.in_w - 1 + l.pad_left) / STRIDE + 1);
  parallel_for(threads, slots.count, [&](int64_t slot) {
    Ring outs(K, out_width, padded);
    Buffer input(l.in_w * padded);
    T* dw = sums.get() + slot * sum_size;
    for (int64_t image = slots.begin(slot); image < slots.end(slot); image++) {
      int64_t next = 0;  // the next output row to read
      for (int64_t h = 0; h < l.in_h; h++) {
        const int64_t pixel = (image * l.in_h + h) * l.in_w;
        for (; next < l.out_h && next * STRIDE <= h + l.pad_top; next++) {
          gradient.read((image * l.out_h + next) * l.out_w, l.out_w, 0, channels, outs.row(next) + MARGIN * padded, padded,
                        PANEL);
        }
        const T* dy[K];
        int kernel_rows[K], count = 0;
        for (int i = 0; i < K; i++) {
          const int64_t o = h + l.pad_top - i;
          if (o < 0 || o % STRIDE || o / STRIDE >= l.out_h) continue;
          dy[count] = outs.row(o / STRIDE) + MARGIN * padded;
          kernel_rows[count++] = i;
        }
        if (l.dweight) source.read(pixel, l.in_w, 0, channels, input.get(), padded, PANEL);
        for (int parity = 0; parity < STRIDE; parity++) {
          const int first = (int)((parity + l.pad_left) % STRIDE);
          int64_t w = parity, o = (w + l.pad_left - first) / STRIDE;
          auto run = [&](auto tile) {
            constexpr int N = decltype(tile)::value;
            for (; w + (N - 1) * STRIDE < l.in_w; w += N * STRIDE, o += N) {
              const T* at[K];
              for (int i = 0; i < count; i++) at[i] = dy[i] + o * padded;
              depthwise_gradient_pixels<K, STRIDE, N>(input.get() + w * padded, at, kernel_rows, count, first,
                                                      weights.get(), padded, channels,
                                                      dx ? dx + (pixel + w) * channels : nullptr, l.dweight ? dw : nullptr);
            }
          };
          run(std::integral_constant<int, 8>{});
          run(std::integral_constant<int, 4>{});
          run(std::integral_constant<int, 2>{});
          run(std::integral_constant<int, 1>{});
        }
        if (!dx) continue;
        finish(slot, pixel, l.in_w);
      }
    }
  });
  if (!l.dweight) return;
  for (int64_t k = 0; k < K * K; k++)
    for (int64_t c = 0; c < channels; c++) {
      T total = 0;
      for (int64_t s = 0; s < slots.count; s++) total += sums.get()[s * sum_size + k * padded + c];
      l.dweight[c * K * K + k] = total;
    }
}

template <class F>
void with_depthwise(const Layer& l, F f) {
  using std::integral_constant;
  auto stride = [&](auto k) {
    l.stride == 1 ? f(k, integral_constant<int, 1>{}) : f(k, integral_constant<int, 2>{});
  };
  if (l.kernel == 3) stride(integral_constant<int, 3>{});
  if (l.kernel == 5) stride(integral_constant<int, 5>{});
  if (l.kernel == 7) stride(integral_constant<int, 7>{});
}

}  // namespace
