// Passes over the samples of a sparse matrix, with factors whose rows are padded with zeros to WIDTH numbers.
//
// A row with its samples is a sparse row of the residual; columns are the rows of the transposed matrix. Rows are cut into
// segments of bounded length, and a warp works on one segment: LANES threads share a row of a factor, so that 32 / LANES
// samples are worked on side by side. What a segment adds up goes to its row, or, where a row has several segments, to a slot
// of its own, from which sum_partials adds it in a fixed order. Nothing is atomic: two runs give the same bits.
//
// Constants of a compilation: REAL, WIDTH (a multiple of 4), LANES (a power of two up to 32), UNROLL.

typedef long long int64;

#define NUMBERS (16 / (int)sizeof(REAL)) // in a vector, which one instruction loads
#define VECTORS (WIDTH / NUMBERS)
#define PER_LANE ((VECTORS + LANES - 1) / LANES)
#define SIDE_BY_SIDE (32 / LANES)
#define ALL 0xffffffffu
#define BLOCK 256 // threads of the kernels that sum

struct __align__(16) Vector {
    REAL at[16 / sizeof(REAL)];
};

struct Row {
    Vector part[PER_LANE]; // vector p of a lane is vector lane + p * LANES of the row
};

__device__ __forceinline__ Row zero_row()
{
    Row row;
#pragma unroll
    for (int p = 0; p < PER_LANE; p++)
#pragma unroll
        for (int n = 0; n < NUMBERS; n++) row.part[p].at[n] = 0;
    return row;
}

__device__ __forceinline__ Row load_row(const REAL *__restrict__ rows, int64 i, int lane)
{
    Row row = zero_row();
    const Vector *vectors = (const Vector *)(rows + i * WIDTH);
#pragma unroll
    for (int p = 0; p < PER_LANE; p++)
        if (lane + p * LANES < VECTORS) row.part[p] = vectors[lane + p * LANES];
    return row;
}

__device__ __forceinline__ REAL dot(const Row &one, const Row &other)
{
    REAL sum = 0;
#pragma unroll
    for (int p = 0; p < PER_LANE; p++)
#pragma unroll
        for (int n = 0; n < NUMBERS; n++) sum += one.part[p].at[n] * other.part[p].at[n];
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
    return sum;
}

