// As much of CUDA's runtime as launch.cu uses, on the CPU: the threads of a block are fibres that
// run in turn, from one __syncthreads to the next. For testing the kernels' indices and limits on a
// machine without a GPU; it says nothing about speed, nor about races within a block.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __restrict__
#define __shared__ static

using cudaStream_t = struct CUstream_st*;

struct float2 {
    float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
};

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulated {

struct Fibre {
    ucontext_t context;
    dim3 index;
    bool done = false;
    std::unique_ptr<char[]> stack{new char[kStack]};
    static constexpr std::size_t kStack = 64 * 1024;
};

inline std::vector<Fibre> fibres;
inline std::function<void()> body;
inline ucontext_t scheduler;
inline Fibre* running = nullptr;

inline void start() {
    body();
    running->done = true;
}

inline void run_block(unsigned threads) {
    if (fibres.size() < threads) fibres = std::vector<Fibre>(threads);
    for (unsigned i = 0; i < threads; ++i) {
        Fibre& fibre = fibres[i];
        fibre.done = false;
        fibre.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y,
                           i / blockDim.x / blockDim.y);
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.get();
        fibre.context.uc_stack.ss_size = Fibre::kStack;
        fibre.context.uc_link = &scheduler;
        makecontext(&fibre.context, start, 0);
    }
    for (bool left = true; left;) {
        left = false;
        for (unsigned i = 0; i < threads; ++i) {
            if (fibres[i].done) continue;
            running = &fibres[i];
            threadIdx = running->index;
            swapcontext(&scheduler, &running->context);
            left = left || !running->done;
        }
    }
}

}  // namespace emulated

inline void __syncthreads() {
    emulated::Fibre* self = emulated::running;
    swapcontext(&self->context, &emulated::scheduler);
}

// As a device does: 1 (cudaErrorInvalidValue) or 9 (cudaErrorInvalidConfiguration) beyond limits.
template <class... Parameters, class... Arguments>
int cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                       Arguments... arguments) {
    const dim3 grid = config->gridDim, block = config->blockDim;
    const unsigned threads = block.x * block.y * block.z;
    if (threads < 1 || threads > 1024 || block.z > 64) return 9;
    if (grid.x < 1 || grid.x > 2147483647u || grid.y < 1 || grid.y > 65535u || grid.z != 1)
        return 9;
    gridDim = grid;
    blockDim = block;
    emulated::body = [&] { kernel(arguments...); };
    for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = dim3(x, y);
            emulated::run_block(threads);
        }
    return 0;
}
