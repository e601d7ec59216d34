// What each instruction set provides: one function per kind of task. Tasks write disjoint memory and their
// boundaries do not depend on the number of threads, so neither do the results.
#pragma once
#include "../include/splat.h"

namespace splat {

constexpr int64_t kRowChunk = 1024;   // splats per projection task
constexpr int64_t kAdamChunk = 1 << 15;
constexpr int kBandRows = 32;         // image rows per SSIM task

constexpr int64_t bands_of(int height) { return (height + kBandRows - 1) / kBandRows; }

struct BinTask {
  const splat_rows* rows;
  const splat_view* view;
  const splat_projected* projected;
  const splat_bins* bins;
  uint32_t* tile_of_slot;  // [capacity]
};

struct BlendTask {
  const splat_rows* rows;
  const splat_view* view;
  const splat_projected* projected;
  const splat_bins* bins;
  const splat_images* images;
  const splat_image_grads* grads;  // backward only
};

struct ProjectTask {
  const splat_rows* rows;
  const splat_view* view;
  const splat_projected* projected;
  const splat_bins* bins;          // backward only
  const splat_image_grads* slots;  // backward only
  const splat_row_grads* out;      // backward only
};

struct PhotometricTask {
  int width, height;
  const void* color;
  const uint8_t* target;
  const uint8_t* mask;
  const void* l1_weights;  // [H,W] reals or null
  double ssim_weight;
  double l1_scale, ssim_scale;  // 1 / (3 sum of weights)
  void* grad;
  void* maps;         // [9,H,W]: three derivative maps per channel
  double* band_sums;  // [bands,3]: l1, ssim, weighted l1
};

struct AdamTask {
  int64_t count;
  void* param;
  const void* grad;
  void *m, *v;
  double lr, beta1, beta2, eps, correction1, correction2;
};

// Groups of four rows of a grid (see grid_sort.h).
struct GridTask {
  int width, channels, rounds;
  void* cells;            // [H,channels+1,W] reals; the last plane holds bits
  const void* targets;    // [H,channels,W]
  const int32_t* rows;    // [groups,4], no row twice
  const int32_t* shifts;  // [groups,rounds,4] in [0,W)
  double* gains;          // [groups] by how much the scores grew
};

constexpr int kNearestRows = 4, kNearestColumns = 32;

// Points against centroids that are laid out [columns / 32, dim, 32] (see nearest.h).
struct NearestTask {
  int64_t rows;
  int dim, columns;        // columns: a multiple of kNearestColumns
  int32_t first_column;    // of `packed`, among all that the rows meet
  const void* points;      // [rows,dim]
  const void* packed;      // centroids
  const void* half_norms;  // [columns]
  void* best;              // [rows,2]
  int32_t* indices;        // [rows,2]
};

// One footprint's tasks, and the sizes of what they leave.
struct FootprintKernels {
  const char* name;
  int record_reals, sums, tables;  // tables: of the rows' shape, that it reads
  void (*project)(const ProjectTask&, int64_t chunk);
  void (*walk)(const BinTask&, int64_t chunk);
  void (*blend)(const BlendTask&, int64_t tile);
  void (*blend_backward)(const BlendTask&, int64_t tile);
  void (*project_backward)(const ProjectTask&, int64_t chunk);
};

struct Kernels {
  const char* isa;
  int footprint_count;
  const FootprintKernels* footprints;
  void (*photometric_statistics)(const PhotometricTask&, int64_t task);  // channel * bands + band
  void (*photometric_gradient)(const PhotometricTask&, int64_t task);
  void (*adam)(const AdamTask&, int64_t chunk);
  void (*grid_group)(const GridTask&, int64_t group);
  void (*nearest)(const NearestTask&, int64_t first_row);
};

const Kernels* kernels_baseline();
const Kernels* kernels_double();
const Kernels* kernels_avx2();    // null when not built
const Kernels* kernels_avx512();

}  // namespace splat
