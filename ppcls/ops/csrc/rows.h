// Rows of pixels in channels-last memory: reading them with the pending normalisation and
// activation applied, reading gradients, and the sums that normalisation needs.
#pragma once

#include "parallel.h"

namespace {

constexpr int PANEL = 2 * L;  // columns that a matrix product works on at a time

// Calls f(i, place, lanes) for each vector of `count` columns: whole ones with the constant L, the
// last one with what is left. `place` is where it lies if panels are `panel_stride` apart.
template <class F>
inline void for_vectors(int64_t count, int64_t panel_stride, F f) {
  const std::integral_constant<int64_t, L> whole;
  int64_t i = 0, at = 0;
  for (; i + PANEL <= count; i += PANEL, at += panel_stride) {
    f(i, at, whole);
    f(i + L, at + L, whole);
  }
  if (i + L <= count) f(i, at, whole), i += L, at += L;
  if (i < count) f(i, at, count - i);
}

// The normalisation and activation of one layer, as far as its consumers need them.
// a = act(y * scale + shift) * gate; arrays are padded to whole vectors, null = absent.
struct Pending {
  const T* scale = nullptr;
  const T* shift = nullptr;
  Act act = Act::identity;
  const T* gate = nullptr;  // [images, padded channels], of a squeeze-excitation
};

// What a layer reads: pixels [count, channels] and what is still to be applied to them.
class Source {
 public:
  Source(const T* data, int64_t channels, int64_t pixels_per_image, Pending pending)
      : data(data), channels(channels), pixels(pixels_per_image), pending(pending) {
    read_ = with_activation(pending.act, [&](auto tag) {
      constexpr Act A = decltype(tag)::value;
      if (pending.gate) return pending.scale ? &Source::read_as<A, true, true> : &Source::read_as<A, false, true>;
      return pending.scale ? &Source::read_as<A, true, false> : &Source::read_as<A, false, false>;
    });
  }

  // Writes channels [first, first + count) of some pixels, one after the other, to dst. There a
  // pixel follows the one before at `pixel_stride`, and a panel of its columns the one before at
  // `panel_stride`; the last vector is filled with zeros.
  void read(int64_t pixel, int64_t pixels, int64_t first, int64_t count, T* dst, int64_t pixel_stride,
            int64_t panel_stride) const {
    (this->*read_)(pixel, pixels, first, count, dst, pixel_stride, panel_stride);
  }

  const T* data;
  int64_t channels, pixels;
  Pending pending;

 private:
  template <Act A, bool AFFINE, bool GATE>
  void read_as(int64_t pixel, int64_t some, int64_t first, int64_t count, T* dst, int64_t pixel_stride,
               int64_t panel_stride) const {
    for (int64_t r = 0; r < some; r++, dst += pixel_stride) {
      const T* y = data + (pixel + r) * channels + first;
      const T* gate = GATE ? pending.gate + (pixel + r) / pixels * round_up(channels, L) + first : nullptr;
      const T *scale = AFFINE ? pending.scale + first : nullptr, *shift = AFFINE ? pending.shift + first : nullptr;
      for_vectors(count, panel_stride, [&](int64_t i, int64_t to, auto n) {
        V v = load(y + i, n);
        if (AFFINE) v = v * load(scale + i, n) + load(shift + i, n);
        v = activate<A>(v);
        if (GATE) v *= load(gate + i, n);
        store(dst + to, v);
      });
    }
  }
  void (Source::*read_)(int64_t, int64_t, int64_t, int64_t, T*, int64_t, int64_t) const;
};

// The gradient with respect to a layer's raw output y, from g (with respect to what its
// consumers read) on the fly: dy = alpha * dz + beta * y + kappa, where dz = g act'(z), unless
// g is dz already (`masked`). The coefficients are batch normalisation's backward pass.
class Gradient {
 public:
  Gradient(const T* g, const T* y, int64_t channels, Pending pending, bool masked, const T* alpha,
           const T* beta, const T* kappa)
      : g(g), y(y), channels(channels), pending(pending), alpha(alpha), beta(beta), kappa(kappa) {
    Act act = masked ? Act::identity : pending.act;
    read_ = with_activation(act, [&](auto tag) {
      constexpr Act A = decltype(tag)::value;
      return alpha ? &Gradient::read_as<A, true> : &Gradient::read_as<A, false>;
    });
  }

