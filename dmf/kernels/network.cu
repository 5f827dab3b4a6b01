// Steps of training a chain of linear maps with activations between them; see dmf.kernels.gpu_network.
//
// Nothing is atomic and every sum has a fixed order: two runs give the same bits. `progress` is kept on the device: the number
// of the step, the loss of its batch, the steps whose loss was finite before the first that was not, whether there was one, and
// whether a weight is not finite.
//
// Constants of a compilation: REAL.

typedef long long int64;

#define BLOCK 256
#define TILE 32 // of a product, in rows, columns and terms of the sums; a thread has 2 x 2 entries
#define EACH(k, count) \
    for (int64 k = (int64)blockIdx.x * blockDim.x + threadIdx.x; k < (count); k += (int64)gridDim.x * blockDim.x)
enum { LINEAR, RELU, TANH, GELU };
enum { STEP, LOSS, TAKEN, BAD, WILD };
#define SLOPE ((REAL)0.7978845608028654) // of GELU: the root of 2 / pi
#define CUBE ((REAL)0.044715)

__device__ __forceinline__ REAL activated(int kind, REAL x)
{
    if (kind == RELU) return x > 0 ? x : (x == x ? 0 : x); // NaN stays NaN
    if (kind == TANH) return tanh(x);
    if (kind == GELU) return (REAL)0.5 * x * (1 + tanh(SLOPE * (x + CUBE * x * x * x)));
    return x;
}

// Derivative, from what the activation gave (ReLU, tanh) or was given (GELU).
__device__ __forceinline__ REAL derivative(int kind, REAL kept)
{
    if (kind == RELU) return kept > 0 ? 1 : 0;
    if (kind == TANH) return 1 - kept * kept;
    if (kind != GELU) return 1;
    const REAL bent = tanh(SLOPE * (kept + CUBE * kept * kept * kept));
    return (REAL)0.5 * (1 + bent) + (REAL)0.5 * kept * (1 - bent * bent) * SLOPE * (1 + 3 * CUBE * kept * kept);
}

// A thread's four numbers of a tile of `array` (rows x terms at their steps), 0 beyond its ends. Neighbouring threads read
// neighbouring numbers.
__device__ __forceinline__ void load(REAL *four, const REAL *__restrict__ array, int64 rows, int64 terms, int64 row_step,
                                     int64 term_step, int64 row, int64 term)
{
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int near = threadIdx.x % TILE, far = threadIdx.x / TILE + e * (BLOCK / TILE);
        const int64 i = row + (term_step == 1 ? far : near), k = term + (term_step == 1 ? near : far);
        four[e] = i < rows && k < terms ? array[i * row_step + k * term_step] : 0;
    }
}

__device__ __forceinline__ void store(const REAL *four, REAL (*tile)[TILE + 1], bool along_terms)
{
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int near = threadIdx.x % TILE, far = threadIdx.x / TILE + e * (BLOCK / TILE);
        if (along_terms) tile[near][far] = four[e];
        else tile[far][near] = four[e];
    }
}

__device__ __forceinline__ REAL rate_of(int64 k, const int64 *ends, const double *rates, double step_size, double divisor)
{
    int array = 0;
    while (ends[array] <= k) array++;
    return (REAL)(rates[array] * step_size / divisor);
}

// average: null without one.
__device__ __forceinline__ void average_in(REAL *averages, int64 k, REAL weight, double share)
{
    if (averages != 0) averages[k] = (REAL)(1 - share) * averages[k] + (REAL)share * weight;
}

// First sample of a batch in the order of its epoch; batches of `size` of `total` samples, the last one of those left.
__device__ __forceinline__ int64 first_of(const double *progress, int64 size, int64 total)
{
    return (int64)progress[STEP] % ((total + size - 1) / size) * size;
}

__device__ __forceinline__ int64 rows_of(const double *progress, int64 size, int64 total)
{
    const int64 left = total - first_of(progress, size, total);
    return left < size ? left : size;
}

