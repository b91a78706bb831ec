// A chain of layers as one operator. Between two layers only the first one's raw output and its
// batch statistics exist; normalisation and activation are applied by whoever reads them, in the
// forward pass and again in the backward pass.
#include <memory>
#include <vector>

#include "convolution.h"
#include "depthwise.h"
#include "squeeze.h"

namespace {

bool is_plain(const Layer& l) {
  return l.norm == Norm::none && !l.bias && l.act == Act::identity && l.kind != Kind::squeeze_excitation;
}
int64_t out_pixels(const Layer& l) { return l.out_h * l.out_w; }

// What is kept of one layer: its raw output and four arrays a channel. A plain last layer's
// output is the chain's own.
struct Saved {
  T *y, *scale, *shift, *mean, *invstd, *squeeze;
};

int64_t output_size(const Chain& c) {
  const Layer& last = c.layers[c.count - 1];
  return c.batch * out_pixels(last) * last.channels_out;
}

bool gives_output(const Chain& c, int64_t i) { return i + 1 == c.count && is_plain(c.layers[i]) && !c.shortcut; }

int64_t saved_size(const Chain& c, int64_t i) {
  const Layer& l = c.layers[i];
  if (l.kind == Kind::squeeze_excitation) return SqueezeSaved::size(l, c.batch);
  const int64_t map = gives_output(c, i) ? 0 : c.batch * out_pixels(l) * l.channels_out;
  return round_up(map, 16) + 4 * round_up(l.channels_out, L);
}

std::vector<Saved> saved_of(const Chain& c) {
  std::vector<Saved> all;
  T* at = c.saved;
  for (int64_t i = 0; i < c.count; i++) {
    const Layer& l = c.layers[i];
    Saved s{};
    if (l.kind == Kind::squeeze_excitation) {
      s.squeeze = at;
    } else {
      const int64_t padded = round_up(l.channels_out, L);
      s.scale = at, s.shift = at + padded, s.mean = at + 2 * padded, s.invstd = at + 3 * padded;
      s.y = gives_output(c, i) ? c.out : at + 4 * padded;
    }
    all.push_back(s);
    at += saved_size(c, i);
  }
  return all;
}

Pending pending_of(const Layer& l, const Saved& s) {
  if (is_plain(l)) return {};
  return {s.scale, s.shift, l.act, nullptr};
}

// What layer i reads: the output of the last convolution before it, or x, and the pending work.
struct Input {
  int64_t producer;  // -1: the chain's input
  const T* data;
  Pending pending;
};
Input input_of(const Chain& c, const std::vector<Saved>& saved, int64_t i) {
  int64_t p = i - 1;
  while (p >= 0 && c.layers[p].kind == Kind::squeeze_excitation) p--;
  Input in{p, p < 0 ? c.x : saved[p].y, p < 0 ? Pending{} : pending_of(c.layers[p], saved[p])};
  if (p + 1 < i) in.pending.gate = SqueezeSaved(c.layers[i - 1], c.batch, saved[i - 1].squeeze).gate;
  return in;
}

// Scale and shift of a normalisation by running statistics, or of a bias alone.
void fixed_coefficients(const Layer& l, T* scale, T* shift) {
  for (int64_t c = 0; c < l.channels_out; c++) {
    const double bias = l.bias ? l.bias[c] : 0;
    double factor = 1, offset = bias;
    if (l.norm != Norm::none) {
      factor = (l.gamma ? l.gamma[c] : 1) / std::sqrt(l.running_variance[c] + l.epsilon);
      offset = (l.beta ? l.beta[c] : 0) + (bias - l.running_mean[c]) * factor;
    }
    scale[c] = factor;
    shift[c] = offset;
  }
}

// One value a channel has no variance: like Paddle, such a batch is left as it is.
bool is_single(const Chain& c, const Layer& l) { return l.norm == Norm::batch && c.batch * out_pixels(l) == 1; }

void batch_coefficients(const Layer& l, const Moments& moments, bool single, const Saved& s) {
  for (int64_t c = 0; c < l.channels_out; c++) {
    if (single) {
      s.scale[c] = 1;
      s.shift[c] = l.bias ? l.bias[c] : 0;
      continue;
    }
    double mean, variance;
    moments.get(c, &mean, &variance);
    const double invstd = 1 / std::sqrt(variance + l.epsilon), factor = (l.gamma ? l.gamma[c] : 1) * invstd;
    s.mean[c] = mean;
    s.invstd[c] = invstd;
    s.scale[c] = factor;
    s.shift[c] = (l.beta ? l.beta[c] : 0) - mean * factor;
    const double seen = mean + (l.bias ? l.bias[c] : 0);
    l.running_mean[c] = l.running_mean[c] * l.momentum + seen * (1 - l.momentum);
    l.running_variance[c] = l.running_variance[c] * l.momentum + variance * (1 - l.momentum);
  }
}

// Runs a convolution of either kind; `make_finish(slots)` is told how many partial sums there
// will be and gives what is to be done with each finished part of y.
template <class MakeFinish>
void run_convolution(const Chain& c, const Layer& l, const Source& source, T* y, MakeFinish make_finish) {
  const int64_t rows = c.batch * out_pixels(l);
  if (l.kind == Kind::depthwise) {
    const int64_t bands = depthwise_bands(l, c.batch, c.threads);
    const Slots slots(c.batch * bands, rows, c.threads);
    auto finish = make_finish(slots.count);
    with_depthwise(l, [&](auto k, auto stride) {
      depthwise_forward_as<decltype(k)::value, decltype(stride)::value>(l, source, y, c.threads, slots, bands, finish);
    });
  } else {
    const Blocks blocks(rows);
    const Slots slots(blocks.count, rows, c.threads);
    convolution_forward(l, source, c.batch, y, c.threads, slots, blocks, make_finish(slots.count));
  }
}

void finish_chain(const Chain& c, const T* y, const Pending& pending) {
  const Layer& last = c.layers[c.count - 1];
  const int64_t rows = c.batch * out_pixels(last), parts = std::min<int64_t>(rows, 64);
  parallel_for(c.threads, parts, [&](int64_t i) {
    const int64_t first = rows * i / parts, count = rows * (i + 1) / parts - first;
    finish_rows(y, first, count, last.channels_out, out_pixels(last), pending, c.shortcut, c.shortcut_channels, c.out);
  });
}

void forward(const Chain& c) {
  const std::vector<Saved> saved = saved_of(c);
  for (int64_t i = 0; i < c.count; i++) {
    const Layer& l = c.layers[i];
    const Input in = input_of(c, saved, i);
    const Source source(in.data, l.channels_in, l.in_h * l.in_w, in.pending);
    if (l.kind == Kind::squeeze_excitation) {
      squeeze_forward(l, source, c.batch, saved[i].squeeze, c.threads);
      continue;
    }
    const Saved& s = saved[i];
    std::memset(s.scale, 0, 4 * round_up(l.channels_out, L) * sizeof(T));
    if (l.norm != Norm::batch) {
      run_convolution(c, l, source, s.y, [](int64_t) { return [](int64_t, int64_t, int64_t) {}; });
      if (l.norm == Norm::frozen)
        for (int64_t k = 0; k < l.channels_out; k++) {
          s.mean[k] = l.running_mean[k] - (l.bias ? l.bias[k] : 0);
          s.invstd[k] = 1 / std::sqrt((double)l.running_variance[k] + l.epsilon);
        }
      fixed_coefficients(l, s.scale, s.shift);
      continue;
    }
    std::unique_ptr<Moments> moments;
    run_convolution(c, l, source, s.y, [&](int64_t slots) {
      moments = std::make_unique<Moments>(slots, l.channels_out);
      return [&](int64_t slot, int64_t first, int64_t rows) {
        moments->add(slot, s.y + first * l.channels_out, rows);
      };
    });
    batch_coefficients(l, *moments, is_single(c, l), s);
  }
  if (gives_output(c, c.count - 1)) return;
  const Input end = input_of(c, saved, c.count);
  finish_chain(c, end.data, end.pending);
}

// Normalisation by running statistics, applied as each block leaves its convolution: nothing is
// kept, and two buffers are enough for any chain.
void infer(const Chain& c) {
  int64_t largest = 0, squeeze = 0;
  for (int64_t i = 0; i + 1 < c.count; i++) {
    const Layer& l = c.layers[i];
    if (l.kind == Kind::squeeze_excitation)
      squeeze = std::max(squeeze, SqueezeSaved::size(l, c.batch));
    else
      largest = std::max(largest, c.batch * out_pixels(l) * l.channels_out);
  }
  if (c.layers[c.count - 1].kind == Kind::squeeze_excitation)
    squeeze = std::max(squeeze, SqueezeSaved::size(c.layers[c.count - 1], c.batch));
  Buffer first(largest, Fill::none), second(largest, Fill::none), gates(squeeze);
  T* spare = first.get();
  const T* data = c.x;
  Pending pending;
  for (int64_t i = 0; i < c.count; i++) {
    const Layer& l = c.layers[i];
    const Source source(data, l.channels_in, l.in_h * l.in_w, pending);
    if (l.kind == Kind::squeeze_excitation) {
      squeeze_forward(l, source, c.batch, gates.get(), c.threads);
      pending.gate = SqueezeSaved(l, c.batch, gates.get()).gate;
      continue;
    }
    const bool last = i + 1 == c.count;
    T* y = last ? c.out : spare;
    const int64_t padded = round_up(l.channels_out, L);
    Buffer coefficients(2 * padded);
    fixed_coefficients(l, coefficients.get(), coefficients.get() + padded);
    const Pending own{coefficients.get(), coefficients.get() + padded, l.act, nullptr};
    const bool plain = is_plain(l);
    run_convolution(c, l, source, y, [&](int64_t) {
      return [&](int64_t, int64_t at, int64_t rows) {
        if (!plain || (last && c.shortcut))
          finish_rows(y, at, rows, l.channels_out, out_pixels(l), own, last ? c.shortcut : nullptr, c.shortcut_channels, y);
      };
    });
    data = y;
    pending = {};
    spare = spare == first.get() ? second.get() : first.get();
  }
  if (pending.gate) finish_chain(c, data, pending);
}

// Coefficients of dy = alpha dz + beta y + kappa, and the gradients of gamma, beta and bias.
void normalisation_backward(const Chain& c, const Layer& l, const Saved& s, const GradientSums& sums, T* alpha, T* beta,
                            T* kappa) {
  const double count = c.batch * out_pixels(l);
  for (int64_t k = 0; k < l.channels_out; k++) {
    double sum, dot;
    sums.get(k, &sum, &dot);
    const double scale = s.scale[k], invstd = s.invstd[k], mean = s.mean[k];
    alpha[k] = scale;
    beta[k] = kappa[k] = 0;
    const bool single = is_single(c, l);
    if (l.norm == Norm::batch && !single) {
      beta[k] = -scale * dot / count * invstd;
      kappa[k] = -scale * sum / count + scale * dot / count * invstd * mean;
    }
    if (l.dgamma) l.dgamma[k] = single ? 0 : dot;
    if (l.dbeta) l.dbeta[k] = single ? 0 : sum;
    if (l.dbias) l.dbias[k] = l.norm == Norm::batch && !single ? 0 : scale * sum;
  }
}

void backward(const Chain& c) {
  const std::vector<Saved> saved = saved_of(c);
  int64_t largest = 0;
  for (int64_t i = 1; i < c.count; i++)
    largest = std::max(largest, c.batch * c.layers[i].in_h * c.layers[i].in_w * c.layers[i].channels_in);
  Buffer first(largest, Fill::none), second(largest, Fill::none);
  const T* g = c.dout;  // gradient of what layer i's consumers read
  bool masked = false;  // g is the gradient before the activation already
  std::unique_ptr<GradientSums> sums;

  for (int64_t i = c.count - 1; i >= 0; i--) {
    const Layer& l = c.layers[i];
    const Input in = input_of(c, saved, i);
    const Source source(in.data, l.channels_in, l.in_h * l.in_w, in.pending);
    T* dst = in.producer < 0 ? c.dx : (g == first.get() ? second.get() : first.get());
    if (i > 0 && in.producer < 0) dst = first.get() == g ? second.get() : first.get();

    // The sums that the producer's normalisation needs are taken as its gradient is made, unless
    // a gate stands between the two.
    const bool before_gate = i > 0 && c.layers[i - 1].kind == Kind::squeeze_excitation;
    const bool sum_up = in.producer >= 0 && !before_gate;
    std::unique_ptr<GradientSums> next;
    auto make_finish = [&](int64_t slots) {
      if (sum_up) next = std::make_unique<GradientSums>(slots, l.channels_in);
      return [&](int64_t slot, int64_t pixel, int64_t rows) {
        T* at = dst + pixel * l.channels_in;
        if (sum_up) {
          const Saved& p = saved[in.producer];
          const bool norm = c.layers[in.producer].norm != Norm::none;
          Pending own = in.pending;
          own.gate = nullptr;
          next->add(slot, at, at, in.data + pixel * l.channels_in, rows, l.channels_in, own, norm ? p.mean : nullptr,
                    norm ? p.invstd : nullptr);
        } else if (i == 0 && c.shortcut_is_x) {
          add_rows(at, c.dout + pixel * l.channels_in, rows, l.channels_in, c.shortcut_channels);
        }
      };
    };

    if (l.kind == Kind::squeeze_excitation) {
      const Slots slots(c.batch, c.batch * out_pixels(l), c.threads);
      Pending ungated = in.pending;
      ungated.gate = nullptr;
      squeeze_backward(l, Source(in.data, l.channels_in, l.in_h * l.in_w, ungated), g, c.batch, saved[i].squeeze, dst,
                       c.threads, slots, make_finish(slots.count));
      g = dst, masked = sum_up, sums = std::move(next);
      continue;
    }

    const Saved& s = saved[i];
    const Pending own = pending_of(l, s);
    const int64_t rows = c.batch * out_pixels(l), padded = round_up(l.channels_out, L);
    if (!sums && !is_plain(l)) {  // the chain's last layer: nobody has read its output yet
      const int64_t parts = std::min<int64_t>(rows, 64);
      sums = std::make_unique<GradientSums>(parts, l.channels_out);
      parallel_for(c.threads, parts, [&](int64_t part) {
        const int64_t end = rows * (part + 1) / parts, channels = l.channels_out;
        for (int64_t r = rows * part / parts; r < end; r += CHUNK) {
          const int64_t at = r * channels, ahead = at + CHUNK * channels, count = std::min(CHUNK, end - r);
          prefetch(g + ahead, std::min(CHUNK, std::max<int64_t>(end - r - CHUNK, 0)) * channels);
          prefetch(s.y + ahead, std::min(CHUNK, std::max<int64_t>(end - r - CHUNK, 0)) * channels);
          sums->add(part, g + at, nullptr, s.y + at, count, channels, own, l.norm == Norm::none ? nullptr : s.mean,
                    l.norm == Norm::none ? nullptr : s.invstd);
        }
      });
    }
    Buffer coefficients(3 * padded);
    T *alpha = coefficients.get(), *beta = alpha + padded, *kappa = beta + padded;
    if (sums) normalisation_backward(c, l, s, *sums, alpha, beta, kappa);
    const bool affine = l.norm != Norm::none;
    const Gradient gradient(g, s.y, l.channels_out, own, masked, affine ? alpha : nullptr, beta, kappa);
    if (!dst && !l.dweight) return;
    if (l.kind == Kind::depthwise) {
      const Slots slots(c.batch, rows, c.threads);
      auto finish = make_finish(slots.count);
      with_depthwise(l, [&](auto k, auto stride) {
        depthwise_backward_as<decltype(k)::value, decltype(stride)::value>(l, source, gradient, dst, c.threads, slots, finish);
      });
    } else {
      const bool pointwise = Patches{l, source}.pointwise();
      const Blocks blocks(rows);
      const Slots slots(pointwise ? blocks.count : c.batch, rows, c.threads);
      convolution_backward(l, source, gradient, c.batch, dst, c.threads, slots, blocks, make_finish(slots.count));
    }
    g = dst, masked = sum_up, sums = std::move(next);
  }
}

}  // namespace

#include "export.h"

EXPORT int64_t NAME(ppcls_chain_saved_size)(const Chain* c) {
  int64_t total = 0;
  for (int64_t i = 0; i < c->count; i++) total += saved_size(*c, i);
  return total;
}
EXPORT int64_t NAME(ppcls_chain_forward)(const Chain* c) {
  use_large_pages(c->saved, NAME(ppcls_chain_saved_size)(c) * sizeof(T));
  use_large_pages(c->out, output_size(*c) * sizeof(T));
  return guarded([&] { forward(*c); });
}
EXPORT int64_t NAME(ppcls_chain_infer)(const Chain* c) {
  use_large_pages(c->out, output_size(*c) * sizeof(T));
  return guarded([&] { infer(*c); });
}
EXPORT int64_t NAME(ppcls_chain_backward)(const Chain* c) {
  const Layer& first = c->layers[0];
  if (c->dx) use_large_pages(c->dx, c->batch * first.in_h * first.in_w * first.channels_in * sizeof(T));
  return guarded([&] { backward(*c); });
}
