/* The C interface of splat's rasterizer: one header for every backend.
 *
 * Plain pointers and sizes; the caller owns all memory (torch tensors in practice). Arrays of reals are
 * `float` or `double` according to `dtype`; they are C-contiguous with the shape named beside them.
 * Letters: N splats, V visible splats, I instances (splat, tile) pairs, H W pixels, F extra channels.
 *
 * Python reads this very file through cffi, so it holds declarations only: no macros with arguments,
 * no inline functions; lines that start with '#' are skipped there.
 */
#ifndef SPLAT_H
#define SPLAT_H
#include <stdint.h>
#include <stddef.h>
#if defined(_WIN32)
#define SPLAT_API __declspec(dllexport)
#else
#define SPLAT_API __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
extern "C" {
#endif

enum splat_constants {
  SPLAT_ABI_VERSION = 2,
  SPLAT_TILE = 16,            /* pixels per tile side */
  SPLAT_MAX_RECORD = 40,      /* reals per projected record at most; splat_record_reals() */
  SPLAT_MAX_SLOT = 29,        /* gradient sums of an instance at most: of the footprint, and 3 colours */
  SPLAT_SHAPES = 3,           /* tables of its own that a footprint may read */
  SPLAT_MAX_SHAPE = 24,       /* columns of such a table at most: 8 vertices */
  SPLAT_MAX_CHANNELS = 64,    /* extra channels one call can blend */
  SPLAT_MAX_WEIGHT_MAPS = 4,  /* pixel weight maps one call can sum over */
  SPLAT_CAMERA_GRAD = 12,     /* reals of a pose gradient: rows of [R|t] */
  SPLAT_SKIN_NODES = 4        /* nodes that carry a point */
};

enum splat_dtype { SPLAT_F32 = 0, SPLAT_F64 = 1 };

enum splat_status {
  SPLAT_OK = 0,
  SPLAT_BAD_ARGUMENT = 1,
  SPLAT_OVERFLOW = 2, /* more than 2^31 instances */
  SPLAT_CUDA_ERROR = 3
};

/* Statistics of the forward pass, one bit each; a slot row holds them in this order. */
enum splat_forward_stat {
  SPLAT_STAT_FRAGMENTS = 1,
  SPLAT_STAT_BLEND_SUM = 2,
  SPLAT_STAT_BLEND_MAX = 4,
  SPLAT_STAT_MAX_CONTRIB = 8,
  SPLAT_STAT_CENTER_DIST = 16,
  SPLAT_STAT_WEIGHTED = 32
};

/* Statistics of the backward pass. */
enum splat_backward_stat {
  SPLAT_STAT_ABS_GRAD = 1,        /* 2 sums: |dL/du|, |dL/dv| per pixel */
  SPLAT_STAT_ABS_GRAD_L2 = 2,     /* 1 sum */
  SPLAT_STAT_OPACITY_GRAD_SQ = 4, /* 1 sum */
  SPLAT_STAT_TEXGRAD = 8,         /* 1 sum, uses weight map 0 */
  SPLAT_STAT_SENSITIVITY = 16     /* 1 sum */
};

/* Raw rows of N splats; activations happen inside. */
typedef struct splat_rows {
  int64_t count;               /* N */
  int32_t dtype;               /* splat_dtype of every array here and of every output */
  int32_t sh_rest_count;       /* coefficients per channel in sh_rest: 0, 3, 8 or 15 */
  int32_t feature_count;       /* F */
  int32_t footprint;           /* splat_footprint() of its name */
  const void* means;           /* [N,3] world */
  const void* quats;           /* [N,4] w x y z, any length */
  const void* log_scales;      /* [N,3] */
  const void* logit_opacities; /* [N] */
  const void* sh0;             /* [N,3] */
  const void* sh_rest;         /* [N,sh_rest_count,3] */
  const void* features;        /* [N,F] or NULL */
  const void* filter3d;        /* [N] standard deviation of the Mip 3D filter, or NULL */
  /* What the footprint needs besides, raw, as its header in math/ says; quats, log_scales may then be NULL. */
  const void* shape[3];        /* [N,shape_columns[i]] or NULL */
  int32_t shape_columns[4];    /* the last is padding */
  double constants[4];
} splat_rows;

/* One pinhole view and how to filter it. */
typedef struct splat_view {
  double camera_from_world[12]; /* rows of [R|t], OpenCV axes */
  double fx, fy, cx, cy;        /* px; first pixel's centre is (0.5, 0.5) */
  double near_z, far_z;         /* camera z limits */
  double dilation;              /* variance added to both axes, px^2 */
  int32_t compensate;           /* 1: scale opacity by sqrt(det / dilated det) */
  int32_t sh_degree;            /* highest band used */
  int32_t width, height;
  /* How far off axis the linearisation follows: x/z low and high, y/z low and high. All 0: 15 % beyond the picture. A
   * view that draws every d-th pixel of another has that one's, or its splats would have other shapes. */
  double tan_limits[4];
} splat_view;

/* What projection leaves per splat. */
typedef struct splat_projected {
  void* records;        /* [N,splat_record_reals()] mean2d, payload of the footprint, rgb, z, half extents, ... */
  uint32_t* depth_keys; /* [N] sortable depth bits; 0xffffffff = not drawn */
  uint32_t* rect_tiles; /* [N] tiles of the bounding rectangle: an upper bound */
} splat_projected;

/* Which splat touches which tile, in depth order. A slot is an instance's place for sums that belong to its splat:
 * a splat's slots are contiguous and ordered by row, so that adding them up reads memory in order. */
typedef struct splat_bins {
  uint32_t* order;        /* [N] rows of the visible splats, near to far; first V are valid */
  uint32_t* slot_begin;   /* [N+1] first slot of a row */
  uint32_t* slot_count;   /* [N] slots in use; 0 = not drawn; holes may follow */
  uint32_t* tile_begin;   /* [tiles+1] first instance of a tile */
  uint32_t* instance_splat; /* [capacity] */
  uint32_t* instance_slot;  /* [capacity] */
  int64_t capacity;       /* slots that fit; splat_*_bin returns the number needed */
} splat_bins;

/* Images and forward statistics of one view. NULL = not wanted. Planar images: channel, row, column. */
typedef struct splat_images {
  const void* background; /* [3] */
  void* color;            /* [3,H,W] */
  void* final_T;          /* [H,W] transmittance left; alpha = 1 - final_T */
  void* depth_expected;   /* [H,W] */
  void* depth_median;     /* [H,W] */
  void* features;         /* [F,H,W] */
  int32_t* top_id;        /* [H,W] row with the largest blend weight, -1 = none */
  const void* weight_maps; /* [weight_map_count,H,W] */
  int32_t weight_map_count;
  int32_t stats;          /* bits of splat_forward_stat */
  void* slot_stats;       /* [slots, stride] per instance, stride = splat_forward_stat_stride() */
} splat_images;

/* Cotangents of the images and what the backward blend writes. */
typedef struct splat_image_grads {
  const void* color;          /* [3,H,W] */
  const void* alpha;          /* [H,W] or NULL */
  const void* depth_expected; /* [H,W] or NULL */
  const void* depth_median;   /* [H,W] or NULL */
  const void* features;       /* [F,H,W] or NULL */
  int32_t stats;              /* bits of splat_backward_stat */
  int32_t slot_stride;        /* splat_backward_slot_stride() */
  void* slots;                /* [slots, slot_stride] */
  double* background;         /* [3] or NULL */
} splat_image_grads;

/* Gradients of the raw rows. NULL = not wanted. */
typedef struct splat_row_grads {
  void* means;           /* [N,3] */
  void* quats;           /* [N,4] */
  void* log_scales;      /* [N,3] */
  void* logit_opacities; /* [N] */
  void* sh0;             /* [N,3] */
  void* sh_rest;         /* [N,sh_rest_count,3] */
  void* features;        /* [N,F] */
  void* shape[3];        /* [N,shape_columns[i]] */
  void* mean2d;          /* [N,2] pixel gradient of the projected mean */
  void* color;           /* [N,3] gradient of the colour before the SH chain */
  void* opacity;         /* [N] gradient of the effective opacity */
  double* camera;        /* [SPLAT_CAMERA_GRAD] */
  double* camera_scratch; /* [ceil(N/1024), SPLAT_CAMERA_GRAD] */
  int32_t accumulate;    /* 1: add to what is there (row arrays only) */
  int32_t reserved;
} splat_row_grads;

SPLAT_API int32_t splat_abi_version(void);

/* Name of the instruction set in use: "avx512", "avx2", "neon" or "baseline". */
SPLAT_API const char* splat_cpu_isa(void);
/* Instruction sets this machine can run, space separated. */
SPLAT_API const char* splat_cpu_isas(void);
/* Choose one by name; SPLAT_BAD_ARGUMENT when it is not available here. */
SPLAT_API int32_t splat_cpu_set_isa(const char* name);
SPLAT_API int32_t splat_cpu_threads(void);
SPLAT_API void splat_cpu_set_threads(int32_t count);
/* Keep freed buffers of the process's allocator for reuse instead of returning them to the system. */
SPLAT_API void splat_cpu_keep_memory(void);

SPLAT_API int32_t splat_forward_stat_stride(int32_t stats, int32_t weight_map_count);
/* Extra channels are expected/median depth (one together) and features. */
SPLAT_API int32_t splat_backward_slot_stride(int32_t footprint, int32_t stats, int32_t extra_channels);

/* Names of the footprints, space separated, in the order of their indices. */
SPLAT_API const char* splat_footprints(void);
/* Index of a name, -1 when there is none. */
SPLAT_API int32_t splat_footprint(const char* name);
/* Reals of a record, and sums of a slot before the three colours; 0 for an unknown footprint. */
SPLAT_API int32_t splat_record_reals(int32_t footprint);
SPLAT_API int32_t splat_footprint_sums(int32_t footprint);

SPLAT_API int32_t splat_cpu_project(const splat_rows* rows, const splat_view* view, const splat_projected* out);
/* Sorts and bins. Returns the slots needed; nothing is binned when that exceeds the capacity: grow and call
 * again. Negative: -splat_status. `visible` receives V. */
SPLAT_API int64_t splat_cpu_bin(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                const splat_bins* bins, int64_t* visible);
SPLAT_API int32_t splat_cpu_blend(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                  const splat_bins* bins, const splat_images* images);
SPLAT_API int32_t splat_cpu_blend_backward(const splat_rows* rows, const splat_view* view,
                                           const splat_projected* projected, const splat_bins* bins,
                                           const splat_images* images, const splat_image_grads* grads);
SPLAT_API int32_t splat_cpu_project_backward(const splat_rows* rows, const splat_view* view,
                                             const splat_projected* projected, const splat_bins* bins,
                                             const splat_image_grads* slots, const splat_row_grads* out);
/* out [N,stride]: per splat, the sum (maximum for BLEND_MAX) of its slots' statistics. */
SPLAT_API int32_t splat_cpu_gather_stats(const splat_rows* rows, const splat_bins* bins, const void* slot_stats,
                                         int32_t slot_stride, int32_t first, int32_t columns, int32_t max_column,
                                         void* out);

/* (1-ssim_weight) L1 + ssim_weight (1 - SSIM) and its gradient.
 * color [3,H,W], target uint8 [H,W,3], mask uint8 [H,W] or NULL, l1_weights [H,W] reals or NULL: a factor on
 * |color - target| in the total (sums.l1 stays plain), grad [3,H,W] or NULL (then no gradient),
 * scratch: 9*H*W reals, sums: {total, l1, ssim}. */
SPLAT_API int32_t splat_cpu_photometric(int32_t dtype, int32_t width, int32_t height, const void* color,
                                        const uint8_t* target, const uint8_t* mask, const void* l1_weights,
                                        double ssim_weight, void* grad, void* scratch, double* sums);

/* Adam in place on `count` reals; step counts from 1. */
SPLAT_API int32_t splat_cpu_adam(int32_t dtype, int64_t count, void* param, const void* grad, void* m, void* v,
                                 double lr, double beta1, double beta2, double eps, int64_t step);

/* Mean of the squared distances to the k nearest other points: points float [N,3] -> out float [N]. */
SPLAT_API int32_t splat_cpu_knn(int64_t count, const float* points, int32_t k, float* out);

/* How rows are sorted onto a grid. */
typedef struct {
  const void* features;  /* [H*W,channels] reals, finite: row y*W+x starts in cell (x, y) */
  int32_t height, width, channels;
  int32_t dtype;         /* SPLAT_F32 or SPLAT_F64 */
  uint64_t seed;
  double first_radius;   /* of the blur, cells; then times `shrink` (in (0,1)) down to `last_radius` (at least 1) */
  double last_radius, shrink;
  double stop_gain;      /* a radius is done when a turn lowers the distances by no more than this part */
  int32_t least_turns, most_turns;  /* turns per radius */
  int32_t rounds;        /* trades of one group of rows per turn */
  int32_t reserved;
} splat_grid;

/* The order in which neighbours on the grid are alike, circular in x: order [H*W] = the row in each cell. The same bits
 * on any number of threads. distances [2]: sums of squared distances to the blur, at the first radius before any
 * trade, at the last after all. */
SPLAT_API int32_t splat_cpu_grid_sort(const splat_grid* grid, int32_t* order, double* distances);

#define SPLAT_MAX_CENTROIDS 16777216
/* Points and the centroids they may go to: those of list l meet the candidates of list l alone. All finite. */
typedef struct {
  const float* points;             /* [count,dim], list after list */
  const float* centroids;          /* [centroid_count,dim] */
  const int64_t* point_begin;      /* [lists+1], from 0 to count */
  const int64_t* candidate_begin;  /* [lists+1], from 0; at least one candidate each */
  const int32_t* candidates;       /* indices of centroids; NULL: 0, 1, 2, ... */
  int64_t count, centroid_count, lists;
  int32_t dim, reserved;
} splat_nearest;

/* labels [count,2]: the nearest candidate and the one after it (-1 where there is no other), the earlier in the list
 * where two are as near; sq_distances [count,2] of those (infinite where there is none). The same bits on any number
 * of threads. */
SPLAT_API int32_t splat_cpu_nearest(const splat_nearest* task, int32_t* labels, float* sq_distances);

/* The k nearest (1 to 32) of `count` points to each query, nearest first and the earlier where two are as near:
 * places [query_count,k] (-1 where there are fewer), sq_distances [query_count,k] (infinite there). All finite. */
SPLAT_API int32_t splat_cpu_neighbours(int64_t count, const float* points, int64_t query_count, const float* queries,
                                       int32_t k, int32_t* places, float* sq_distances);

/* A graph that is to keep its shape as far as what holds and pulls it allows (ARAP: Sorkine and Alexa 2007). */
typedef struct {
  const double* rest;         /* [nodes,3] places at rest */
  const int32_t* begin;       /* [nodes+1] of each node's neighbours, from 0 */
  const int32_t* neighbours;  /* every edge stands at both of its ends */
  const double* weights;      /* as `neighbours`; the same at both ends, above 0 */
  const uint8_t* held;        /* [nodes]: 1 = stays at its place and rotation as given */
  const double *pulls, *arms, *targets; /* of free nodes: [nodes] weight (0 = none), [nodes,3] from the node at rest to
                                         * the point of it that is pulled, [nodes,3] where that is to go */
  double smooth;              /* weight of neighbours turning alike */
  int32_t nodes, iterations;
} splat_arap;

/* Triangular factor L D L^T of the free nodes' matrix, in an order that keeps L small. */
typedef struct {
  int32_t* order;            /* [nodes] which node comes where */
  int64_t* begin;            /* [nodes+1] of each column's entries */
  int32_t* rows;             /* [entries] */
  double *values, *diagonal; /* [entries], [nodes] */
  int64_t entries;           /* room in rows and values */
} splat_factor;

/* Entries that the factor needs (negative: an error); depends on the graph and on what is held. */
SPLAT_API int64_t splat_cpu_arap_entries(const splat_arap* task);
/* SPLAT_BAD_ARGUMENT also where a part of the graph is neither held nor pulled. */
SPLAT_API int32_t splat_cpu_arap_factor(const splat_arap* task, const splat_factor* factor);
/* `iterations` times: every free node's rotation from its neighbours' places, then all places from the rotations.
 * places [nodes,3] and rotations [nodes,3,3]: where to begin, then the result. Does not depend on threads. */
SPLAT_API int32_t splat_cpu_arap(const splat_arap* task, const splat_factor* factor, double* places, double* rotations);

/* Points carried along by the nodes they are bound to: each goes by m sum_k w_k ((A_k - 1) (x - g_k) + s_k). */
typedef struct {
  const float* points;              /* [count,3] x, at rest */
  const int32_t* nodes;             /* [count,4] */
  const float* weights;             /* [count,4] w, of sum 1 */
  const float* softness;            /* [count] m: how much of the motion is theirs; 0 = stays, to the bit */
  const float* weight_gradients;    /* [count,4,3] by x; NULL when no gradients are wanted */
  const float* softness_gradients;  /* [count,3]; may be NULL likewise */
  const float *rest, *shifts;       /* [node_count,3] g, and s: where a node went, less g */
  const float *linear, *turns;      /* [node_count,3,3] A - 1, [node_count,4] its rotation (unit, wxyz) */
  int64_t count, node_count;
} splat_skin;

/* means [count,3], turns [count,4] (unit) and gradients [count,3,3] of the new place by the old (NULL = not wanted). The
 * same bits on any number of threads and any instruction set. */
SPLAT_API int32_t splat_cpu_skin(const splat_skin* task, float* means, float* turns, float* gradients);

/* --- the CUDA backend: libsplat_cuda, float32 only ---------------------------------------------------------------
 * The same operations on device pointers, in order on `stream` (a cudaStream_t; NULL = the default stream) of the
 * current device. Calls return at once: nothing is copied to the host and nothing waits. Errors of a launch come
 * back as SPLAT_CUDA_ERROR; splat_cuda_error() says which. */

/* Memory that only one call uses; sizes from the functions that end in _scratch. */
typedef struct splat_scratch {
  void* memory;
  size_t bytes;
} splat_scratch;

/* What binning found out, on the device; copy it to pinned memory when convenient. */
typedef struct splat_counters {
  uint32_t visible;   /* splats drawn */
  uint32_t slots;     /* slots needed (bounding rectangles) */
  uint32_t instances; /* exact splat-tile pairs */
  uint32_t overflow;  /* 1: slots exceeded the capacity; nothing was binned, blends draw the background, optimizer
                         steps given these counters leave everything as it is: grow and replay */
  uint32_t chunks;    /* 256-instance chunks */
  uint32_t reserved[3];
} splat_counters;

/* Adam state of the six row arrays of footprints without tables of their own, in the order means, quats, log_scales, logit_opacities, sh0, sh_rest. */
typedef struct splat_adam_rows {
  void* param[6];
  void* m[6];
  void* v[6];
  double lr[6];
  double beta1, beta2, eps;
  int64_t step[6]; /* counts from 1, per array */
} splat_adam_rows;

/* Text of the last error of this thread; never NULL. */
SPLAT_API const char* splat_cuda_error(void);
/* Devices this library can use: >= 0, or -1 with splat_cuda_error() saying why (no driver, driver too old, ...). */
SPLAT_API int32_t splat_cuda_device_count(void);
/* One line: name, compute capability, memory, driver and runtime versions. NULL and an error when there is none. */
SPLAT_API const char* splat_cuda_device_info(int32_t device);
/* Compute capabilities compiled in, such as "75 80 86 89 90 100 120 ptx120". */
SPLAT_API const char* splat_cuda_architectures(void);

SPLAT_API int32_t splat_cuda_project(const splat_rows* rows, const splat_view* view, const splat_projected* out,
                                     void* stream);
SPLAT_API size_t splat_cuda_bin_scratch(int64_t count, int64_t capacity, int32_t width, int32_t height);
SPLAT_API int32_t splat_cuda_bin(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                 const splat_bins* bins, splat_counters* counters, splat_scratch scratch, void* stream);
/* Checkpoints of the blend, one per chunk of 256 instances: [chunks, 256 pixels, 4] floats (T, C), where chunks is at
 * most capacity / 256 + tiles. Half precision would save 0.03 ms and cost three digits of the gradients. */
SPLAT_API size_t splat_cuda_checkpoint_bytes(int64_t capacity, int32_t width, int32_t height);
SPLAT_API int32_t splat_cuda_blend(const splat_rows* rows, const splat_view* view, const splat_projected* projected,
                                   const splat_bins* bins, const splat_counters* counters, const splat_images* images,
                                   void* checkpoints, void* stream);
SPLAT_API int32_t splat_cuda_blend_backward(const splat_rows* rows, const splat_view* view,
                                            const splat_projected* projected, const splat_bins* bins,
                                            const splat_counters* counters, const splat_images* images,
                                            const splat_image_grads* grads, const void* checkpoints, void* stream);
SPLAT_API int32_t splat_cuda_project_backward(const splat_rows* rows, const splat_view* view,
                                              const splat_projected* projected, const splat_bins* bins,
                                              const splat_counters* counters, const splat_image_grads* slots,
                                              const splat_row_grads* out, void* stream);
/* The same, with Adam applied in place instead of gradients written: rows->* must be adam->param. Rows that were not
 * drawn take a step with zero gradient, as dense Adam does. */
SPLAT_API int32_t splat_cuda_project_backward_adam(const splat_rows* rows, const splat_view* view,
                                                   const splat_projected* projected, const splat_bins* bins,
                                                   const splat_counters* counters, const splat_image_grads* slots,
                                                   const splat_row_grads* extra, const splat_adam_rows* adam,
                                                   void* stream);
SPLAT_API int32_t splat_cuda_gather_stats(const splat_rows* rows, const splat_bins* bins, const void* slot_stats,
                                          int32_t slot_stride, int32_t first, int32_t columns, int32_t max_column,
                                          void* out, void* stream);
/* scratch: 9*H*W reals; sums [3] doubles on the device. */
SPLAT_API int32_t splat_cuda_photometric(int32_t width, int32_t height, const void* color, const uint8_t* target,
                                         const uint8_t* mask, const void* l1_weights, double ssim_weight, void* grad,
                                         void* scratch, double* sums, void* stream);
SPLAT_API int32_t splat_cuda_adam(int64_t count, void* param, const void* grad, void* m, void* v, double lr,
                                  double beta1, double beta2, double eps, int64_t step, const splat_counters* gate,
                                  void* stream);
SPLAT_API size_t splat_cuda_sort_scratch(int64_t count);
/* Rows in Morton order of their means: order [N] int64. */
SPLAT_API int32_t splat_cuda_morton(int64_t count, const float* means, int64_t* order, splat_scratch scratch, void* stream);
/* As splat_cpu_knn, on device pointers. */
SPLAT_API size_t splat_cuda_knn_scratch(int64_t count);
SPLAT_API int32_t splat_cuda_knn(int64_t count, const float* points, int32_t k, float* out, splat_scratch scratch,
                                 void* stream);

#ifdef __cplusplus
}
#endif
#endif
