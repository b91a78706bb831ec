// Convolution as a matrix product over blocks of output pixels: each block of input patches is
// read with the pending normalisation applied, used, and forgotten, so that neither patches nor
// normalised maps are ever stored.
#pragma once

#include <vector>

#include "layer.h"
#include "matmul.h"

namespace {

// A group's weights as a matrix [patch, outputs]; the patch runs over kernel row, kernel column,
// channel. Paddle stores [outputs, channels, kernel row, kernel column].
class Weights {
 public:
  explicit Weights(const Layer& l)
      : depth(l.channels_in / l.groups * l.kernel * l.kernel), outputs(l.channels_out / l.groups), offsets_(depth) {
    const int64_t channels = l.channels_in / l.groups, area = l.kernel * l.kernel;
    for (int64_t place = 0; place < area; place++)
      for (int64_t c = 0; c < channels; c++) offsets_[place * channels + c] = c * area + place;
  }
  // Where element (k, n) of a group lies.
  int64_t at(int64_t group, int64_t k, int64_t n) const { return (group * outputs + n) * depth + offsets_[k]; }

  const int64_t depth, outputs;

 private:
  std::vector<int64_t> offsets_;
};

// A matrix [depth, columns] in panels of columns, from f(row, column).
template <class F>
void pack(int64_t depth, int64_t columns, T* out, int64_t threads, F f) {
  parallel_for(depth * columns > 16384 ? threads : 1, panels(columns), [&](int64_t p) {
    T* to = out + p * depth * PANEL;
    const int64_t n = std::min<int64_t>(columns - p * PANEL, PANEL);
    for (int64_t k = 0; k < depth; k++) {
      for (int64_t j = 0; j < n; j++) to[k * PANEL + j] = f(k, p * PANEL + j);
      for (int64_t j = n; j < PANEL; j++) to[k * PANEL + j] = 0;
    }
  });
}

// Where the rows of an input patch come from.
struct Patches {
  const Layer& l;
  const Source& source;

  bool pointwise() const {
    return l.kernel == 1 && l.stride == 1 && l.pad_top == 0 && l.pad_left == 0 && l.in_h == l.out_h && l.in_w == l.out_w;
  }

  // Fills a block with the patches of output pixels [first, first + rows) for one group.
  void read(int64_t first, int64_t rows, int64_t group, T* block) const {
    const int64_t channels = l.channels_in / l.groups;
    if (pointwise()) {
      source.read(first, rows, group * channels, channels, block, PANEL, PANEL_STRIDE);
      return;
    }
    // Columns [k, k + n) of a row of the block; they cross panels at any place.
    auto put = [&](int64_t r, int64_t k, const T* from, int64_t n) {
      while (n > 0) {
        const int64_t column = k % PANEL, some = std::min<int64_t>(n, PANEL - column);
        T* to = block + k / PANEL * PANEL_STRIDE + r * PANEL + column;
        from ? std::memcpy(to, from, some * sizeof(T)) : std::memset(to, 0, some * sizeof(T));
        if (from) from += some;
        k += some, n -= some;
      }
    };
    const bool raw = !source.pending.scale && !source.pending.gate && l.groups == 1;
    T pixel[PANEL];
    for (int64_t r = 0; r < rows; r++) {
      const int64_t at = first + r, image = at / (l.out_h * l.out_w);
      const int64_t top = at / l.out_w % l.out_h * l.stride - l.pad_top;
      const int64_t left = at % l.out_w * l.stride - l.pad_left;
      for (int64_t i = 0, k = 0; i < l.kernel; i++) {
        const int64_t h = top + i, row = (image * l.in_h + h) * l.in_w;
        if (h < 0 || h >= l.in_h) {
          put(r, k, nullptr, l.kernel * channels);
          k += l.kernel * channels;
        } else if (raw && left >= 0 && left + l.kernel <= l.in_w) {  // one run of memory
          put(r, k, source.data + (row + left) * channels, l.kernel * channels);
          k += l.kernel * channels;
        } else {
          for (int64_t w = left; w < left + l.kernel; w++)
            for (int64_t c = 0; c < channels; c += PANEL) {
              const int64_t n = std::min<int64_t>(PANEL, channels - c);
              const bool inside = w >= 0 && w < l.in_w;
              if (inside) source.read(row + w, 1, group * channels + c, n, pixel, PANEL, PANEL);
              put(r, k, inside ? pixel : nullptr, n);
              k += n;
            }
        }
      }
    }
  }
};

// How output pixels are cut: blocks of at most BLOCK rows, of equal size as far as possible.
struct Blocks {
  int64_t rows, count;
  explicit Blocks(int64_t rows) : rows(rows), count(std::max((rows + BLOCK - 1) / BLOCK, std::min<int64_t>(2, rows))) {}
  int64_t begin(int64_t block) const { return rows * block / count; }
};

// y = convolution of the source; `finish(slot, first pixel, rows)` sees each block while it is
// in the cache.
template <class Finish>
void convolution_forward(const Layer& l, const Source& source, int64_t batch, T* y, int64_t threads, Slots slots,
                         const Blocks& blocks, Finish finish) {
  const Weights weights(l);
  const int64_t depth = weights.depth, outputs = weights.outputs;
  const int64_t packed_size = panels(outputs) * depth * PANEL;
  Buffer packed(packed_size * l.groups, Fill::none);
  for (int64_t g = 0; g < l.groups; g++)
    pack(depth, outputs, packed.get() + g * packed_size, threads,
         [&](int64_t k, int64_t n) { return l.weight[weights.at(g, k, n)]; });
  const Patches patches{l, source};
  parallel_for(threads, slots.count, [&](int64_t slot) {
    Buffer block(block_size(depth), Fill::none);
    for (int64_t b = slots.begin(slot); b < slots.end(slot); b++) {
      const int64_t first = blocks.begin(b), rows = blocks.begin(b + 1) - first;
      for (int64_t g = 0; g < l.groups; g++) {
        patches.read(first, rows, g, block.get());
        multiply(block.get(), rows, depth, packed.get() + g * packed_size, outputs,
                 y + first * l.channels_out + g * outputs, l.channels_out);
      }
      finish(slot, first, rows);
    }
  });
}

// Adds the rows of a block of patch gradients to the pixels that they came from.
inline void scatter_patches(const Layer& l, const T* patch, int64_t first, int64_t rows, int64_t group, T* dx) {
  const int64_t channels = l.channels_in / l.groups, depth = channels * l.kernel * l.kernel;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t at = first + r, image = at / (l.out_h * l.out_w);
    const int64_t top = at / l.out_w % l.out_h * l.stride - l.pad_top;
    const int64_t left = at % l.out_w * l.stride - l.pad_left;
    for (int64_t i = 0; i < l.kernel; i++)
      for (int64_t j = 0; j < l.kernel; j++) {
        const int64_t h = top + i, w = left + j;
        if (h < 0 || h >= l.in_h || w < 0 || w >= l.in_w) continue;
        T* to = dx + ((image * l.in_h + h) * l.in_w + w) * l.channels_in + group * channels;
        add_rows(to, patch + r * depth + (i * l.kernel + j) * channels, 1, channels, channels);
      }
  }
}

