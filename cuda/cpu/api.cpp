// The C interface of the CPU backend: checks, chooses the instruction set, shares the tasks out.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "bin.h"
#include "grid_sort_driver.h"
#include "nearest_driver.h"
#include "pool.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace splat {
namespace {

// Best first.
std::vector<const Kernels*> available() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (kernels_avx512() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("bmi2"))
    tables.push_back(kernels_avx512());
  if (kernels_avx2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    tables.push_back(kernels_avx2());
#endif
  tables.push_back(kernels_baseline());
  return tables;
}

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& single() {
  const Kernels* table = chosen.load();
  if (table == nullptr) chosen.store(table = available().front());
  return *table;
}

const Kernels& kernels_for(int32_t dtype) { return dtype == SPLAT_F64 ? *kernels_double() : single(); }

const FootprintKernels& footprint_of(const splat_rows& rows) { return kernels_for(rows.dtype).footprints[rows.footprint]; }

bool known(int32_t footprint) { return footprint >= 0 && footprint < single().footprint_count; }

// Tables that the footprint reads and that are missing or too wide.
bool bad_shape(const splat_rows& r) {
  for (int i = 0; i < footprint_of(r).tables; ++i)
    if (r.count > 0 && (r.shape[i] == nullptr || r.shape_columns[i] < 1 || r.shape_columns[i] > SPLAT_MAX_SHAPE)) return true;
  return false;
}

bool bad(const splat_rows* r, const splat_view* v) {
  return r == nullptr || v == nullptr || (r->dtype != SPLAT_F32 && r->dtype != SPLAT_F64) || !known(r->footprint) ||
         bad_shape(*r) || r->count < 0 || r->count >= (int64_t(1) << 31) || v->width < 1 || v->height < 1 ||
         v->width > 16384 || v->height > 16384 || r->feature_count < 0 || r->feature_count > SPLAT_MAX_CHANNELS ||
         (r->sh_rest_count != 0 && r->sh_rest_count != 3 && r->sh_rest_count != 8 && r->sh_rest_count != 15);
}

int64_t tiles_of(const splat_view& v) {
  return int64_t((v.width + SPLAT_TILE - 1) / SPLAT_TILE) * ((v.height + SPLAT_TILE - 1) / SPLAT_TILE);
}

int64_t row_chunks(const splat_rows& rows) { return (rows.count + kRowChunk - 1) / kRowChunk; }

template <class S>
void gather(const splat_rows& rows, const splat_bins& bins, const S* slots, int stride, int first, int columns,
            int max_column, S* out) {
  parallel_for(row_chunks(rows), [&](int64_t chunk) {
    for (int64_t i = chunk * kRowChunk; i < rows.count && i < (chunk + 1) * kRowChunk; ++i) {
      S* row = out + i * columns;
      for (int c = 0; c < columns; ++c) row[c] = 0;
      const S* slot = slots + int64_t(bins.slot_begin[i]) * stride + first;
      for (uint32_t n = bins.slot_count[i]; n > 0; --n, slot += stride)
        for (int c = 0; c < columns; ++c) row[c] = c == max_column ? std::max(row[c], slot[c]) : row[c] + slot[c];
    }
  });
}

// Sum over pixels of cotangent times transmittance, row by row so that the order of additions is fixed.
template <class S> void background_gradient(const splat_view& view, const S* color, const S* final_T, double* out) {
  const int64_t plane = int64_t(view.width) * view.height;
  std::vector<double> rows(size_t(3) * view.height);
  parallel_for(3 * int64_t(view.height), [&](int64_t i) {
    const int64_t channel = i / view.height, y = i % view.height;
    double sum = 0;
    for (int x = 0; x < view.width; ++x)
      sum += double(color[channel * plane + y * view.width + x]) * double(final_T[y * view.width + x]);
    rows[i] = sum;
  });
  for (int c = 0; c < 3; ++c) {
    out[c] = 0;
    for (int y = 0; y < view.height; ++y) out[c] += rows[size_t(c) * view.height + y];
  }
}

int bits_of(int32_t x) { return __builtin_popcount(uint32_t(x)); }

}  // namespace
}  // namespace splat

using namespace splat;

int32_t splat_abi_version(void) { return SPLAT_ABI_VERSION; }

const char* splat_cpu_isa(void) { return single().isa; }

const char* splat_cpu_isas(void) {
  static const std::string names = [] {
    std::string all;
    for (const Kernels* k : available()) all += (all.empty() ? "" : " ") + std::string(k->isa);
    return all;
  }();
  return names.c_str();
}

int32_t splat_cpu_set_isa(const char* name) {
  for (const Kernels* k : available())
    if (name != nullptr && std::strcmp(k->isa, name) == 0) {
      chosen.store(k);
      return SPLAT_OK;
    }
  return SPLAT_BAD_ARGUMENT;
}

int32_t splat_cpu_threads(void) { return thread_count(); }
void splat_cpu_set_threads(int32_t count) { set_thread_count(count); }

