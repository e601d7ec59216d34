// Operations on one real number: float and double here, SIMD packs in pack.h, dual numbers in the tests.
// Everything per splat and per pixel is written over these names, found by argument-dependent lookup.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define SPLAT_HD __host__ __device__ __forceinline__
#else
#define SPLAT_HD inline __attribute__((always_inline))
#endif

// Code compiled once per instruction set lives in a namespace of its own: two builds of one template
// must never be merged by the linker.
#ifndef SPLAT_ISA
#define SPLAT_ISA baseline
#endif

namespace splat {
inline namespace SPLAT_ISA {

// --- scalars: the mask type is bool, a pack of one lane --------------------------------------------------
SPLAT_HD float fma(float a, float b, float c) { return std::fma(a, b, c); }
SPLAT_HD double fma(double a, double b, double c) { return std::fma(a, b, c); }
SPLAT_HD float nfma(float a, float b, float c) { return std::fma(-a, b, c); }
SPLAT_HD double nfma(double a, double b, double c) { return std::fma(-a, b, c); }
SPLAT_HD float sqrt_(float a) { return std::sqrt(a); }
SPLAT_HD double sqrt_(double a) { return std::sqrt(a); }
#if defined(__CUDA_ARCH__)  // one instruction each, good to a unit in the last place or two; tiny results become 0
SPLAT_HD float rcp_(float a) { float r; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }
SPLAT_HD float exp2_(float a) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(a)); return r; }
#else
SPLAT_HD float rcp_(float a) { return 1.0f / a; }
SPLAT_HD float exp2_(float a) { return std::exp2(a); }
#endif
SPLAT_HD double rcp_(double a) { return 1.0 / a; }
SPLAT_HD double exp2_(double a) { return std::exp2(a); }
SPLAT_HD float log2_(float a) { return std::log2(a); }
SPLAT_HD double log2_(double a) { return std::log2(a); }
SPLAT_HD float abs_(float a) { return std::fabs(a); }
SPLAT_HD double abs_(double a) { return std::fabs(a); }
SPLAT_HD float min_(float a, float b) { return a < b ? a : b; }
SPLAT_HD double min_(double a, double b) { return a < b ? a : b; }
SPLAT_HD float max_(float a, float b) { return a > b ? a : b; }
SPLAT_HD double max_(double a, double b) { return a > b ? a : b; }
// A product that is rounded before it is added to anything: what several kernels must find alike cannot be left to
// the compiler, which fuses here and not there.
#if defined(__CUDA_ARCH__)
SPLAT_HD float mul_(float a, float b) { return __fmul_rn(a, b); }
SPLAT_HD double mul_(double a, double b) { return __dmul_rn(a, b); }
#else
SPLAT_HD float mul_(float a, float b) { return a * b; }
SPLAT_HD double mul_(double a, double b) { return a * b; }
#endif
// For numbers that are not NaN: then the device has one instruction for each.
template <class R> SPLAT_HD R min_number(R a, R b) { return min_(a, b); }
template <class R> SPLAT_HD R max_number(R a, R b) { return max_(a, b); }
#if defined(__CUDA_ARCH__)
SPLAT_HD float min_number(float a, float b) { return fminf(a, b); }
SPLAT_HD float max_number(float a, float b) { return fmaxf(a, b); }
#endif
SPLAT_HD bool lt(float a, float b) { return a < b; }
SPLAT_HD bool lt(double a, double b) { return a < b; }
SPLAT_HD bool ge(float a, float b) { return a >= b; }
SPLAT_HD bool ge(double a, double b) { return a >= b; }
SPLAT_HD bool any(bool m) { return m; }
SPLAT_HD int count(bool m) { return m ? 1 : 0; }
SPLAT_HD bool and_not(bool a, bool b) { return a && !b; }
template <class R> SPLAT_HD R select(bool m, R a, R b) { return m ? a : b; }
SPLAT_HD float reduce_add(float a) { return a; }
SPLAT_HD double reduce_add(double a) { return a; }
SPLAT_HD float reduce_max(float a) { return a; }
SPLAT_HD double reduce_max(double a) { return a; }
SPLAT_HD float negative_where(bool m, float a) { return m ? -std::fabs(a) : a; }
SPLAT_HD double negative_where(bool m, double a) { return m ? -std::fabs(a) : a; }
SPLAT_HD double value_of(double a) { return a; }
SPLAT_HD float value_of(float a) { return a; }

template <class R> SPLAT_HD void reduce_add4(R a, R b, R c, R d, R* out) { out[0] = a, out[1] = b, out[2] = c, out[3] = d; }

// How many scalars a pack carries, and how it meets memory.
template <class P> struct Lanes {
  static constexpr int width = 1;
  static constexpr bool transposes = false;
  using Scalar = P;
  using Mask = bool;
  static SPLAT_HD P load(const P* p) { return *p; }
  static SPLAT_HD void store(P* p, P a) { *p = a; }
  static SPLAT_HD P iota() { return P(0); }
};

}  // namespace SPLAT_ISA
}  // namespace splat