  void read(int64_t pixel, int64_t pixels, int64_t first, int64_t count, T* dst, int64_t pixel_stride,
            int64_t panel_stride) const {
    (this->*read_)(pixel, pixels, first, count, dst, pixel_stride, panel_stride);
  }

 private:
  template <Act A, bool AFFINE>
  void read_as(int64_t pixel, int64_t some, int64_t first, int64_t count, T* dst, int64_t pixel_stride,
               int64_t panel_stride) const {
    const T *scale = pending.scale ? pending.scale + first : nullptr, *shift = pending.shift + first;
    const T *al = alpha + first, *be = beta + first, *ka = kappa + first;
    for (int64_t r = 0; r < some; r++, dst += pixel_stride) {
      const T* gp = g + (pixel + r) * channels + first;
      const T* yp = y + (pixel + r) * channels + first;
      for_vectors(count, panel_stride, [&](int64_t i, int64_t to, auto n) {
        V d = load(gp + i, n);
        if (A != Act::identity || AFFINE) {
          const V v = load(yp + i, n);
          if (A != Act::identity) d = activate_gradient<A>(d, scale ? v * load(scale + i, n) + load(shift + i, n) : v);
          if (AFFINE) d = d * load(al + i, n) + (v * load(be + i, n) + load(ka + i, n));
        }
        store(dst + to, d);
      });
    }
  }
  const T *g, *y;
  int64_t channels;
  Pending pending;
  const T *alpha, *beta, *kappa;
  void (Gradient::*read_)(int64_t, int64_t, int64_t, int64_t, T*, int64_t, int64_t) const;
};

// Rows that sums are taken of at a time: a few vectors of all of them fit the first-level cache.
constexpr int64_t CHUNK = 16;

// Asks for memory ahead of its use, where the use itself does not run straight through it.
inline void prefetch(const T* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof(T)) __builtin_prefetch(from + i);
}

// Mean and sum of squared deviations of every channel, gathered in one pass. Deviations are
// taken from the slot's first pixel, so that a mean far from zero costs no digits; rows are
// summed apart before they join the slot's sums; slots are merged in double (Chan et al. 1983).
class Moments {
 public:
  Moments(int64_t slots, int64_t channels)
      : stride_(round_up(channels, L)), channels_(channels), slots_(slots), sums_(slots * 3 * stride_),
        counts_(slots) {}

  void add(int64_t slot, const T* y, int64_t rows) {
    T* pivot = sums_.get() + slot * 3 * stride_;
    T* first = pivot + stride_;
    T* second = first + stride_;
    if (counts_.get()[slot] == 0) std::memcpy(pivot, y, channels_ * sizeof(T));
    counts_.get()[slot] += rows;
    for (; rows > 0; rows -= CHUNK, y += CHUNK * channels_)
      for (int64_t c = 0; c < channels_; c += L) {
        int64_t n = std::min<int64_t>(channels_ - c, L);
        V p = load(pivot + c), s1{}, s2{};
        const T* row = y + c;
        for (int64_t r = 0; r < std::min(rows, CHUNK); r++, row += channels_) {
          V d = load(row, n) - p;
          s1 += d;
          s2 += d * d;
        }
        store(first + c, load(first + c) + s1);
        store(second + c, load(second + c) + s2);
      }
  }

  // Mean and biased variance of one channel over all slots.
  void get(int64_t c, double* mean, double* variance) const {
    double count = 0, mu = 0, m2 = 0;
    for (int64_t s = 0; s < slots_; s++) {
      const T* pivot = sums_.get() + s * 3 * stride_;
      double n = counts_.get()[s], s1 = pivot[stride_ + c], s2 = pivot[2 * stride_ + c];
      if (n == 0) continue;
      double slot_mean = pivot[c] + s1 / n, delta = slot_mean - mu;
      m2 += s2 - s1 * s1 / n + delta * delta * count * n / (count + n);
      mu += delta * n / (count + n);
      count += n;
    }
    *mean = mu;
    *variance = count > 0 ? std::max(m2 / count, 0.0) : 0;
  }

