// The matrix of a graph with weights, what holds it and what pulls it, as L D L^T: solved for three columns at once.
#pragma once
#include "../include/splat.h"

namespace splat {

bool sound_graph(const splat_arap& task);

// Entries of L below the diagonal.
int64_t factor_entries(const splat_arap& task);

// False where the matrix is singular.
bool factorise(const splat_arap& task, const splat_factor& factor);

// x [nodes,3] of the free nodes, by node: right sides, then the solution. The others are left alone.
void solve(const splat_arap& task, const splat_factor& factor, double* x, double* scratch /* [nodes,3] */);

}  // namespace splat
