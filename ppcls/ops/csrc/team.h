// Threads that wait for work.
//
// Not OpenMP's: there, every thread of a team has to turn up before a loop is over, and those
// that wait spin for milliseconds. On a machine with other work that keeps the cores from the very
// thread that is waited for; a training step took twenty times as long beside one busy process.
// Here whoever has time takes the next piece, nobody waits for a thread that has taken none, and
// spinning ends after microseconds.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include <unistd.h>

namespace {

class Team {
 public:
  // Never destroyed: its threads end with the process. A forked process has none of them, and gets
  // a team of its own.
  static Team& get() {
    static std::atomic<Team*> team{new Team};
    Team* current = team.load();
    if (current->process_ != getpid()) team.store(current = new Team);
    return *current;
  }

  // Calls f(i) for i in [0, count). A second caller at the same time works alone. Throws
  // std::bad_alloc if any of the calls did.
  void run(int64_t threads, int64_t count, const std::function<void(int64_t)>& f) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) {
      for (int64_t i = 0; i < count; i++) f(i);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      try {
        for (; members_ < threads - 1; members_++) std::thread(&Team::wait_for_work, this, members_).detach();
      } catch (const std::system_error&) {
        // The system gives no more threads: those that there are do the work.
      }
      work_ = &f, count_ = count, wanted_ = threads - 1, failed_ = false;
      next_.store(0);
      round_.fetch_add(1);
    }
    wake_.notify_all();
    take_pieces(f, count);
    std::unique_lock<std::mutex> lock(mutex_);
    work_ = nullptr;  // from here on nobody joins
    lock.unlock();
    for (int i = 0; i < SPINS && active_.load() > 0; i++) pause();
    lock.lock();
    done_.wait(lock, [&] { return active_.load() == 0; });
    if (failed_) throw std::bad_alloc();
  }

 private:
  static constexpr int SPINS = 2000;  // some tens of microseconds at most

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  void take_pieces(const std::function<void(int64_t)>& f, int64_t count) {
    try {
      for (int64_t i = next_.fetch_add(1); i < count; i = next_.fetch_add(1)) f(i);
    } catch (const std::bad_alloc&) {
      failed_ = true;
    }
  }

  void wait_for_work(int64_t number) {
    uint64_t seen = 0;
    for (;;) {
      for (int i = 0; i < SPINS && round_.load() == seen; i++) pause();
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return round_.load() != seen; });
      seen = round_.load();
      if (!work_ || number >= wanted_) continue;
      const std::function<void(int64_t)>& work = *work_;
      const int64_t count = count_;
      active_.fetch_add(1);
      lock.unlock();
      take_pieces(work, count);
      lock.lock();
      if (active_.fetch_sub(1) == 1) done_.notify_one();
    }
  }

  const pid_t process_ = getpid();
  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  int64_t members_ = 0, wanted_ = 0, count_ = 0;
  const std::function<void(int64_t)>* work_ = nullptr;
  std::atomic<int64_t> next_{0}, active_{0};
  std::atomic<uint64_t> round_{0};
  std::atomic<bool> failed_{false};
};

}  // namespace
