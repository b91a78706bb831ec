// The description of a chain that Python hands over (ppcls/ops/library.py has the same fields).
#pragma once

#include "vector.h"

namespace {

enum class Kind : int64_t { convolution = 0, depthwise = 1, squeeze_excitation = 2 };
enum class Norm : int64_t { none = 0, batch = 1, frozen = 2 };  // frozen: by running statistics

struct Layer {
  Kind kind;
  int64_t channels_in, channels_out, kernel, stride, pad_top, pad_left, groups;
  int64_t in_h, in_w, out_h, out_w;
  Norm norm;
  Act act;
  double epsilon, momentum;
  const T *weight, *bias, *gamma, *beta;
  T *running_mean, *running_variance;
  T *dweight, *dbias, *dgamma, *dbeta;
  // Squeeze-excitation: weight, bias reduce to `reduced` channels, weight2, bias2 expand again;
  // act stands between them; the gate is a hard sigmoid, clip(slope * x + offset, 0, 1),
  // or a sigmoid (slope 0).
  const T *weight2, *bias2;
  T *dweight2, *dbias2;
  int64_t reduced;
  double gate_slope, gate_offset;
};

struct Chain {
  int64_t batch, count, threads;
  Layer* layers;
  const T* x;         // [batch, height, width, channels]
  T* out;             // what the last layer gives
  T* saved;           // ppcls_chain_saved_size() scalars that the backward pass needs
  const T* shortcut;  // null, or as out: added to its first shortcut_channels channels
  int64_t shortcut_channels;
  const T* dout;
  T* dx;               // null where the input needs no gradient
  int64_t shortcut_is_x;  // dx then also gets dout's first shortcut_channels channels
};

}  // namespace
