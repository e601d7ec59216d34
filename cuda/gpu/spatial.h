// Morton order of points: neighbours in the order are neighbours in space.
#pragma once
#include "scratch.h"
#include "sort.h"

namespace splat {
namespace gpu {

struct MortonMemory {
  uint64_t* codes[2];   // [N] 21 bits per axis, the top bit set for finite points
  uint32_t* order[2];   // [N]
  float* boxes;         // [kBoxBlocks + 1, 6]
  void* sort;
  size_t sort_bytes;

  MortonMemory(Scratch& from, int64_t count);
};

// The rows in Morton order; points that are not finite come first. `order` is one of memory.order.
int32_t morton_order(int64_t count, const float* points, const MortonMemory& memory, uint32_t** order,
                     cudaStream_t stream);

}  // namespace gpu
}  // namespace splat
