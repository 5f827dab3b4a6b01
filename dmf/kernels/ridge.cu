// Ridge regressions of the rows of one factor on their samples, the other factor given; what they compute is defined by
// dmf.kernels.reference.SampledEntries.ridge.
//
// A block works on one row. Samples are staged in shared memory, and each thread sums a square of TILE x TILE entries of the
// lower triangle of the normal matrix in registers. The right-hand side is kept as one more row of the matrix, so that its
// Cholesky factor holds the forward solution, too. Rows of many samples are cut into segments, whose normal matrices
// gram_segments sums; ridge_rows adds them in a fixed order. Loops that are not unrolled on purpose save half of the compilation.
//
// Constants of a compilation: REAL, WIDTH (a multiple of TILE), TILE, THREADS (of a block), STAGE (samples), IN_SHARED
// (1: the normal matrix of a row is in shared memory; 0: in the scratch of its block), LEAST.

typedef long long int64;

#define EDGE (WIDTH / TILE)
#define TILES (EDGE * (EDGE + 1) / 2)
#define STEP (WIDTH + 1) // of a row of the normal matrix: odd, so that the threads of a column use all banks
#define SIZE ((WIDTH + 1) * STEP)
#define PARTIAL (SIZE + WIDTH) // a normal matrix and the variances added to its diagonal
#define EPS ((REAL)(sizeof(REAL) == 4 ? 1.1920928955078125e-07 : 2.220446049250313e-16))

// Normal matrix (lower triangle; last row: right-hand side) and added variances of the samples from first to end.
// root_weights: of the samples, which multiply the rows of the factor (the values have them already); null: all 1.
__device__ void accumulate(int64 first, int64 end, const int *index, const REAL *values, const REAL *root_weights,
                           const REAL *factor, const REAL *variances, REAL *normal, REAL *added)
{
    __shared__ REAL stage[STAGE * WIDTH];
    __shared__ REAL labels[STAGE];
#pragma unroll 1
    for (int c = threadIdx.x; c < WIDTH; c += THREADS) normal[WIDTH * STEP + c] = added[c] = 0;
#pragma unroll 1
    for (int group = 0; group < TILES; group += THREADS) {
        const int tile = group + threadIdx.x;
        int a = 0;
        while ((a + 1) * (a + 2) / 2 <= tile && a + 1 < EDGE) a++;
        const int c = tile - a * (a + 1) / 2;
        REAL sums[TILE][TILE];
#pragma unroll
        for (int i = 0; i < TILE; i++)
#pragma unroll
            for (int j = 0; j < TILE; j++) sums[i][j] = 0;
#pragma unroll 1
        for (int64 begin = first; begin < end; begin += STAGE) {
            const int samples = end - begin < STAGE ? (int)(end - begin) : STAGE;
            __syncthreads(); // all have done with the stage
            for (int k = threadIdx.x; k < samples * WIDTH; k += THREADS) {
                const int64 sample = begin + k / WIDTH;
                const REAL entry = factor[(int64)index[sample] * WIDTH + k % WIDTH];
                stage[k] = root_weights != 0 ? root_weights[sample] * entry : entry;
            }
#pragma unroll 1
            for (int k = threadIdx.x; k < samples; k += THREADS) labels[k] = values[begin + k];
            __syncthreads();
            if (tile < TILES)
                for (int k = 0; k < samples; k++)
#pragma unroll
                    for (int i = 0; i < TILE; i++)
#pragma unroll
                        for (int j = 0; j < TILE; j++)
                            sums[i][j] += stage[k * WIDTH + a * TILE + i] * stage[k * WIDTH + c * TILE + j];
            if (group == 0)
#pragma unroll 1
                for (int b = threadIdx.x; b < WIDTH; b += THREADS) {
                    REAL target = normal[WIDTH * STEP + b], extra = added[b];
#pragma unroll 1
                    for (int k = 0; k < samples; k++) {
                        target += stage[k * WIDTH + b] * labels[k];
                        if (variances == 0) continue;
                        const REAL weight = root_weights != 0 ? root_weights[begin + k] * root_weights[begin + k] : 1;
                        extra += weight * variances[(int64)index[begin + k] * WIDTH + b];
                    }
                    normal[WIDTH * STEP + b] = target;
                    added[b] = extra;
                }
        }
        if (tile < TILES)
#pragma unroll
            for (int i = 0; i < TILE; i++)
#pragma unroll
                for (int j = 0; j < TILE; j++) normal[(a * TILE + i) * STEP + c * TILE + j] = sums[i][j];
    }
    __syncthreads();
}

