// (1 - lambda) L1 + lambda (1 - SSIM) and its gradient, a channel and a band of rows per task.
//
// SSIM as in math/ssim.h. A mask w replaces what is ignored by the target (x' = w x + (1 - w) y) and weights the map.
// l1_weights are factors on |x' - y| per pixel, in the loss and its gradient; the L1 that is told stays the plain one.
#pragma once
#include "../math/ssim.h"
#include "kernels.h"

namespace splat {
inline namespace SPLAT_ISA {

constexpr int kMaxWidth = 16384;

// Row buffers are padded by kPad on both sides so that taps and whole packs never leave them.
constexpr int kPad = 32;

template <class S> struct RowBuffers {
  S* memory;
  int64_t stride;
  RowBuffers(int rows, int width) : stride((width + 2 * kPad + 15) / 16 * 16) {
    memory = (S*)__builtin_calloc(size_t(rows) * stride + 16, sizeof(S));  // all bits zero is 0.0
  }
  ~RowBuffers() { __builtin_free(memory); }
  S* row(int i) const { return memory + i * stride + kPad; }
};

template <class S> SPLAT_HD S weight_at(const PhotometricTask& t, int64_t pixel) {
  return t.mask ? S(t.mask[pixel]) * S(1.0 / 255) : S(1);
}

// One row of the rendered (mask applied) and true picture, padding left at zero.
template <class S> void load_picture_row(const PhotometricTask& t, int channel, int y, S* x_row, S* y_row) {
  const int64_t at = int64_t(y) * t.width;
  const S* color = (const S*)t.color + int64_t(channel) * t.width * t.height + at;
  const uint8_t* target = t.target + 3 * at + channel;
  for (int i = 0; i < t.width; ++i) y_row[i] = S(target[3 * i]) * S(1.0 / 255);
  if (t.mask)
    for (int i = 0; i < t.width; ++i) {
      const S w = weight_at<S>(t, at + i);
      x_row[i] = w * color[i] + (S(1) - w) * y_row[i];
    }
  else
    for (int i = 0; i < t.width; ++i) x_row[i] = color[i];
}

template <class P, class S> SPLAT_HD P convolve_row(const S* row) {
  P sum = P(S(kWindow[5])) * Lanes<P>::load(row);
  for (int k = 1; k <= kRadius; ++k)
    sum = fma(P(S(kWindow[5 - k])), Lanes<P>::load(row - k) + Lanes<P>::load(row + k), sum);
  return sum;
}

// Vertical window over horizontally filtered rows kept in a ring of kTaps.
template <class P, class S> SPLAT_HD P convolve_column(S* const* ring, int x) {
  P sum = P(S(kWindow[5])) * Lanes<P>::load(ring[5] + x);
  for (int k = 1; k <= kRadius; ++k)
    sum = fma(P(S(kWindow[5 - k])), Lanes<P>::load(ring[5 - k] + x) + Lanes<P>::load(ring[5 + k] + x), sum);
  return sum;
}

// Products of a row of both pictures; returns the lanes' sums of |x - y|.
template <class P, class S> SPLAT_HD P square_row(const S* x_row, const S* y_row, int width, S* xx, S* yy, S* xy) {
  P l1 = P(S(0));
  for (int x = 0; x < width; x += Lanes<P>::width) {  // the padding is zero in both pictures
    const P a = Lanes<P>::load(x_row + x), b = Lanes<P>::load(y_row + x);
    Lanes<P>::store(xx + x, a * a), Lanes<P>::store(yy + x, b * b), Lanes<P>::store(xy + x, a * b);
    l1 = l1 + abs_(a - b);
  }
  return l1;
}

// The lanes' sums of weight |x - y|; the padding is zero in both pictures, and in the weights.
template <class P, class S> SPLAT_HD P weighted_l1_row(const S* x_row, const S* y_row, const S* weights, int width) {
  P l1 = P(S(0));
  for (int x = 0; x < width; x += Lanes<P>::width)
    l1 = fma(Lanes<P>::load(weights + x), abs_(Lanes<P>::load(x_row + x) - Lanes<P>::load(y_row + x)), l1);
  return l1;
}

// Row y of the factors on |x - y|, padding left at zero.
template <class S> void load_weights_row(const PhotometricTask& t, int y, S* row) {
  std::memcpy(row, (const S*)t.l1_weights + int64_t(y) * t.width, sizeof(S) * t.width);
}

// A row of SSIM and of its three derivatives from the windows over x, y, xx, yy and xy.
template <class P, class S> SPLAT_HD void ssim_row(S* const (*rows)[kTaps], int width, const RowBuffers<S>& line) {
  for (int x = 0; x < width; x += Lanes<P>::width) {
    const P mx = convolve_column<P, S>(rows[0], x), my = convolve_column<P, S>(rows[1], x);
    const P exx = convolve_column<P, S>(rows[2], x), eyy = convolve_column<P, S>(rows[3], x);
    const P exy = convolve_column<P, S>(rows[4], x);
    const SsimPixel<P> ssim(mx, my, exx, eyy, exy);
    Lanes<P>::store(line.row(0) + x, ssim.value);
    Lanes<P>::store(line.row(1) + x, ssim.d_x);
    Lanes<P>::store(line.row(2) + x, ssim.d_xx);
    Lanes<P>::store(line.row(3) + x, ssim.d_xy);
  }
}

template <class P, class S> SPLAT_HD double sum_row(const S* row, int width) {
  constexpr int W = Lanes<P>::width;
  P lanes = P(S(0));
  int x = 0;
  for (; x + W <= width; x += W) lanes = lanes + Lanes<P>::load(row + x);
  double sum = double(value_of(reduce_add(lanes)));
  for (; x < width; ++x) sum += double(value_of(row[x]));
  return sum;
}

// What a task covers: rows [begin, end) of a channel.
struct Band {
  int channel, begin, end;
};

inline Band band_of(const PhotometricTask& t, int64_t index) {
  const int64_t bands = bands_of(t.height);
  const int begin = int(index % bands) * kBandRows;
  return {int(index / bands), begin, begin + kBandRows < t.height ? begin + kBandRows : t.height};
}

template <class P> void photometric_statistics_band(const PhotometricTask& t, int64_t index) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const Band band = band_of(t, index);
  const int channel = band.channel, begin = band.begin, end = band.end;
  const int64_t plane = int64_t(t.width) * t.height;
  S* maps = (S*)t.maps + 3 * channel * plane;
  // 0 x, 1 y, 2 xx, 3 yy, 4 xy: source rows; then a ring of filtered rows for each.
  RowBuffers<S> source(5, t.width), ring(5 * kTaps, t.width), line(4, t.width), weights(t.l1_weights ? 1 : 0, t.width);
  double l1 = 0, ssim_sum = 0, weighted_l1 = 0;
  auto filter_row = [&](int y) {
    const int at = ((y % kTaps) + kTaps) % kTaps;
    if (y < 0 || y >= t.height) {
      for (int q = 0; q < 5; ++q)
        for (int x = 0; x < t.width; ++x) ring.row(q * kTaps + at)[x] = S(0);
      return;
    }
    S *rx = source.row(0), *ry = source.row(1);
    load_picture_row<S>(t, channel, y, rx, ry);
    const P l1_row = square_row<P, S>(rx, ry, t.width, source.row(2), source.row(3), source.row(4));
    if (y >= begin && y < end) {
      l1 += double(value_of(reduce_add(l1_row)));
      if (t.l1_weights) {
        load_weights_row<S>(t, y, weights.row(0));
        weighted_l1 += double(value_of(reduce_add(weighted_l1_row<P, S>(rx, ry, weights.row(0), t.width))));
      }
    }
    for (int q = 0; q < 5; ++q) {
      S* out = ring.row(q * kTaps + at);
      const S* in = source.row(q);
      for (int x = 0; x < t.width; x += W) Lanes<P>::store(out + x, convolve_row<P, S>(in + x));
    }
  };
  for (int y = begin - kRadius; y < begin + kRadius; ++y) filter_row(y);
  for (int y = begin; y < end; ++y) {
    filter_row(y + kRadius);
    S* rows[5][kTaps];
    for (int q = 0; q < 5; ++q)
      for (int k = 0; k < kTaps; ++k) rows[q][k] = ring.row(q * kTaps + (((y - kRadius + k) % kTaps) + kTaps) % kTaps);
    ssim_row<P, S>(rows, t.width, line);
    const int64_t at = int64_t(y) * t.width;
    if (t.mask)
      for (int m = 0; m < 4; ++m)
        for (int x = 0; x < t.width; ++x) line.row(m)[x] = weight_at<S>(t, at + x) * line.row(m)[x];
    ssim_sum += sum_row<P, S>(line.row(0), t.width);
    if (t.grad)
      for (int m = 0; m < 3; ++m) std::memcpy(maps + m * plane + at, line.row(m + 1), sizeof(S) * t.width);
  }
  double* const sums = t.band_sums + 3 * index;
  sums[0] = l1, sums[1] = ssim_sum, sums[2] = t.l1_weights ? weighted_l1 : l1;
}

// A row of the gradient from the windows over the three derivative maps. `weights` are read where kWeighted.
template <class P, bool kWeighted, class S>
SPLAT_HD void gradient_row(const PhotometricTask& t, S* const (*rows)[kTaps], const S* x_row, const S* y_row,
                           const S* weights, S* out) {
  const S k_ssim = S(-t.ssim_weight * t.ssim_scale), k_l1 = S((1 - t.ssim_weight) * t.l1_scale);
  for (int x = 0; x < t.width; x += Lanes<P>::width) {
    const P a = Lanes<P>::load(x_row + x), b = Lanes<P>::load(y_row + x);
    const P d = convolve_column<P, S>(rows[0], x) + P(S(2)) * a * convolve_column<P, S>(rows[1], x) +
                b * convolve_column<P, S>(rows[2], x);
    const P diff = a - b;
    const P sign = select(lt(P(S(0)), diff), P(S(1)), select(lt(diff, P(S(0))), P(S(-1)), P(S(0))));
    P slope = P(k_l1) * sign;
    if constexpr (kWeighted) slope = slope * Lanes<P>::load(weights + x);
    Lanes<P>::store(out + x, fma(P(k_ssim), d, slope));
  }
}

template <class P> void photometric_gradient_band(const PhotometricTask& t, int64_t index) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const Band band = band_of(t, index);
  const int channel = band.channel, begin = band.begin, end = band.end;
  const int64_t plane = int64_t(t.width) * t.height;
  const S* maps = (const S*)t.maps + 3 * channel * plane;
  RowBuffers<S> source(1, t.width), ring(3 * kTaps, t.width), line(4, t.width);
  auto filter_row = [&](int y) {
    const int at = ((y % kTaps) + kTaps) % kTaps;
    for (int m = 0; m < 3; ++m) {
      S* out = ring.row(m * kTaps + at);
      if (y < 0 || y >= t.height) {
        for (int x = 0; x < t.width; ++x) out[x] = S(0);
        continue;
      }
      S* in = source.row(0);
      std::memcpy(in, maps + m * plane + int64_t(y) * t.width, sizeof(S) * t.width);
      for (int x = 0; x < t.width; x += W) Lanes<P>::store(out + x, convolve_row<P, S>(in + x));
    }
  };
  for (int y = begin - kRadius; y < begin + kRadius; ++y) filter_row(y);
  for (int y = begin; y < end; ++y) {
    filter_row(y + kRadius);
    S* rows[3][kTaps];
    for (int m = 0; m < 3; ++m)
      for (int k = 0; k < kTaps; ++k) rows[m][k] = ring.row(m * kTaps + (((y - kRadius + k) % kTaps) + kTaps) % kTaps);
    S *rx = line.row(0), *ry = line.row(1), *out = line.row(2);
    load_picture_row<S>(t, channel, y, rx, ry);
    if (t.l1_weights) {
      load_weights_row<S>(t, y, line.row(3));
      gradient_row<P, true, S>(t, rows, rx, ry, line.row(3), out);
    } else {
      gradient_row<P, false, S>(t, rows, rx, ry, nullptr, out);
    }
    const int64_t at = int64_t(y) * t.width;
    S* grad = (S*)t.grad + channel * plane + at;
    if (t.mask)
      for (int x = 0; x < t.width; ++x) grad[x] = weight_at<S>(t, at + x) * out[x];
    else
      std::memcpy(grad, out, sizeof(S) * t.width);
  }
}