// out (n x m) = one (n x inner) other (inner x m), a block for each tile. Forward: plus the bias of the column, if there is one,
// and activated; `kept` gets what GELU was given. Backward: times the derivative of the activation below, from `kept`.
extern "C" __global__ void product(int64 n, int64 m, int64 inner, const REAL *one, int64 one_row, int64 one_inner,
                                   const REAL *other, int64 other_inner, int64 other_column, REAL *out, const REAL *bias,
                                   REAL *kept, int activation, int backward)
{
    __shared__ REAL left[TILE][TILE + 1], right[TILE][TILE + 1]; // by term, then by row or column
    const int64 across = (m + TILE - 1) / TILE, row = blockIdx.x / across * TILE, column = blockIdx.x % across * TILE;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    REAL sums[2][2] = {{0, 0}, {0, 0}}, a[4], b[4];
    load(a, one, n, inner, one_row, one_inner, row, 0);
    load(b, other, m, inner, other_column, other_inner, column, 0);
    for (int64 term = 0; term < inner; term += TILE) {
        __syncthreads(); // all have done with the tiles
        store(a, left, one_inner == 1);
        store(b, right, other_inner == 1);
        __syncthreads();
        if (term + TILE < inner) { // under way while this tile is worked on
            load(a, one, n, inner, one_row, one_inner, row, term + TILE);
            load(b, other, m, inner, other_column, other_inner, column, term + TILE);
        }
#pragma unroll
        for (int k = 0; k < TILE; k++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++) sums[i][j] += left[k][y + 16 * i] * right[k][x + 16 * j];
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int64 r = row + y + 16 * i, c = column + x + 16 * j;
            if (r >= n || c >= m) continue;
            REAL found = sums[i][j];
            if (backward) {
                if (activation != LINEAR) found *= derivative(activation, kept[r * m + c]);
            } else {
                if (bias != 0) found += bias[c];
                if (activation == GELU) kept[r * m + c] = found;
                found = activated(activation, found);
            }
            out[r * m + c] = found;
        }
}

// Sum of each of m columns over n rows; a block for 32 columns.
extern "C" __global__ void column_sums(int64 n, int64 m, const REAL *rows, REAL *out)
{
    __shared__ REAL parts[BLOCK];
    const int lane = threadIdx.x % 32, slice = threadIdx.x / 32;
    const int64 c = (int64)blockIdx.x * 32 + lane;
    REAL sum = 0;
    if (c < m)
        for (int64 r = slice; r < n; r += BLOCK / 32) sum += rows[r * m + c];
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (slice == 0 && c < m) {
        for (int other = 1; other < BLOCK / 32; other++) sum += parts[other * 32 + lane];
        out[c] = sum;
    }
}

// The number of the step, and what Adam and running averages divide by in it; one thread.
extern "C" __global__ void begin(double *progress, double *divisors, double beta1, double beta2, double decay)
{
    const double step = progress[STEP] += 1;
    divisors[0] = 1 - pow(beta1, step);
    divisors[1] = sqrt(1 - pow(beta2, step));
    divisors[2] = (1 - decay) / (1 - pow(decay, step)); // share of the new weights in the average
}

extern "C" __global__ void adam(int64 count, const int64 *ends, const double *rates, const double *divisors, REAL *weights,
                                const REAL *gradient, REAL *means, REAL *squares, REAL *averages, double step_size,
                                double beta1, double beta2, double epsilon)
{
    EACH(k, count)
    {
        const REAL g = gradient[k];
        const REAL mean = (REAL)beta1 * means[k] + (REAL)(1 - beta1) * g;
        const REAL square = (REAL)beta2 * squares[k] + (REAL)(1 - beta2) * (g * g);
        const REAL root = sqrt(square) / (REAL)divisors[1] + (REAL)epsilon;
        const REAL weight = weights[k] - mean / root * rate_of(k, ends, rates, step_size, divisors[0]);
        means[k] = mean;
        squares[k] = square;
        weights[k] = weight;
        average_in(averages, k, weight, divisors[2]);
    }
}