// Segment s of a row of several: its partial sums go to slot s.
extern "C" __global__ void gram_segments(const int64 *first, const int *count, const int *index, const REAL *values,
                                         const REAL *root_weights, const REAL *factor, const REAL *variances,
                                         REAL *partials)
{
    REAL *normal = partials + (int64)blockIdx.x * PARTIAL;
    const int64 begin = first[blockIdx.x];
    accumulate(begin, begin + count[blockIdx.x], index, values, root_weights, factor, variances, normal, normal + SIZE);
}

// long_of[i]: -1, or where in long_first the slots of row i are found. sums: what the rows add to uncertainty and freedom.
extern "C" __global__ void ridge_rows(int rows, const int64 *starts, const int *index, const REAL *values,
                                      const REAL *root_weights, const int *long_of, const int *long_first, const REAL *partials,
                                      const REAL *factor, const REAL *variances, const REAL *penalty, const REAL *means,
                                      int width, REAL *out, REAL *inverses, double *uncertainty, double *freedom,
                                      REAL *scratch)
{
#if IN_SHARED
    __shared__ REAL normal[SIZE];
#else
    REAL *normal = scratch + (int64)blockIdx.x * SIZE;
#endif
    __shared__ REAL added[WIDTH], diagonal[WIDTH], whole[WIDTH], roots[WIDTH], solution[WIDTH];
    __shared__ double terms[2 * WIDTH];
    REAL *const right = normal + WIDTH * STEP;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
    for (int64 i = blockIdx.x; i < rows; i += gridDim.x) {
        if (long_of[i] < 0) {
            accumulate(starts[i], starts[i + 1], index, values, root_weights, factor, variances, normal, added);
        } else {
#pragma unroll 1
            for (int k = threadIdx.x; k < PARTIAL; k += THREADS) {
                REAL sum = 0;
                for (int slot = long_first[long_of[i]]; slot < long_first[long_of[i] + 1]; slot++)
                    sum += partials[(int64)slot * PARTIAL + k];
                if (k < SIZE) normal[k] = sum;
                else added[k - SIZE] = sum;
            }
            __syncthreads();
        }
#pragma unroll 1
        for (int a = threadIdx.x; a < width; a += THREADS) {
            diagonal[a] = normal[a * STEP + a] + added[a];
            const REAL least = LEAST * width * EPS * diagonal[a];
            const REAL ridge = penalty[a] > least ? penalty[a] : least;
            whole[a] = diagonal[a] + ridge;
            normal[a * STEP + a] = whole[a];
            if (means != 0) right[a] += ridge * means[i * width + a];
        }
        __syncthreads();
#pragma unroll 1
        for (int a = 0; a < width; a++) { // row WIDTH, the right-hand side, follows the others
            const REAL bound = 8 * EPS * whole[a], rest = normal[a * STEP + a];
            const REAL root = sqrt(rest > bound ? rest : bound);
            if (threadIdx.x == 0) roots[a] = root;
#pragma unroll 1
            for (int r = a + 1 + threadIdx.x; r <= width; r += THREADS)
                normal[(r < width ? r : WIDTH) * STEP + a] /= root;
            __syncthreads();
#pragma unroll 1
            for (int r = a + 1 + warp; r <= width; r += THREADS / 32) {
                REAL *const row = normal + (r < width ? r : WIDTH) * STEP;
#pragma unroll 1
                for (int c = a + 1 + lane; c <= r && c < width; c += 32) row[c] -= row[a] * normal[c * STEP + a];
            }
            __syncthreads();
        }
#pragma unroll 1
        for (int a = width - 1; a >= 0; a--) {
            const REAL found = right[a] / roots[a];
            if (threadIdx.x == 0) solution[a] = found;
#pragma unroll 1
            for (int c = threadIdx.x; c < a; c += THREADS) right[c] -= normal[a * STEP + c] * found;
            __syncthreads();
        }
#pragma unroll 1
        for (int a = threadIdx.x; a < width; a += THREADS) {
            out[i * width + a] = solution[a];
            if (variances == 0) continue;
            inverses[i * width + a] = 1 / whole[a];
            terms[a] = (double)solution[a] * (double)solution[a] * (double)added[a];
            terms[WIDTH + a] = (double)diagonal[a] / (double)whole[a];
        }
        __syncthreads();
        if (variances != 0 && threadIdx.x < 2) {
            double sum = 0;
#pragma unroll 1
            for (int a = 0; a < width; a++) sum += terms[threadIdx.x * WIDTH + a];
            (threadIdx.x == 0 ? uncertainty : freedom)[i] = sum;
        }
        __syncthreads(); // before the next row
    }
}
