// Squeeze-excitation (Hu et al., CVPR 2018): gate = sigmoid(W2 act(W1 mean(a) + b1) + b2), one
// gate a channel and image. The gated map is never stored: the next layer applies the gate as it
// reads.
#pragma once

#include "layer.h"
#include "rows.h"

namespace {

// What the backward pass needs of one squeeze-excitation, rows padded to whole vectors.
struct SqueezeSaved {
  T *pooled, *hidden, *gate_input, *gate;
  int64_t padded, reduced;

  SqueezeSaved(const Layer& l, int64_t batch, T* saved)
      : padded(round_up(l.channels_in, L)), reduced(round_up(l.reduced, L)) {
    pooled = saved;
    gate_input = pooled + batch * padded;
    gate = gate_input + batch * padded;
    hidden = gate + batch * padded;
  }
  static int64_t size(const Layer& l, int64_t batch) {
    return batch * (3 * round_up(l.channels_in, L) + round_up(l.reduced, L));
  }
};

inline T dot(const T* a, const T* b, int64_t n) {
  V sum{};
  for (int64_t i = 0; i < n; i += L) sum += load(a + i, n - i) * load(b + i, n - i);
  T total = 0;
  for (int i = 0; i < L; i++) total += sum[i];
  return total;
}
inline void add_scaled(T* to, T factor, const T* from, int64_t n) {
  for (int64_t i = 0; i < n; i += L) store(to + i, load(to + i, n - i) + factor * load(from + i, n - i), n - i);
}
inline T gate_of(const Layer& l, T x) {
  if (l.gate_slope == 0) return T(1) / (T(1) + std::exp(-x));
  return std::min(std::max(T(l.gate_slope) * x + T(l.gate_offset), T(0)), T(1));
}
inline T gate_slope(const Layer& l, T gate) {
  if (l.gate_slope == 0) return gate * (T(1) - gate);
  return gate > 0 && gate < 1 ? T(l.gate_slope) : T(0);
}

inline void squeeze_forward(const Layer& l, const Source& source, int64_t batch, T* saved, int64_t threads) {
  const SqueezeSaved s(l, batch, saved);
  const int64_t channels = l.channels_in, pixels = l.in_h * l.in_w;
  parallel_for(threads, batch, [&](int64_t n) {
    T *pooled = s.pooled + n * s.padded, *hidden = s.hidden + n * s.reduced;
    Buffer pixel(round_up(channels, PANEL));
    std::memset(pooled, 0, s.padded * sizeof(T));
    for (int64_t r = 0; r < pixels; r++) {
      source.read(n * pixels + r, 1, 0, channels, pixel.get(), PANEL, PANEL);
      for (int64_t c = 0; c < channels; c += L) store(pooled + c, load(pooled + c) + load(pixel.get() + c));
    }
    for (int64_t c = 0; c < s.padded; c += L) store(pooled + c, load(pooled + c) / T(pixels));
    Buffer act(s.reduced);
    for (int64_t r = 0; r < l.reduced; r++) hidden[r] = dot(l.weight + r * channels, pooled, channels) + (l.bias ? l.bias[r] : T(0));
    with_activation(l.act, [&](auto tag) {
      for (int64_t r = 0; r < l.reduced; r += L) store(act.get() + r, activate<decltype(tag)::value>(load(hidden + r)));
    });
    for (int64_t c = 0; c < channels; c++) {
      const T x = dot(l.weight2 + c * l.reduced, act.get(), l.reduced) + (l.bias2 ? l.bias2[c] : T(0));
      s.gate_input[n * s.padded + c] = x;
      s.gate[n * s.padded + c] = gate_of(l, x);
    }
  });
}

// g: gradient of the gated map. dst: gradient of the map before the gate, the pooling's share
// included. `finish(slot, first pixel, rows)` sees each image of it while it is in the cache.
template <class Finish>
void squeeze_backward(const Layer& l, const Source& source, const T* g, int64_t batch, const T* saved, T* dst,
                      int64_t threads, Slots slots, Finish finish) {
  const SqueezeSaved s(l, batch, const_cast<T*>(saved));
  const int64_t channels = l.channels_in, pixels = l.in_h * l.in_w, weights = l.reduced * channels;
  Buffer dw1(slots.count * weights), dw2(slots.count * weights), db1(slots.count * s.reduced), db2(slots.count * s.padded);
  parallel_for(threads, slots.count, [&](int64_t slot) {
    Buffer pixel(round_up(channels, PANEL)), dgate(s.padded), dpool(s.padded), act(s.reduced), dhidden(s.reduced);
    for (int64_t n = slots.begin(slot); n < slots.end(slot); n++) {
      const T *pooled = s.pooled + n * s.padded, *hidden = s.hidden + n * s.reduced, *gate = s.gate + n * s.padded;
      std::memset(dgate.get(), 0, s.padded * sizeof(T));
      std::memset(dpool.get(), 0, s.padded * sizeof(T));
      std::memset(dhidden.get(), 0, s.reduced * sizeof(T));
      const T* gn = g + n * pixels * channels;
      for (int64_t r = 0; r < pixels; r++) {
        source.read(n * pixels + r, 1, 0, channels, pixel.get(), PANEL, PANEL);
        for (int64_t c = 0; c < channels; c += L)
          store(dgate.get() + c, load(dgate.get() + c) + load(pixel.get() + c) * load(gn + r * channels + c, channels - c));
      }
      with_activation(l.act, [&](auto tag) {
        for (int64_t r = 0; r < l.reduced; r += L) store(act.get() + r, activate<decltype(tag)::value>(load(hidden + r)));
      });
      T *d1 = dw1.get() + slot * weights, *d2 = dw2.get() + slot * weights;
      for (int64_t c = 0; c < channels; c++) {
        const T d = dgate.get()[c] * gate_slope(l, gate[c]);
        db2.get()[slot * s.padded + c] += d;
        add_scaled(d2 + c * l.reduced, d, act.get(), l.reduced);
        add_scaled(dhidden.get(), d, l.weight2 + c * l.reduced, l.reduced);
      }
      with_activation(l.act, [&](auto tag) {
        for (int64_t r = 0; r < l.reduced; r += L)
          store(dhidden.get() + r, activate_gradient<decltype(tag)::value>(load(dhidden.get() + r), load(hidden + r)));
      });
      for (int64_t r = 0; r < l.reduced; r++) {
        const T d = dhidden.get()[r];
        db1.get()[slot * s.reduced + r] += d;
        add_scaled(d1 + r * channels, d, pooled, channels);
        add_scaled(dpool.get(), d / T(pixels), l.weight + r * channels, channels);
      }
      T* out = dst + n * pixels * channels;
      for (int64_t r = 0; r < pixels; r++)
        for (int64_t c = 0; c < channels; c += L)
          store(out + r * channels + c, load(gn + r * channels + c, channels - c) * load(gate + c) + load(dpool.get() + c),
                channels - c);
      finish(slot, n * pixels, pixels);
    }
  });
  auto total = [&](T* to, const Buffer& sums, int64_t stride, int64_t count) {
    if (!to) return;
    for (int64_t i = 0; i < count; i++) {
      to[i] = 0;
      for (int64_t slot = 0; slot < slots.count; slot++) to[i] += sums.get()[slot * stride + i];
    }
  };
  total(l.dweight, dw1, weights, weights);
  total(l.dweight2, dw2, weights, weights);
  total(l.dbias, db1, s.reduced, l.reduced);
  total(l.dbias2, db2, s.padded, channels);
}

}  // namespace