// Segment s holds the samples from first[s] on, count[s] of them, of row row[s]; slot[s] is -1 where that is the whole row.
// `out` has `width` numbers for each row, at the given steps. LOSS alone: nothing but the squares.
template <bool RESIDUAL, bool SUM>
__device__ void work(int segments, const int64 *first, const int *count, const int *row, const int *slot, const int *index,
                     const REAL *__restrict__ values, const REAL *__restrict__ rows, const REAL *__restrict__ others,
                     REAL *out, int64 row_step, int64 column_step, int width, REAL *partials, double *losses)
{
    const int lane = threadIdx.x % LANES, beside = threadIdx.x % 32 / LANES;
    const int64 warps = (int64)gridDim.x * (blockDim.x / 32);
    for (int64 s = (int64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; s < segments; s += warps) {
        const int64 begin = first[s];
        const int samples = count[s];
        const Row mine = RESIDUAL ? load_row(rows, row[s], lane) : zero_row();
        Row sums = zero_row();
        double loss = 0;
        for (int base = 0; base < samples; base += SIDE_BY_SIDE * UNROLL) { // the same for all lanes, as they meet in dot
            Row other[UNROLL];
            REAL weight[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; u++) { // all loads are under way before the first is waited for
                const int k = base + u * SIDE_BY_SIDE + beside;
                other[u] = zero_row();
                weight[u] = 0;
                if (k < samples) {
                    other[u] = load_row(others, index[begin + k], lane);
                    weight[u] = values[begin + k];
                }
            }
#pragma unroll
            for (int u = 0; u < UNROLL; u++) {
                REAL error = weight[u];
                if (RESIDUAL) {
                    error = dot(mine, other[u]) - weight[u];
                    if (base + u * SIDE_BY_SIDE + beside >= samples) error = 0; // infinite rows give NaN here
                    loss += (double)error * (double)error;
                }
                if (SUM)
#pragma unroll
                    for (int p = 0; p < PER_LANE; p++)
#pragma unroll
                        for (int n = 0; n < NUMBERS; n++) sums.part[p].at[n] += error * other[u].part[p].at[n];
            }
        }
#pragma unroll
        for (int step = LANES; step < 32; step *= 2) {
            if (RESIDUAL) loss += __shfl_xor_sync(ALL, loss, step);
            if (SUM)
#pragma unroll
                for (int p = 0; p < PER_LANE; p++)
#pragma unroll
                    for (int n = 0; n < NUMBERS; n++)
                        sums.part[p].at[n] += __shfl_xor_sync(ALL, sums.part[p].at[n], step);
        }
        if (RESIDUAL && losses != 0 && threadIdx.x % 32 == 0) losses[s] = loss;
        if (SUM && beside == 0)
#pragma unroll
            for (int p = 0; p < PER_LANE; p++)
#pragma unroll
                for (int n = 0; n < NUMBERS; n++) {
                    const int c = (lane + p * LANES) * NUMBERS + n;
                    if (c >= WIDTH) continue;
                    if (slot[s] >= 0) partials[(int64)slot[s] * WIDTH + c] = sums.part[p].at[n];
                    else if (c < width) out[row[s] * row_step + c * column_step] = sums.part[p].at[n];
                }
    }
}

#define SEGMENTS \
    int segments, const int64 *first, const int *count, const int *row, const int *slot, const int *index, const REAL *values

// Products of the residuals with the rows of `others`, and the squared residuals of each segment (unless losses is null).
extern "C" __global__ void residual_rows(SEGMENTS, const REAL *rows, const REAL *others, REAL *out, int64 row_step,
                                         int64 column_step, int width, REAL *partials, double *losses)
{
    work<true, true>(segments, first, count, row, slot, index, values, rows, others, out, row_step, column_step, width,
                     partials, losses);
}

// Products of the values with the rows of `others`.
extern "C" __global__ void gather_rows(SEGMENTS, const REAL *others, REAL *out, int64 row_step, int64 column_step,
                                       int width, REAL *partials)
{
    work<false, true>(segments, first, count, row, slot, index, values, 0, others, out, row_step, column_step, width,
                      partials, 0);
}

// Squared residuals of each segment.
extern "C" __global__ void square_rows(SEGMENTS, const REAL *rows, const REAL *others, double *losses)
{
    work<true, false>(segments, first, count, row, slot, index, values, rows, others, 0, 0, 0, 0, 0, losses);
}

// A block for each row of several segments: long_row[b], whose slots are long_first[b] to long_first[b + 1].
extern "C" __global__ void sum_partials(const int *long_row, const int *long_first, const REAL *partials, REAL *out,
                                        int64 row_step, int64 column_step, int width)
{
    __shared__ REAL parts[BLOCK];
    const int slices = BLOCK / WIDTH, c = threadIdx.x % WIDTH, slice = threadIdx.x / WIDTH;
    REAL sum = 0;
    if (slice < slices)
        for (int64 slot = long_first[blockIdx.x] + slice; slot < long_first[blockIdx.x + 1]; slot += slices)
            sum += partials[slot * WIDTH + c];
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (slice == 0 && c < width) {
        for (int other = 1; other < slices; other++) sum += parts[other * WIDTH + c];
        out[long_row[blockIdx.x] * row_step + c * column_step] = sum;
    }
}

// factor times the sum of the terms that fall to each block.
extern "C" __global__ void sum_doubles(int64 count, const double *terms, double *out, double factor)
{
    __shared__ double parts[BLOCK];
    const int64 share = (count + gridDim.x - 1) / gridDim.x, first = blockIdx.x * share;
    const int64 end = first + share < count ? first + share : count;
    double sum = 0;
    for (int64 k = first + threadIdx.x; k < end; k += BLOCK) sum += terms[k];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = factor * parts[0];
}

// Entries of left right^T at (rows, cols).
extern "C" __global__ void sampled_product(int64 samples, const int *rows, const int *cols, const REAL *left,
                                           const REAL *right, REAL *out)
{
    const int lane = threadIdx.x % LANES, beside = threadIdx.x % 32 / LANES;
    const int64 warps = (int64)gridDim.x * (blockDim.x / 32);
    int64 base = ((int64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * SIDE_BY_SIDE * UNROLL;
    for (; base < samples; base += warps * SIDE_BY_SIDE * UNROLL) {
        Row one[UNROLL], other[UNROLL];
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const int64 k = base + u * SIDE_BY_SIDE + beside;
            one[u] = k < samples ? load_row(left, rows[k], lane) : zero_row();
            other[u] = k < samples ? load_row(right, cols[k], lane) : zero_row();
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const int64 k = base + u * SIDE_BY_SIDE + beside;
            const REAL product = dot(one[u], other[u]);
            if (lane == 0 && k < samples) out[k] = product;
        }
    }
}
