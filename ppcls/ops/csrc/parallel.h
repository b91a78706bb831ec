// Work shared among threads, so that the sums do not depend on how many there are.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "team.h"
#include "vector.h"

namespace {

// Asks for large pages under a large array: it is faulted in, and found again, 512 small ones at
// a time.
inline void use_large_pages(void* data, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 1 << 21;
  const uintptr_t first = round_up((uintptr_t)data, PAGE), end = ((uintptr_t)data + bytes) / PAGE * PAGE;
  if (first < end) madvise((void*)first, end - first, MADV_HUGEPAGE);
#endif
}

// Memory that starts at a cache line; it holds zeros unless it is asked for as it comes.
enum class Fill { zeros, none };
class Buffer {
 public:
  explicit Buffer(int64_t count, Fill fill = Fill::zeros) {
    size_t bytes = round_up(std::max<int64_t>(count, 1) * sizeof(T), 64);
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (!data_) throw std::bad_alloc();
    use_large_pages(data_, bytes);
    if (fill == Fill::zeros) std::memset(data_, 0, bytes);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// Calls f(i) for i in [0, count) on at most `threads` threads, this one among them.
template <class F>
void parallel_for(int64_t threads, int64_t count, F f) {
  if (std::min(threads, count) > 1)
    Team::get().run(std::min(threads, count), count, [&f](int64_t i) { f(i); });
  else
    for (int64_t i = 0; i < count; i++) f(i);
}

// A range of tasks cut into slots. A slot is worked on by one thread, in order, into its own
// partial sums; the slots' sums are then added in order. As the cut depends on the number of
// threads only beyond 16 of them, the result is the same bits for 1 to 16 threads. `rows` is
// the number of pixels behind the tasks: little work is not worth many partial sums.
struct Slots {
  int64_t tasks, count;
  Slots(int64_t tasks, int64_t rows, int64_t threads)
      : tasks(tasks),
        count(std::min(tasks, std::clamp<int64_t>(rows / 256, 2, std::max<int64_t>(16, threads)))) {}
  int64_t begin(int64_t slot) const { return tasks * slot / count; }
  int64_t end(int64_t slot) const { return tasks * (slot + 1) / count; }
};

}  // namespace