void splat_cpu_keep_memory(void) {
#if defined(__GLIBC__)
  // A step frees and takes back the same large gradients; without this each of them is mapped anew, page by page.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

int32_t splat_forward_stat_stride(int32_t stats, int32_t maps) {
  return bits_of(stats & ~SPLAT_STAT_WEIGHTED) + ((stats & SPLAT_STAT_WEIGHTED) ? 2 * maps : 0);
}

const char* splat_footprints(void) {
  static const std::string names = [] {
    std::string all;
    for (int i = 0; i < single().footprint_count; ++i)
      all += (i ? " " : "") + std::string(single().footprints[i].name);
    return all;
  }();
  return names.c_str();
}

int32_t splat_footprint(const char* name) {
  for (int i = 0; name != nullptr && i < single().footprint_count; ++i)
    if (std::strcmp(single().footprints[i].name, name) == 0) return i;
  return -1;
}

int32_t splat_record_reals(int32_t footprint) {
  return known(footprint) ? single().footprints[footprint].record_reals : 0;
}

int32_t splat_footprint_sums(int32_t footprint) { return known(footprint) ? single().footprints[footprint].sums : 0; }

int32_t splat_backward_slot_stride(int32_t footprint, int32_t stats, int32_t extra_channels) {
  return splat_footprint_sums(footprint) + 3 + extra_channels + bits_of(stats) + ((stats & SPLAT_STAT_ABS_GRAD) ? 1 : 0);
}

int32_t splat_cpu_project(const splat_rows* rows, const splat_view* view, const splat_projected* out) {
  if (bad(rows, view)) return SPLAT_BAD_ARGUMENT;
  const FootprintKernels& k = footprint_of(*rows);
  const ProjectTask task{rows, view, out, nullptr, nullptr, nullptr};
  parallel_for(row_chunks(*rows), [&](int64_t c) { k.project(task, c); });
  return SPLAT_OK;
}

int64_t splat_cpu_bin(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                      const splat_bins* bins, int64_t* visible) {
  if (bad(rows, view)) return -SPLAT_BAD_ARGUMENT;
  return bin(footprint_of(*rows), *rows, *view, *projected, *bins, visible);
}

int32_t splat_cpu_blend(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                        const splat_bins* bins, const splat_images* images) {
  if (bad(rows, view) || images->weight_map_count > SPLAT_MAX_WEIGHT_MAPS) return SPLAT_BAD_ARGUMENT;
  const FootprintKernels& k = footprint_of(*rows);
  const BlendTask task{rows, view, projected, bins, images, nullptr};
  parallel_for(tiles_of(*view), [&](int64_t t) { k.blend(task, t); });
  return SPLAT_OK;
}

int32_t splat_cpu_blend_backward(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                 const splat_bins* bins, const splat_images* images, const splat_image_grads* grads) {
  if (bad(rows, view)) return SPLAT_BAD_ARGUMENT;
  const int extra = (grads->depth_expected || grads->depth_median ? 1 : 0) + (grads->features ? rows->feature_count : 0);
  if (grads->slot_stride != splat_backward_slot_stride(rows->footprint, grads->stats, extra)) return SPLAT_BAD_ARGUMENT;
  const FootprintKernels& k = footprint_of(*rows);
  const BlendTask task{rows, view, projected, bins, images, grads};
  parallel_for(tiles_of(*view), [&](int64_t t) { k.blend_backward(task, t); });
  if (grads->background && rows->dtype == SPLAT_F64)
    background_gradient(*view, (const double*)grads->color, (const double*)images->final_T, grads->background);
  else if (grads->background)
    background_gradient(*view, (const float*)grads->color, (const float*)images->final_T, grads->background);
  return SPLAT_OK;
}

int32_t splat_cpu_project_backward(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                   const splat_bins* bins, const splat_image_grads* slots, const splat_row_grads* out) {
  if (bad(rows, view) || (out->camera != nullptr && out->camera_scratch == nullptr)) return SPLAT_BAD_ARGUMENT;
  const FootprintKernels& k = footprint_of(*rows);
  const ProjectTask task{rows, view, projected, bins, slots, out};
  parallel_for(row_chunks(*rows), [&](int64_t c) { k.project_backward(task, c); });
  if (out->camera)
    for (int i = 0; i < SPLAT_CAMERA_GRAD; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < row_chunks(*rows); ++c) sum += out->camera_scratch[c * SPLAT_CAMERA_GRAD + i];
      out->camera[i] = sum;
    }
  return SPLAT_OK;
}

int32_t splat_cpu_gather_stats(const splat_rows* rows, const splat_bins* bins, const void* slot_stats, int32_t slot_stride,
                               int32_t first, int32_t columns, int32_t max_column, void* out) {
  if (first < 0 || columns < 1 || first + columns > slot_stride) return SPLAT_BAD_ARGUMENT;
  if (rows->dtype == SPLAT_F64)
    gather(*rows, *bins, (const double*)slot_stats, slot_stride, first, columns, max_column, (double*)out);
  else
    gather(*rows, *bins, (const float*)slot_stats, slot_stride, first, columns, max_column, (float*)out);
  return SPLAT_OK;
}

