// What a step of gradient descent needs besides the passes over the samples; see dmf.kernels.gpu_descent.
//
// Constants of a compilation: REAL.

typedef long long int64;

#define BLOCK 256
#define EACH(k, count) \
    for (int64 k = (int64)blockIdx.x * blockDim.x + threadIdx.x; k < (count); k += (int64)gridDim.x * blockDim.x)

// moved = shrink weights - rate gradient. Layer l ends at ends[l].
extern "C" __global__ void move(int64 count, const REAL *weights, const REAL *gradient, REAL *moved, const int64 *ends,
                                const REAL *rates, REAL shrink)
{
    EACH(k, count)
    {
        int layer = 0;
        while (ends[layer] <= k) layer++;
        moved[k] = shrink * weights[k] - rates[layer] * gradient[k];
    }
}

// out = transposed one, one of shape (count, columns).
extern "C" __global__ void transpose(int64 count, int64 columns, const REAL *one, REAL *out, int64 out_step)
{
    EACH(k, count * columns) out[k % columns * out_step + k / columns] = one[k];
}

// The same rows at another step.
extern "C" __global__ void copy_rows(int64 count, int64 columns, const REAL *one, REAL *out, int64 out_step)
{
    EACH(k, count * columns) out[k / columns * out_step + k % columns] = one[k];
}

// out (n x m) = one (n x inner) other (inner x m), each at its steps; a thread for each entry.
extern "C" __global__ void multiply(int64 n, int64 m, int64 inner, const REAL *one, int64 one_row, int64 one_column,
                                    const REAL *other, int64 other_row, int64 other_column, REAL *out, int64 out_row)
{
    EACH(k, n * m)
    {
        const REAL *a = one + k / m * one_row, *b = other + k % m * other_column;
        REAL sum = 0;
        for (int64 e = 0; e < inner; e++) sum += a[e * one_column] * b[e * other_row];
        out[k / m * out_row + k % m] = sum;
    }
}

// The same with a block for each entry, for long sums.
extern "C" __global__ void multiply_long(int64 n, int64 m, int64 inner, const REAL *one, int64 one_row,
                                         int64 one_column, const REAL *other, int64 other_row, int64 other_column,
                                         REAL *out, int64 out_row)
{
    __shared__ REAL parts[BLOCK];
    const int64 i = blockIdx.x / m, j = blockIdx.x % m;
    REAL sum = 0;
    for (int64 e = threadIdx.x; e < inner; e += BLOCK)
        sum += one[i * one_row + e * one_column] * other[e * other_row + j * other_column];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[i * out_row + j] = parts[0];
}

// progress: loss of the weights, steps taken, whether a loss was not finite; a step is taken unless one was.
extern "C" __global__ void accept(int64 count, const REAL *moved, const REAL *found, REAL *weights, REAL *gradient,
                                  REAL scale, const double *loss, const double *progress)
{
    if (progress[2] != 0 || !(*loss - *loss == 0)) return;
    EACH(k, count)
    {
        weights[k] = moved[k];
        gradient[k] = scale * found[k];
    }
}

extern "C" __global__ void settle(const double *loss, double *progress)
{
    if (progress[2] != 0) return;
    if (*loss - *loss == 0) {
        progress[0] = *loss;
        progress[1] += 1;
    } else {
        progress[2] = 1;
    }
}