 private:
  int64_t stride_, channels_, slots_;
  Buffer sums_, counts_;
};

// Sum of dz and of dz * xhat for every channel: the two sums of normalisation's backward pass.
class GradientSums {
 public:
  GradientSums(int64_t slots, int64_t channels)
      : stride_(round_up(channels, L)), slots_(slots), sums_(slots * 2 * stride_) {}

  // g: [rows, channels], turned into dz in place where `dst` is given. y: the raw outputs.
  void add(int64_t slot, const T* g, T* dst, const T* y, int64_t rows, int64_t channels, const Pending& p,
           const T* mean, const T* invstd) {
    T* s1 = sums_.get() + slot * 2 * stride_;
    with_activation(p.act, [&](auto tag) {
      constexpr Act A = decltype(tag)::value;
      for (int64_t r = 0; r < rows; r += CHUNK) {
        const int64_t at = r * channels, n = std::min(rows - r, CHUNK);
        p.scale ? add_as<A, true>(s1, g + at, dst ? dst + at : dst, y + at, n, channels, p, mean, invstd)
                : add_as<A, false>(s1, g + at, dst ? dst + at : dst, y + at, n, channels, p, mean, invstd);
      }
    });
  }

  void get(int64_t c, double* sum, double* dot) const {
    *sum = *dot = 0;
    for (int64_t s = 0; s < slots_; s++) {
      *sum += sums_.get()[s * 2 * stride_ + c];
      *dot += sums_.get()[(s * 2 + 1) * stride_ + c];
    }
  }

 private:
  template <Act A, bool AFFINE>
  void add_as(T* s1, const T* g, T* dst, const T* y, int64_t rows, int64_t channels, const Pending& p,
              const T* mean, const T* invstd) {
    T* s2 = s1 + stride_;
    for (int64_t c = 0; c < channels; c += L) {
      int64_t n = std::min<int64_t>(channels - c, L);
      V sum{}, dot{}, scale{}, shift{}, mu{}, inv = splat(1);
      if (AFFINE) scale = load(p.scale + c), shift = load(p.shift + c);
      if (mean) mu = load(mean + c), inv = load(invstd + c);
      for (int64_t r = 0; r < rows; r++) {
        V v = load(y + r * channels + c, n), d = load(g + r * channels + c, n);
        d = activate_gradient<A>(d, AFFINE ? v * scale + shift : v);
        sum += d;
        dot += d * ((v - mu) * inv);
        if (dst) store(dst + r * channels + c, d, n);
      }
      store(s1 + c, load(s1 + c) + sum);
      store(s2 + c, load(s2 + c) + dot);
    }
  }
  int64_t stride_, slots_;
  Buffer sums_;
};

// out = act(y * scale + shift) * gate (+ shortcut on the first channels); out may be y.
inline void finish_rows(const T* y, int64_t first_pixel, int64_t rows, int64_t channels, int64_t pixels,
                        const Pending& p, const T* shortcut, int64_t shortcut_channels, T* out) {
  with_activation(p.act, [&](auto tag) {
    constexpr Act A = decltype(tag)::value;
    for (int64_t r = 0; r < rows; r++) {
      int64_t at = (first_pixel + r) * channels;
      const T* gate = p.gate ? p.gate + (first_pixel + r) / pixels * round_up(channels, L) : nullptr;
      for (int64_t c = 0; c < channels; c += L) {
        int64_t n = std::min<int64_t>(channels - c, L);
        V v = load(y + at + c, n);
        if (p.scale) v = v * load(p.scale + c) + load(p.shift + c);
        v = activate<A>(v);
        if (gate) v *= load(gate + c);
        if (shortcut && c < shortcut_channels) v += load(shortcut + at + c, std::min(n, shortcut_channels - c));
        store(out + at + c, v, n);
      }
    }
  });
}

// dst += src on the first channels of every row: the gradient that a shortcut carries.
inline void add_rows(T* dst, const T* src, int64_t rows, int64_t channels, int64_t first_channels) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < first_channels; c += L) {
      int64_t n = std::min<int64_t>(first_channels - c, L);
      store(dst + r * channels + c, load(dst + r * channels + c, n) + load(src + r * channels + c, n), n);
    }
}

}  // namespace