int32_t splat_cpu_photometric(int32_t dtype, int32_t width, int32_t height, const void* color, const uint8_t* target,
                              const uint8_t* mask, const void* l1_weights, double ssim_weight, void* grad,
                              void* scratch, double* sums) {
  if (width < 1 || height < 1 || width > 16384 || height > 16384) return SPLAT_BAD_ARGUMENT;
  const int64_t bands = bands_of(height), plane = int64_t(width) * height;
  double weight = double(plane);
  if (mask) {
    int64_t total = 0;
    for (int64_t i = 0; i < plane; ++i) total += mask[i];
    weight = double(total) / 255;
  }
  // Nothing counts: no loss, no gradient.
  const double scale = weight > 0 ? 1 / (3 * weight) : 0;
  const Kernels& k = kernels_for(dtype);
  std::vector<double> band_sums(size_t(9 * bands));
  const PhotometricTask task{width, height, color, target, mask, l1_weights,
                             ssim_weight, scale, scale, grad, scratch, band_sums.data()};
  parallel_for(3 * bands, [&](int64_t i) { k.photometric_statistics(task, i); });
  double l1 = 0, ssim = 0, weighted_l1 = 0;
  for (int64_t i = 0; i < 3 * bands; ++i)
    l1 += band_sums[3 * i], ssim += band_sums[3 * i + 1], weighted_l1 += band_sums[3 * i + 2];
  l1 *= scale, weighted_l1 *= scale, ssim = weight > 0 ? ssim * scale : 1;
  sums[0] = (1 - ssim_weight) * weighted_l1 + ssim_weight * (1 - ssim), sums[1] = l1, sums[2] = ssim;
  if (grad) parallel_for(3 * bands, [&](int64_t i) { k.photometric_gradient(task, i); });
  return SPLAT_OK;
}

int32_t splat_cpu_adam(int32_t dtype, int64_t count, void* param, const void* grad, void* m, void* v, double lr,
                       double beta1, double beta2, double eps, int64_t step) {
  if (count < 0 || step < 1) return SPLAT_BAD_ARGUMENT;
  const Kernels& k = kernels_for(dtype);
  const AdamTask task{count, param, grad, m, v, lr, beta1, beta2, eps,
                      1 - std::pow(beta1, double(step)), 1 - std::pow(beta2, double(step))};
  parallel_for((count + kAdamChunk - 1) / kAdamChunk, [&](int64_t c) { k.adam(task, c); });
  return SPLAT_OK;
}

int32_t splat_cpu_grid_sort(const splat_grid* grid, int32_t* order, double* distances) {
  const splat_grid& g = *grid;
  if (g.height < 0 || g.width < 0 || g.channels < 1 || g.channels > 1024 || g.rounds < 1 || g.least_turns < 0 ||
      (g.dtype != SPLAT_F32 && g.dtype != SPLAT_F64) || int64_t(g.height) * g.width >= int64_t(1) << 31 ||
      !(g.last_radius >= 1) || !(g.first_radius <= 1e6) || !(g.shrink > 0 && g.shrink < 1))
    return SPLAT_BAD_ARGUMENT;
  distances[0] = distances[1] = 0;
  if (g.height > 0 && g.width > 0) grid_sort(kernels_for(g.dtype), g, order, distances);
  return SPLAT_OK;
}

int32_t splat_cpu_nearest(const splat_nearest* task, int32_t* labels, float* sq_distances) {
  const splat_nearest& t = *task;
  if (t.count < 0 || t.centroid_count < 1 || t.centroid_count > SPLAT_MAX_CENTROIDS || t.dim < 1 || t.dim > 1024 ||
      t.lists < 1 || t.point_begin[0] != 0 || t.point_begin[t.lists] != t.count || t.candidate_begin[0] != 0)
    return SPLAT_BAD_ARGUMENT;
  for (int64_t i = 0; i < t.lists; ++i) {
    const int64_t candidates = t.candidate_begin[i + 1] - t.candidate_begin[i];
    if (t.point_begin[i + 1] < t.point_begin[i] || candidates < 1 || candidates > SPLAT_MAX_CENTROIDS)
      return SPLAT_BAD_ARGUMENT;
  }
  const int64_t listed = t.candidate_begin[t.lists];
  if (t.candidates == nullptr && listed > t.centroid_count) return SPLAT_BAD_ARGUMENT;
  for (int64_t i = 0; t.candidates != nullptr && i < listed; ++i)
    if (t.candidates[i] < 0 || t.candidates[i] >= t.centroid_count) return SPLAT_BAD_ARGUMENT;
  nearest(single(), t, labels, sq_distances);
  return SPLAT_OK;
}

#if !defined(__x86_64__)
namespace splat {
const Kernels* kernels_avx2() { return nullptr; }
const Kernels* kernels_avx512() { return nullptr; }
}  // namespace splat
#endif