// Weight gradient (where l.dweight is given) and input gradient (where dx is). A pointwise
// convolution is cut by blocks of pixels; any other by images, as its patches overlap.
// `finish(slot, first input pixel, rows)` sees each part of dx while it is in the cache.
template <class Finish>
void convolution_backward(const Layer& l, const Source& source, const Gradient& gradient, int64_t batch, T* dx,
                          int64_t threads, Slots slots, const Blocks& blocks, Finish finish) {
  const Weights weights(l);
  const int64_t depth = weights.depth, outputs = weights.outputs;
  const int64_t packed_size = panels(depth) * outputs * PANEL;
  Buffer packed(dx ? packed_size * l.groups : 1, Fill::none);
  if (dx)
    for (int64_t g = 0; g < l.groups; g++)
      pack(outputs, depth, packed.get() + g * packed_size, threads,
           [&](int64_t n, int64_t k) { return l.weight[weights.at(g, k, n)]; });
  const Patches patches{l, source};
  const int64_t sum_size = outer_size(depth, outputs), sums_size = sum_size * l.groups;
  Buffer sums(l.dweight ? slots.count * sums_size : 1, Fill::none);
  const int64_t in_pixels = l.in_h * l.in_w, out_pixels = l.out_h * l.out_w;
  const bool pointwise = patches.pointwise();

  parallel_for(threads, slots.count, [&](int64_t slot) {
    Buffer inputs(block_size(depth), Fill::none), outs(block_size(outputs), Fill::none);
    Buffer patch(pointwise ? 1 : BLOCK * depth, Fill::none);
    T* sum = sums.get() + slot * sums_size;
    if (l.dweight) std::memset(sum, 0, sums_size * sizeof(T));
    auto block = [&](int64_t first, int64_t rows) {
      for (int64_t g = 0; g < l.groups; g++) {
        gradient.read(first, rows, g * outputs, outputs, outs.get(), PANEL, PANEL_STRIDE);
        if (l.dweight) {
          patches.read(first, rows, g, inputs.get());
          accumulate_outer(inputs.get(), depth, outs.get(), outputs, rows, sum + g * sum_size);
        }
        if (!dx) continue;
        const T* transposed = packed.get() + g * packed_size;
        if (pointwise) {
          multiply(outs.get(), rows, outputs, transposed, depth, dx + first * l.channels_in + g * depth, l.channels_in);
        } else {
          multiply(outs.get(), rows, outputs, transposed, depth, patch.get(), depth);
          scatter_patches(l, patch.get(), first, rows, g, dx);
        }
      }
    };
    for (int64_t task = slots.begin(slot); task < slots.end(slot); task++) {
      if (pointwise) {
        const int64_t first = blocks.begin(task), rows = blocks.begin(task + 1) - first;
        block(first, rows);
        if (dx) finish(slot, first, rows);
      } else {
        if (dx) std::memset(dx + task * in_pixels * l.channels_in, 0, in_pixels * l.channels_in * sizeof(T));
        for (int64_t r = 0; r < out_pixels; r += BLOCK)
          block(task * out_pixels + r, std::min<int64_t>(BLOCK, out_pixels - r));
        if (dx) finish(slot, task * in_pixels, in_pixels);
      }
    }
  });

  if (!l.dweight) return;
  const int64_t stride = outer_stride(outputs);
  constexpr int64_t ROWS = 16;  // of the sum at a time, so that a run of them is written together
  const int64_t parts = (depth + ROWS - 1) / ROWS;
  parallel_for(sums_size > 16384 ? threads : 1, l.groups * parts, [&](int64_t i) {
    const int64_t g = i / parts, first = i % parts * ROWS, last = std::min(first + ROWS, depth);
    T* total = sums.get() + g * sum_size;
    for (int64_t s = 1; s < slots.count; s++)
      for (int64_t n = first * stride; n < last * stride; n += L)
        store(total + n, load(total + n) + load(total + s * sums_size + n));
    for (int64_t n = 0; n < outputs; n++)
      for (int64_t k = first; k < last; k++) l.dweight[weights.at(g, k, n)] = total[k * stride + n];
  });
}

}  // namespace
