// SIMD packs of float: 16 lanes with AVX-512, 8 with AVX2, 4 elsewhere (SSE2, NEON) through the compiler's
// vector extension. The names are those of real.h.
#pragma once
#include "real.h"
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace splat {
inline namespace SPLAT_ISA {

#if defined(__AVX512F__)

struct Mask { __mmask16 m; };
struct Pack {
  __m512 v;
  static constexpr int width = 16;
  SPLAT_HD Pack() {}
  SPLAT_HD Pack(__m512 a) : v(a) {}
  SPLAT_HD Pack(float a) : v(_mm512_set1_ps(a)) {}
  SPLAT_HD Pack(double a) : v(_mm512_set1_ps(float(a))) {}
};
SPLAT_HD Pack operator+(Pack a, Pack b) { return _mm512_add_ps(a.v, b.v); }
SPLAT_HD Pack operator-(Pack a, Pack b) { return _mm512_sub_ps(a.v, b.v); }
SPLAT_HD Pack operator*(Pack a, Pack b) { return _mm512_mul_ps(a.v, b.v); }
SPLAT_HD Pack operator/(Pack a, Pack b) { return _mm512_div_ps(a.v, b.v); }
SPLAT_HD Pack operator-(Pack a) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(int(0x80000000u))));
}
SPLAT_HD Pack fma(Pack a, Pack b, Pack c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
SPLAT_HD Pack nfma(Pack a, Pack b, Pack c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
SPLAT_HD Pack min_(Pack a, Pack b) { return _mm512_min_ps(a.v, b.v); }
SPLAT_HD Pack max_(Pack a, Pack b) { return _mm512_max_ps(a.v, b.v); }
SPLAT_HD Pack sqrt_(Pack a) { return _mm512_sqrt_ps(a.v); }
SPLAT_HD Pack abs_(Pack a) { return _mm512_abs_ps(a.v); }
// One Newton step on the 14-bit estimate: about 2^-24 relative.
SPLAT_HD Pack rcp_(Pack a) {
  const __m512 r = _mm512_rcp14_ps(a.v);
  const __m512 e = _mm512_fnmadd_ps(a.v, r, _mm512_set1_ps(1.0f));
  return _mm512_fmadd_ps(r, e, r);
}
SPLAT_HD Mask lt(Pack a, Pack b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
SPLAT_HD Mask ge(Pack a, Pack b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
SPLAT_HD Mask operator&(Mask a, Mask b) { return {__mmask16(a.m & b.m)}; }
SPLAT_HD Mask operator|(Mask a, Mask b) { return {__mmask16(a.m | b.m)}; }
SPLAT_HD Mask and_not(Mask a, Mask b) { return {__mmask16(a.m & ~b.m)}; }
SPLAT_HD bool any(Mask a) { return a.m != 0; }
SPLAT_HD int count(Mask a) { return __builtin_popcount(a.m); }
SPLAT_HD uint32_t bits(Mask a) { return a.m; }
SPLAT_HD Pack select(Mask m, Pack a, Pack b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }
SPLAT_HD float reduce_add(Pack a) { return _mm512_reduce_add_ps(a.v); }
SPLAT_HD float reduce_max(Pack a) { return _mm512_reduce_max_ps(a.v); }
SPLAT_HD Pack negative_where(Mask m, Pack a) {
  const __m512i i = _mm512_castps_si512(a.v);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(i, m.m, i, _mm512_set1_epi32(int(0x80000000u))));
}
SPLAT_HD Pack round_(Pack a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SPLAT_HD Pack scale2_(Pack a, Pack n) { return _mm512_scalef_ps(a.v, n.v); }
SPLAT_HD Pack exponent_(Pack a) { return _mm512_getexp_ps(a.v); }
SPLAT_HD Pack mantissa_(Pack a) { return _mm512_getmant_ps(a.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero); }
SPLAT_HD Pack load_first_(const float* p, int n) { return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p); }
SPLAT_HD void store_first_(float* p, int n, Pack a) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), a.v); }
SPLAT_HD void transpose_(Pack* r) {
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2)
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v), t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44), u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44), u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0x88), t[4 + i] = _mm512_shuffle_f32x4(u[i], u[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0x88), t[12 + i] = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i].v = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88), r[8 + i].v = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
    r[4 + i].v = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
    r[12 + i].v = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
  }
}
SPLAT_HD Pack load_pack(const float* p) { return _mm512_loadu_ps(p); }
SPLAT_HD void store_pack(float* p, Pack a) { _mm512_storeu_ps(p, a.v); }
// Four lane sums at once, lane k of the result = sum of the k-th argument: 9 shuffles instead of 16.
SPLAT_HD void reduce_add4(Pack a, Pack b, Pack c, Pack d, float* out) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
  const __m512 q = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(q), _mm512_extractf32x8_ps(q, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1)));
}