// Kingma and Ba 2015, algorithm 1, bias corrections folded into two factors.
template <class P> void adam_chunk(const AdamTask& t, int64_t chunk) {
  using S = typename Lanes<P>::Scalar;
  constexpr int W = Lanes<P>::width;
  const int64_t begin = chunk * kAdamChunk, end = begin + kAdamChunk < t.count ? begin + kAdamChunk : t.count;
  S *param = (S*)t.param, *m = (S*)t.m, *v = (S*)t.v;
  const S* grad = (const S*)t.grad;
  const P b1 = P(S(t.beta1)), b2 = P(S(t.beta2)), a1 = P(S(1 - t.beta1)), a2 = P(S(1 - t.beta2));
  const P step = P(S(t.lr / t.correction1)), root = P(S(1 / t.correction2)), eps = P(S(t.eps));
  auto update = [&](P p, P g, P& mm, P& vv) {
    mm = fma(b1, mm, a1 * g);
    vv = fma(b2, vv, a2 * g * g);
    return nfma(step, mm / (sqrt_(vv * root) + eps), p);
  };
  int64_t i = begin;
  for (; i + W <= end; i += W) {
    P mm = Lanes<P>::load(m + i), vv = Lanes<P>::load(v + i);
    const P p = update(Lanes<P>::load(param + i), Lanes<P>::load(grad + i), mm, vv);
    Lanes<P>::store(param + i, p), Lanes<P>::store(m + i, mm), Lanes<P>::store(v + i, vv);
  }
  if (i < end) {
    S lanes[4][W] = {};
    const int64_t bytes = (end - i) * int64_t(sizeof(S));
    std::memcpy(lanes[0], param + i, bytes), std::memcpy(lanes[1], grad + i, bytes);
    std::memcpy(lanes[2], m + i, bytes), std::memcpy(lanes[3], v + i, bytes);
    P mm = Lanes<P>::load(lanes[2]), vv = Lanes<P>::load(lanes[3]);
    Lanes<P>::store(lanes[0], update(Lanes<P>::load(lanes[0]), Lanes<P>::load(lanes[1]), mm, vv));
    Lanes<P>::store(lanes[2], mm), Lanes<P>::store(lanes[3], vv);
    std::memcpy(param + i, lanes[0], bytes);
    std::memcpy(m + i, lanes[2], bytes), std::memcpy(v + i, lanes[3], bytes);
  }
}

}  // namespace SPLAT_ISA
}  // namespace splat
