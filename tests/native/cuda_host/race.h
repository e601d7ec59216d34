// What the runtime tells the race detector; nothing without -DSPLAT_HOST_RACE.
#pragma once
#include <cstddef>
#include <cstdint>

namespace splat_host {
enum Access { READ_ACCESS, WRITE_ACCESS, ATOMIC_ACCESS, COPY_ACCESS };  // COPY: a write that is under way
#if SPLAT_HOST_RACE
void race_launch(const char* kernel);
void race_end();
void race_block(uint64_t block);
void race_barrier();
void race_warp_barrier(unsigned base, unsigned members);
void race_stacks(const void* memory, size_t bytes);
void race_shared(const void* memory, size_t bytes, const char* name);
void race_free(const void* memory, size_t bytes);
void race_access(const void* memory, size_t bytes, Access kind, const void* where);
#else
inline void race_launch(const char*) {}
inline void race_end() {}
inline void race_block(uint64_t) {}
inline void race_barrier() {}
inline void race_warp_barrier(unsigned, unsigned) {}
inline void race_stacks(const void*, size_t) {}
inline void race_shared(const void*, size_t, const char*) {}
inline void race_free(const void*, size_t) {}
inline void race_access(const void*, size_t, Access, const void*) {}
#endif
}  // namespace splat_host