#elif defined(__AVX2__)

struct Mask { __m256 m; };
struct Pack {
  __m256 v;
  static constexpr int width = 8;
  SPLAT_HD Pack() {}
  SPLAT_HD Pack(__m256 a) : v(a) {}
  SPLAT_HD Pack(float a) : v(_mm256_set1_ps(a)) {}
  SPLAT_HD Pack(double a) : v(_mm256_set1_ps(float(a))) {}
};
SPLAT_HD Pack operator+(Pack a, Pack b) { return _mm256_add_ps(a.v, b.v); }
SPLAT_HD Pack operator-(Pack a, Pack b) { return _mm256_sub_ps(a.v, b.v); }
SPLAT_HD Pack operator*(Pack a, Pack b) { return _mm256_mul_ps(a.v, b.v); }
SPLAT_HD Pack operator/(Pack a, Pack b) { return _mm256_div_ps(a.v, b.v); }
SPLAT_HD Pack operator-(Pack a) { return _mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f)); }
SPLAT_HD Pack fma(Pack a, Pack b, Pack c) { return _mm256_fmadd_ps(a.v, b.v, c.v); }
SPLAT_HD Pack nfma(Pack a, Pack b, Pack c) { return _mm256_fnmadd_ps(a.v, b.v, c.v); }
SPLAT_HD Pack min_(Pack a, Pack b) { return _mm256_min_ps(a.v, b.v); }
SPLAT_HD Pack max_(Pack a, Pack b) { return _mm256_max_ps(a.v, b.v); }
SPLAT_HD Pack sqrt_(Pack a) { return _mm256_sqrt_ps(a.v); }
SPLAT_HD Pack abs_(Pack a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v); }
// Two Newton steps on the 12-bit estimate.
SPLAT_HD Pack rcp_(Pack a) {
  __m256 r = _mm256_rcp_ps(a.v);
  r = _mm256_fmadd_ps(r, _mm256_fnmadd_ps(a.v, r, _mm256_set1_ps(1.0f)), r);
  return _mm256_fmadd_ps(r, _mm256_fnmadd_ps(a.v, r, _mm256_set1_ps(1.0f)), r);
}
SPLAT_HD Mask lt(Pack a, Pack b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SPLAT_HD Mask ge(Pack a, Pack b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
SPLAT_HD Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.m, b.m)}; }
SPLAT_HD Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.m, b.m)}; }
SPLAT_HD Mask and_not(Mask a, Mask b) { return {_mm256_andnot_ps(b.m, a.m)}; }
SPLAT_HD uint32_t bits(Mask a) { return uint32_t(_mm256_movemask_ps(a.m)); }
SPLAT_HD bool any(Mask a) { return bits(a) != 0; }
SPLAT_HD int count(Mask a) { return __builtin_popcount(bits(a)); }
SPLAT_HD Pack select(Mask m, Pack a, Pack b) { return _mm256_blendv_ps(b.v, a.v, m.m); }
SPLAT_HD Pack negative_where(Mask m, Pack a) {
  return _mm256_or_ps(a.v, _mm256_and_ps(m.m, _mm256_set1_ps(-0.0f)));
}
SPLAT_HD Pack round_(Pack a) { return _mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2^n for integral n in [-126, 127]; callers clamp.
SPLAT_HD Pack scale2_(Pack a, Pack n) {
  const __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), e));
}
SPLAT_HD Pack exponent_(Pack a) {
  const __m256i e = _mm256_srli_epi32(_mm256_castps_si256(a.v), 23);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(e, _mm256_set1_epi32(127)));
}
SPLAT_HD Pack mantissa_(Pack a) {
  const __m256i m = _mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x007fffff));
  return _mm256_castsi256_ps(_mm256_or_si256(m, _mm256_set1_epi32(0x3f800000)));
}
SPLAT_HD __m256i first_lanes_(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SPLAT_HD Pack load_first_(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes_(n)); }
// A masked store is slow on AMD cores.
SPLAT_HD void store_first_(float* p, int n, Pack a) {
  float lanes[8];
  _mm256_storeu_ps(lanes, a.v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}
SPLAT_HD void transpose_(Pack* r) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2)
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v), t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44), u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44), u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i].v = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
    r[4 + i].v = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
  }
}
SPLAT_HD Pack load_pack(const float* p) { return _mm256_loadu_ps(p); }
SPLAT_HD void store_pack(float* p, Pack a) { _mm256_storeu_ps(p, a.v); }
SPLAT_HD void reduce_add4(Pack a, Pack b, Pack c, Pack d, float* out) {
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a.v, b.v), _mm256_unpackhi_ps(a.v, b.v));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c.v, d.v), _mm256_unpackhi_ps(c.v, d.v));
  const __m256 q = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(q), _mm256_extractf128_ps(q, 1)));
}
SPLAT_HD float reduce_add(Pack a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
SPLAT_HD float reduce_max(Pack a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

#else

typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));
struct Mask { Int4 m; };
struct Pack {
  Float4 v;
  static constexpr int width = 4;
  SPLAT_HD Pack() {}
  SPLAT_HD Pack(Float4 a) : v(a) {}
  SPLAT_HD Pack(float a) : v(Float4{a, a, a, a}) {}
  SPLAT_HD Pack(double a) : Pack(float(a)) {}
};
SPLAT_HD Pack operator+(Pack a, Pack b) { return a.v + b.v; }
SPLAT_HD Pack operator-(Pack a, Pack b) { return a.v - b.v; }
SPLAT_HD Pack operator*(Pack a, Pack b) { return a.v * b.v; }
SPLAT_HD Pack operator/(Pack a, Pack b) { return a.v / b.v; }
SPLAT_HD Pack operator-(Pack a) { return -a.v; }
// Without a fused instruction this rounds twice; forward and backward still agree, which is what matters.
SPLAT_HD Pack fma(Pack a, Pack b, Pack c) { return a.v * b.v + c.v; }
SPLAT_HD Pack nfma(Pack a, Pack b, Pack c) { return c.v - a.v * b.v; }
SPLAT_HD Pack min_(Pack a, Pack b) { return Pack(Float4(a.v < b.v ? a.v : b.v)); }
SPLAT_HD Pack max_(Pack a, Pack b) { return Pack(Float4(a.v > b.v ? a.v : b.v)); }
SPLAT_HD Pack sqrt_(Pack a) {
  return Float4{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])};
}
SPLAT_HD Pack abs_(Pack a) { return Pack(Float4((Int4)a.v & 0x7fffffff)); }
SPLAT_HD Pack rcp_(Pack a) { return Float4{1, 1, 1, 1} / a.v; }
SPLAT_HD Mask lt(Pack a, Pack b) { return {a.v < b.v}; }
SPLAT_HD Mask ge(Pack a, Pack b) { return {a.v >= b.v}; }
SPLAT_HD Mask operator&(Mask a, Mask b) { return {a.m & b.m}; }
SPLAT_HD Mask operator|(Mask a, Mask b) { return {a.m | b.m}; }
SPLAT_HD Mask and_not(Mask a, Mask b) { return {a.m & ~b.m}; }
SPLAT_HD uint32_t bits(Mask a) {
  return uint32_t((a.m[0] & 1) | (a.m[1] & 2) | (a.m[2] & 4) | (a.m[3] & 8));
}
SPLAT_HD bool any(Mask a) { return bits(a) != 0; }
SPLAT_HD int count(Mask a) { return __builtin_popcount(bits(a)); }
SPLAT_HD Pack select(Mask m, Pack a, Pack b) { return Pack(Float4(m.m ? a.v : b.v)); }
SPLAT_HD Pack negative_where(Mask m, Pack a) {
  return Pack(Float4((Int4)a.v | (m.m & Int4{INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN})));
}
SPLAT_HD Pack round_(Pack a) {
  const Float4 magic = Float4{12582912.0f, 12582912.0f, 12582912.0f, 12582912.0f};  // 1.5 * 2^23
  return Pack(Float4((a.v + magic) - magic));
}
SPLAT_HD Pack scale2_(Pack a, Pack n) {
  return Pack(Float4((Int4)a.v + (__builtin_convertvector(n.v, Int4) << 23)));
}
SPLAT_HD Pack exponent_(Pack a) { return Pack(__builtin_convertvector((((Int4)a.v) >> 23) - 127, Float4)); }
SPLAT_HD Pack mantissa_(Pack a) { return Pack(Float4(((Int4)a.v & 0x007fffff) | 0x3f800000)); }
SPLAT_HD Pack load_first_(const float* p, int n) {
  Float4 a = {0, 0, 0, 0};
  std::memcpy(&a, p, sizeof(float) * n);
  return a;
}
SPLAT_HD void store_first_(float* p, int n, Pack a) { std::memcpy(p, &a.v, sizeof(float) * n); }
SPLAT_HD void transpose_(Pack* r) {
  float t[4][4];
  for (int i = 0; i < 4; ++i) std::memcpy(t[i], &r[i].v, sizeof t[i]);
  for (int i = 0; i < 4; ++i) r[i].v = Float4{t[0][i], t[1][i], t[2][i], t[3][i]};
}
SPLAT_HD Pack load_pack(const float* p) {
  Float4 a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
SPLAT_HD void store_pack(float* p, Pack a) { std::memcpy(p, &a.v, sizeof a.v); }
SPLAT_HD float reduce_add(Pack a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
SPLAT_HD float reduce_max(Pack a) { return max_(max_(a.v[0], a.v[1]), max_(a.v[2], a.v[3])); }
SPLAT_HD void reduce_add4(Pack a, Pack b, Pack c, Pack d, float* out) {
  out[0] = reduce_add(a), out[1] = reduce_add(b), out[2] = reduce_add(c), out[3] = reduce_add(d);
}

#endif

template <> struct Lanes<Pack> {
  static constexpr int width = Pack::width;
  static constexpr bool transposes = true;
  static SPLAT_HD Pack load_first(const float* p, int n) { return load_first_(p, n); }  // the rest is zero
  static SPLAT_HD void store_first(float* p, int n, Pack a) { store_first_(p, n, a); }
  static SPLAT_HD void transpose(Pack* rows) { transpose_(rows); }
  using Scalar = float;
  using Mask = splat::Mask;
  static SPLAT_HD Pack load(const float* p) { return load_pack(p); }
  static SPLAT_HD void store(float* p, Pack a) { store_pack(p, a); }
  static SPLAT_HD Pack iota() {
    float lane[width];
    for (int i = 0; i < width; ++i) lane[i] = float(i);
    return load_pack(lane);
  }
};

// 2^x. Degree-5 minimax polynomial on [-1/2, 1/2] (1e-7 relative), the integer part goes to the exponent.
// Valid for x in [-126, 127]; masked lanes may hold anything.
SPLAT_HD Pack exp2_(Pack x) {
  const Pack n = round_(x);
  const Pack f = x - n;
  Pack p = fma(Pack(1.32546e-3f), f, Pack(9.67200e-3f));
  p = fma(p, f, Pack(5.550779e-2f));
  p = fma(p, f, Pack(2.4022232e-1f));
  p = fma(p, f, Pack(6.9314693e-1f));
  p = fma(p, f, Pack(1.0f));
  return scale2_(p, n);
}

// log2(x) for normal x > 0: mantissa in [sqrt(1/2), sqrt(2)), then 2/ln2 * atanh((m-1)/(m+1)).
SPLAT_HD Pack log2_(Pack x) {
  Pack m = mantissa_(x), e = exponent_(x);
  const Mask high = ge(m, Pack(1.41421356f));
  m = select(high, m * Pack(0.5f), m);
  e = select(high, e + Pack(1.0f), e);
  const Pack s = (m - Pack(1.0f)) / (m + Pack(1.0f));
  const Pack s2 = s * s;
  Pack p = fma(Pack(0.32059889f), s2, Pack(0.41219858f));  // 2/(9 ln2), 2/(7 ln2)
  p = fma(p, s2, Pack(0.57707802f));                       // 2/(5 ln2)
  p = fma(p, s2, Pack(0.96179669f));                       // 2/(3 ln2)
  p = fma(p, s2, Pack(2.88539008f));                       // 2/ln2
  return fma(p, s, e);
}

}  // namespace SPLAT_ISA
}  // namespace splat
