// A pool of plain threads that share out numbered tasks. Results must not depend on who runs a task.
#pragma once
#include <cstdint>

namespace splat {

using Task = void (*)(const void* context, int64_t index);

// Runs task(context, i) for i in [0, count), in any order, on up to thread_count() threads; the caller takes part.
// A second caller at the same time waits for its turn, but not for long: then it runs its tasks alone, as does a task
// that asks for threads. Subnormals are flushed to zero inside tasks.
void parallel_for(int64_t count, Task task, const void* context);

template <class F> void parallel_for(int64_t count, const F& f) {
  parallel_for(count, [](const void* c, int64_t i) { (*static_cast<const F*>(c))(i); }, &f);
}

int thread_count();
void set_thread_count(int count);  // 0 = one per processor this process may use

}  // namespace splat
