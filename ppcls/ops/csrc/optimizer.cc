// The optimizer's update of all parameters in one call.
#include "parallel.h"

namespace {

constexpr int64_t PIECE = 1 << 14;  // scalars that are dealt out at a time

struct Parameter {  // ppcls/ops/optimizer.py has the same fields
  T *value, *velocity;
  const T* gradient;
  int64_t size;
  double decay;  // factor of the L2 penalty
  double share;  // the parameter's own factor of the learning rate
};

// v = momentum v + g with g = gradient + decay w; then w -= rate v, or with Nesterov's step
// w -= rate (g + momentum v).
void momentum_update(const Parameter& p, int64_t from, int64_t to, T rate, T momentum, bool nesterov) {
  const T decay = p.decay;
  for (int64_t i = from; i < to; i += L) {
    const int64_t n = to - i;
    const V w = load(p.value + i, n), g = load(p.gradient + i, n) + decay * w;
    const V v = momentum * load(p.velocity + i, n) + g;
    store(p.velocity + i, v, n);
    store(p.value + i, w - rate * (nesterov ? g + momentum * v : v), n);
  }
}

int64_t pieces(const Parameter& p) { return (p.size + PIECE - 1) / PIECE; }

}  // namespace

#include "export.h"

EXPORT void NAME(ppcls_momentum)(const Parameter* parameters, int64_t count, double rate, double momentum,
                                     int64_t nesterov, int64_t threads) {
  int64_t all = 0;
  for (int64_t i = 0; i < count; i++) all += pieces(parameters[i]);
  const int64_t runs = std::min<int64_t>(all, 4 * threads);
  parallel_for(threads, runs, [&](int64_t run) {
    const int64_t first = all * run / runs, last = all * (run + 1) / runs;
    int64_t at = 0;  // pieces of the parameters before
    for (int64_t i = 0; i < count && at < last; at += pieces(parameters[i++])) {
      const Parameter& p = parameters[i];
      const int64_t from = std::max<int64_t>(first - at, 0), to = std::min(last - at, pieces(p));
      if (from < to)
        momentum_update(p, from * PIECE, std::min(to * PIECE, p.size), rate * p.share, momentum, nesterov);
    }
  });
}
