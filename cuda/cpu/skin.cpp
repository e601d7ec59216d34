// Points carried along by the nodes of a graph: one pass over the points, 200 bytes each and no state between them. Bound
// by the gathers of four nodes (76 bytes each, 100 KB in all), so it is plain code, the same for every instruction set.
#include <cmath>

#include "../include/splat.h"
#include "pool.h"

namespace splat {
namespace {

constexpr int K = SPLAT_SKIN_NODES;
constexpr int64_t kPoints = 2048;  // per task

// How far node n takes a point at rest in x.
void displacement(const splat_skin& t, int32_t n, const float* x, float* out) {
  const float *g = t.rest + 3 * int64_t(n), *s = t.shifts + 3 * int64_t(n), *a = t.linear + 9 * int64_t(n);
  const float u = x[0] - g[0], v = x[1] - g[1], w = x[2] - g[2];
  for (int r = 0; r < 3; ++r) out[r] = (a[3 * r] * u + a[3 * r + 1] * v + a[3 * r + 2] * w) + s[r];
}

// The nodes' turns, on the side of the first one's; then only `m` of it, on the side of no turn.
void blend_turns(const splat_skin& t, const int32_t* nodes, const float* weights, float m, float* out) {
  const float* first = t.turns + 4 * int64_t(nodes[0]);
  float q[4] = {0, 0, 0, 0};
  for (int k = 0; k < K; ++k) {
    const float* p = t.turns + 4 * int64_t(nodes[k]);
    const float along = p[0] * first[0] + p[1] * first[1] + p[2] * first[2] + p[3] * first[3];
    const float w = along < 0 ? -weights[k] : weights[k];
    for (int i = 0; i < 4; ++i) q[i] += w * p[i];
  }
  if (m < 1) {
    const float sign = q[0] < 0 ? -m : m;
    for (int i = 0; i < 4; ++i) q[i] *= sign;
    q[0] += 1 - m;
  }
  const float norm = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  const bool sound = norm > 1e-12f;
  for (int i = 0; i < 4; ++i) out[i] = sound ? q[i] / norm : float(i == 0);
}

// 1 + m (sum w (A - 1) + sum (d_k - d_0) grad w_k) + d grad m. The gradients of the weights add up to nothing, so d_0 can
// be taken away: far moves would else leave differences of large numbers.
void blend_gradients(const splat_skin& t, int64_t i, const float (*d)[3], const float* sum, float* out) {
  const int32_t* nodes = t.nodes + K * i;
  const float* grads = t.weight_gradients + 3 * K * i;
  const float m = t.softness[i];
  float f[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
  for (int k = 0; k < K; ++k) {
    const float *a = t.linear + 9 * int64_t(nodes[k]), w = t.weights[K * i + k];
    for (int e = 0; e < 9; ++e) f[e] += w * a[e];
    for (int r = 0; r < 3; ++r)
      for (int c = 0; c < 3; ++c) f[3 * r + c] += (d[k][r] - d[0][r]) * grads[3 * k + c];
  }
  for (int e = 0; e < 9; ++e) out[e] = m * f[e] + float(e % 4 == 0);
  if (t.softness_gradients == nullptr) return;
  for (int r = 0; r < 3; ++r)
    for (int c = 0; c < 3; ++c) out[3 * r + c] += sum[r] * t.softness_gradients[3 * i + c];
}

void carry(const splat_skin& t, int64_t i, float* means, float* turns, float* gradients) {
  const float *x = t.points + 3 * i, *w = t.weights + K * i, m = t.softness[i];
  if (m == 0) {
    for (int r = 0; r < 3; ++r) means[3 * i + r] = x[r];
    for (int q = 0; turns != nullptr && q < 4; ++q) turns[4 * i + q] = float(q == 0);
    for (int e = 0; gradients != nullptr && e < 9; ++e) gradients[9 * i + e] = float(e % 4 == 0);
    return;
  }
  float d[K][3], sum[3] = {0, 0, 0};
  for (int k = 0; k < K; ++k) {
    displacement(t, t.nodes[K * i + k], x, d[k]);
    for (int r = 0; r < 3; ++r) sum[r] += w[k] * d[k][r];
  }
  for (int r = 0; r < 3; ++r) means[3 * i + r] = x[r] + m * sum[r];
  if (turns != nullptr) blend_turns(t, t.nodes + K * i, w, m, turns + 4 * i);
  if (gradients != nullptr) blend_gradients(t, i, d, sum, gradients + 9 * i);
}

}  // namespace
}  // namespace splat

int32_t splat_cpu_skin(const splat_skin* task, float* means, float* turns, float* gradients) {
  const splat_skin& t = *task;
  if (t.count < 0 || t.node_count < 1 || t.node_count >= int64_t(1) << 31) return SPLAT_BAD_ARGUMENT;
  if (gradients != nullptr && t.weight_gradients == nullptr) return SPLAT_BAD_ARGUMENT;
  for (int64_t i = 0; i < SPLAT_SKIN_NODES * t.count; ++i)
    if (t.nodes[i] < 0 || t.nodes[i] >= t.node_count) return SPLAT_BAD_ARGUMENT;
  splat::parallel_for((t.count + splat::kPoints - 1) / splat::kPoints, [&](int64_t c) {
    const int64_t end = c * splat::kPoints + splat::kPoints;
    for (int64_t i = c * splat::kPoints; i < t.count && i < end; ++i) splat::carry(t, i, means, turns, gradients);
  });
  return SPLAT_OK;
}