// Gradient descent; `velocities`, null without momentum, hold steps.
extern "C" __global__ void descend(int64 count, const int64 *ends, const double *rates, const double *divisors,
                                   REAL *weights, const REAL *gradient, REAL *velocities, REAL *averages, double step_size,
                                   double momentum)
{
    EACH(k, count)
    {
        REAL step = rate_of(k, ends, rates, step_size, 1) * gradient[k];
        if (velocities != 0) step = velocities[k] = (REAL)momentum * velocities[k] + step;
        const REAL weight = weights[k] - step;
        weights[k] = weight;
        average_in(averages, k, weight, divisors[2]);
    }
}

// The batch: rows of `all`, which has `width` columns; 0 beyond the last sample.
extern "C" __global__ void take(const double *progress, int64 size, int64 total, int64 width, const int *order,
                                const REAL *all, REAL *out)
{
    const int64 first = first_of(progress, size, total), rows = rows_of(progress, size, total);
    EACH(k, size * width) out[k] = k / width < rows ? all[order[first + k / width] * width + k % width] : 0;
}

// Loss of each sample, divided by their number, and gradient with respect to the outputs; a warp for each sample.
extern "C" __global__ void cross_entropy(const double *progress, int64 size, int64 total, int64 classes, const REAL *outputs,
                                         const REAL *labels, REAL *gradient, double *losses)
{
    const int lane = threadIdx.x % 32;
    const int64 rows = rows_of(progress, size, total), warps = (int64)gridDim.x * (BLOCK / 32);
    for (int64 i = (int64)blockIdx.x * (BLOCK / 32) + threadIdx.x / 32; i < size; i += warps) {
        const REAL *row = outputs + i * classes;
        REAL most = row[0], sum = 0;
        for (int64 c = lane; c < classes; c += 32) most = row[c] > most ? row[c] : most;
        for (int step = 16; step > 0; step /= 2) {
            const REAL theirs = __shfl_xor_sync(0xffffffffu, most, step);
            most = theirs > most ? theirs : most;
        }
        for (int64 c = lane; c < classes; c += 32) sum += exp(row[c] - most);
        for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
        const int64 label = (int64)labels[i];
        for (int64 c = lane; c < classes; c += 32)
            gradient[i * classes + c] = i < rows ? (exp(row[c] - most) / sum - (c == label)) / rows : 0;
        if (lane == 0) losses[i] = i < rows ? (double)(log(sum) - (row[label] - most)) / rows : 0;
    }
}

extern "C" __global__ void squared(const double *progress, int64 size, int64 total, int64 width, const REAL *outputs,
                                   const REAL *targets, REAL *gradient, double *losses)
{
    const int64 rows = rows_of(progress, size, total);
    EACH(i, size)
    {
        double sum = 0;
        for (int64 c = i * width; c < (i + 1) * width; c++) {
            const REAL off = i < rows ? outputs[c] - targets[c] : 0;
            sum += (double)off * (double)off;
            gradient[c] = off / rows;
        }
        losses[i] = 0.5 * sum / rows;
    }
}

// Adds up the losses; one block. What follows a loss that is not finite is computed, but does not count.
extern "C" __global__ void settle(int64 count, const double *losses, double *progress)
{
    __shared__ double parts[BLOCK];
    double sum = 0;
    for (int64 k = threadIdx.x; k < count; k += BLOCK) sum += losses[k];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x > 0 || progress[BAD] != 0) return;
    if (parts[0] - parts[0] == 0) {
        progress[LOSS] = parts[0];
        progress[TAKEN] += 1;
    } else {
        progress[BAD] = 1;
    }
}

extern "C" __global__ void watch(int64 count, const REAL *weights, double *progress)
{
    EACH(k, count)
    {
        if (!(weights[k] - weights[k] == 0)) progress[WILD] = 1; // all who write write the same
    }
}
