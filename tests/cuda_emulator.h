// Runs the kernels of a CUDA source on the CPU: every thread of a block is a fiber that runs until it meets the others, at
// __syncthreads or in a shuffle of its warp. Blocks run one after another. Included before the source, by g++.
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

struct Dim { unsigned x; };
static Dim threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
const int MOST = 1024, STACK = (1 << 15) + 448; // not a power of two: stacks would fall on the same lines of the cache
struct Meeting { int expected, waiting, generation; };
struct Warp { Meeting meeting; char box[32][8]; int tag[32]; };
struct Fiber { ucontext_t context; jmp_buf at; bool started, ended; };
static Fiber fibers[MOST];
static char *stacks = 0;
static Warp warps[MOST / 32];
static Meeting block;
static jmp_buf scheduler;
static int events; // fibers that ended and meetings that took place
static const char *problem;
static void (*body)(void *);
static void *argument;

[[noreturn]] static void back() { longjmp(scheduler, 1); }

__attribute__((noinline)) static void pause() // of the running fiber
{
    if (!_setjmp(fibers[threadIdx.x].at)) back();
}

static void open(Meeting &meeting)
{
    meeting.waiting = 0;
    meeting.generation++;
    events++;
}

static void meet(Meeting &meeting)
{
    const int mine = meeting.generation;
    if (++meeting.waiting == meeting.expected) open(meeting);
    else while (meeting.generation == mine) pause();
}

static void leave(Meeting &meeting)
{
    meeting.expected--;
    if (meeting.waiting > 0 && meeting.waiting == meeting.expected) open(meeting);
}

static void start() // of a fiber, which goes on to the thread of its number in the next block
{
    for (;;) {
        body(argument);
        fibers[threadIdx.x].ended = true;
        events++;
        leave(block);
        leave(warps[threadIdx.x / 32].meeting);
        pause();
    }
}

static void run_block(int threads, bool descending)
{
    block = {threads, 0, 0};
    for (int w = 0; w < threads / 32 + 1; w++) warps[w].meeting = {threads - 32 * w < 32 ? threads - 32 * w : 32, 0, 0};
    for (int t = 0; t < threads; t++) fibers[t].ended = false;
    for (int alive = threads; alive > 0 && !problem;) {
        const int before = events;
        alive = 0;
        for (int k = 0; k < threads; k++) {
            const int t = descending ? threads - 1 - k : k;
            Fiber &fiber = fibers[t];
            if (fiber.ended) continue;
            alive++;
            threadIdx.x = t;
            if (_setjmp(scheduler)) continue;
            if (fiber.started) longjmp(fiber.at, 1);
            fiber.started = true;
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = stacks + (size_t)t * STACK;
            fiber.context.uc_stack.ss_size = STACK;
            fiber.context.uc_link = 0;
            makecontext(&fiber.context, start, 0);
            setcontext(&fiber.context);
        }
        if (alive && events == before) problem = "threads wait for others that never come";
    }
}

template <class... A, size_t... I> static void call(void (*kernel)(A...), void **values, std::index_sequence<I...>)
{
    kernel(*(A *)values[I]...);
}

// Kind of a type: bytes of the number, or of those that it points to, + 16 for floating point, + 32 for pointers.
template <class T> constexpr int kind()
{
    using Number = std::remove_pointer_t<T>;
    return (int)sizeof(Number) + 16 * std::is_floating_point<Number>::value + 32 * std::is_pointer<T>::value;
}

// Arguments as pointers to their values, with the kind of each; 32 alone is the null pointer.
template <class... A>
static const char *run(void (*kernel)(A...), int blocks, int threads, int descending, int count, void **values, int *kinds)
{
    const int expected[] = {kind<A>()...};
    if (count != (int)sizeof...(A)) return "wrong number of arguments";
    for (int k = 0; k < count; k++)
        if (kinds[k] != expected[k] && !(kinds[k] == 32 && expected[k] > 32)) {
            static char text[64];
            snprintf(text, sizeof text, "argument %d is of the wrong type", k);
            return text;
        }
    if (!stacks) stacks = (char *)malloc((size_t)MOST * STACK);
    struct Call { void (*kernel)(A...); void **values; } it = {kernel, values};
    argument = &it;
    body = [](void *p) { call(((Call *)p)->kernel, ((Call *)p)->values, std::index_sequence_for<A...>()); };
    if (problem) return problem; // its threads still wait
    gridDim.x = blocks;
    blockDim.x = threads;
    for (int b = 0; b < blocks && !problem; b++) {
        blockIdx.x = descending ? blocks - 1 - b : b;
        run_block(threads, descending);
    }
    return problem;
}
} // namespace emulator

static void __syncthreads() { emulator::meet(emulator::block); }

template <class T> static T __shfl_xor_sync(unsigned mask, T value, int lane_mask)
{
    emulator::Warp &warp = emulator::warps[threadIdx.x / 32];
    const int lane = threadIdx.x % 32, other = lane ^ lane_mask;
    memcpy(warp.box[lane], &value, sizeof(T));
    warp.tag[lane] = lane_mask * 16 + sizeof(T);
    emulator::meet(warp.meeting);
    if (mask != 0xffffffffu || warp.meeting.expected != 32 || warp.tag[other] != warp.tag[lane])
        emulator::problem = "lanes of a warp meet in different shuffles";
    memcpy(&value, warp.box[other], sizeof(T));
    emulator::meet(warp.meeting);
    return value;
}
