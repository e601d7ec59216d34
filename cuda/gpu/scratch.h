// Lays several arrays out in one piece of memory: the same code counts the bytes and hands out the pointers.
#pragma once
#include <cstddef>
#include <cstdint>

#include "launch.h"

namespace splat {
namespace gpu {

class Scratch {
 public:
  Scratch() : memory_(nullptr), bytes_(0), used_(0) {}  // counts only
  explicit Scratch(const splat_scratch& given)
      : memory_(static_cast<unsigned char*>(given.memory)), bytes_(given.bytes), used_(0) {
#if defined(SPLAT_HOST_CUDA)
    ::splat_host::unguard(memory_, bytes_);
#endif
  }

  // The next `count` elements, 256-byte aligned within the memory; nullptr while counting.
  template <class T> T* take(int64_t count) { return reinterpret_cast<T*>(take_bytes(size_t(count) * sizeof(T))); }
  void* take_bytes(size_t bytes) {
    unsigned char* at = memory_ ? memory_ + used_ : nullptr;
    const size_t end = used_ + bytes;
    used_ = (end + 255) / 256 * 256;
#if defined(SPLAT_HOST_CUDA)
    used_ += 256;  // fenced, so that a sanitizer sees an array being overrun
    if (memory_ && used_ <= bytes_) ::splat_host::guard(memory_ + end, used_ - end);
#endif
    return at;
  }
  size_t used() const { return used_; }
  bool enough() const { return memory_ != nullptr && used_ <= bytes_; }

 private:
  unsigned char* memory_;
  size_t bytes_, used_;
};

}  // namespace gpu
}  // namespace splat
