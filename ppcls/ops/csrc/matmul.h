// Matrix products of blocks of rows, in registers.
//
// A block holds up to BLOCK rows in panels of PANEL columns: element (r, k) lies at
// [k / PANEL][r][k % PANEL]. In that form a block stays in the second-level cache, every tile
// reads it with constant offsets, and the same block serves as left operand of the product
// (forward and input gradient) and as either operand of the weight gradient.
#pragma once

#include <utility>

#include "rows.h"

namespace {

// Accumulators fill the registers: 14 x 2 of 32 with AVX-512, 6 x 2 of 16 elsewhere.
constexpr int TILE = VECTOR_BYTES == 64 ? 14 : 6;
constexpr int BLOCK = VECTOR_BYTES == 64 ? 56 : 60;
constexpr int OUTER = std::min(VECTOR_BYTES == 64 ? 8 : 4, PANEL);
constexpr int64_t PANEL_STRIDE = BLOCK * PANEL;

inline int64_t panels(int64_t columns) { return (columns + PANEL - 1) / PANEL; }
inline int64_t block_size(int64_t columns) { return panels(columns) * PANEL_STRIDE; }

// out[r, 0..columns) = sum over k of a[r, k] * b[k, :]; b is one panel of columns.
template <int ROWS, int VECTORS>
void tile(const T* a, const T* b, int64_t depth, T* out, int64_t out_stride, int64_t columns) {
  V sum[ROWS][VECTORS] = {};
  for (; depth > 0; depth -= PANEL, a += PANEL_STRIDE) {
    const int n = (int)std::min<int64_t>(depth, PANEL);
    for (int k = 0; k < n; k++, b += PANEL) {
      V right[VECTORS];
#pragma GCC unroll 2
      for (int j = 0; j < VECTORS; j++) right[j] = load(b + j * L);
#pragma GCC unroll 14
      for (int r = 0; r < ROWS; r++) {
        const V left = splat(a[r * PANEL + k]);
#pragma GCC unroll 2
        for (int j = 0; j < VECTORS; j++) sum[r][j] += left * right[j];
      }
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++)
      if (columns > j * L) store(out + r * out_stride + j * L, sum[r][j], columns - j * L);
}

using Tile = void (*)(const T*, const T*, int64_t, T*, int64_t, int64_t);
template <int VECTORS, int... R>
constexpr Tile tile_of_rows(int rows, std::integer_sequence<int, R...>) {
  constexpr Tile table[] = {tile<R + 1, VECTORS>...};
  return table[rows - 1];
}

// out[rows, columns] = block[rows, depth] * packed[depth, columns]
inline void multiply(const T* block, int64_t rows, int64_t depth, const T* packed, int64_t columns, T* out,
                     int64_t out_stride) {
  using Rows = std::make_integer_sequence<int, TILE>;
  for (int64_t c = 0; c < columns; c += PANEL, packed += depth * PANEL) {
    const int64_t n = std::min<int64_t>(columns - c, PANEL);
    for (int64_t r = 0; r < rows; r += TILE) {
      const int height = (int)std::min<int64_t>(rows - r, TILE);
      Tile f = n > L ? tile_of_rows<2>(height, Rows{}) : tile_of_rows<1>(height, Rows{});
      f(block + r * PANEL, packed, depth, out + r * out_stride + c, out_stride, n);
    }
  }
}

// sum[i, :] += sum over rows of a[r, i] * b[r, :] for OUTER columns of a and a panel of b
template <int VECTORS>
void outer_tile(const T* a, const T* b, int64_t rows, T* sum, int64_t sum_stride) {
  V s[OUTER][VECTORS];
#pragma GCC unroll 8
  for (int i = 0; i < OUTER; i++)
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++) s[i][j] = load(sum + i * sum_stride + j * L);
  for (int64_t r = 0; r < rows; r++, a += PANEL, b += PANEL) {
    V right[VECTORS];
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++) right[j] = load(b + j * L);
#pragma GCC unroll 8
    for (int i = 0; i < OUTER; i++) {
      const V left = splat(a[i]);
#pragma GCC unroll 2
      for (int j = 0; j < VECTORS; j++) s[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < OUTER; i++)
#pragma GCC unroll 2
    for (int j = 0; j < VECTORS; j++) store(sum + i * sum_stride + j * L, s[i][j]);
}

// sum[a_columns, b_columns] += a^T * b, both blocks of `rows` rows; sum's rows are
// `outer_stride(b_columns)` apart and it has room for whole panels both ways.
inline int64_t outer_stride(int64_t b_columns) { return panels(b_columns) * PANEL; }
inline int64_t outer_size(int64_t a_columns, int64_t b_columns) {
  return panels(a_columns) * PANEL * outer_stride(b_columns);
}
inline void accumulate_outer(const T* a, int64_t a_columns, const T* b, int64_t b_columns, int64_t rows, T* sum) {
  const int64_t stride = outer_stride(b_columns);
  for (int64_t j = 0; j < b_columns; j += PANEL)
    for (int64_t i = 0; i < a_columns; i += OUTER) {
      const T* left = a + i / PANEL * PANEL_STRIDE + i % PANEL;
      const T* right = b + j / PANEL * PANEL_STRIDE;
      T* at = sum + i * stride + j;
      b_columns - j > L ? outer_tile<2>(left, right, rows, at, stride) : outer_tile<1>(left, right, rows, at, stride);
    }
}

}  // namespace
