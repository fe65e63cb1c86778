// As much of CUDA's runtime as launch.cu uses, on the CPU: the threads of a block run one after the
// other, the last one first, up to __syncthreads, then, if there is one, once more from the start to
// the end. So a kernel may wait once, and what it does before that must not depend on how often it is
// done. For testing the kernels' indices and limits on a machine without a GPU, and that they wait for
// what the block's first threads make; it says nothing about speed, nor about other races.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>

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

inline std::jmp_buf to_the_next_thread;
inline bool to_the_end;
inline unsigned waits;

}  // namespace emulated

inline void __syncthreads() {
    ++emulated::waits;
    if (!emulated::to_the_end) std::longjmp(emulated::to_the_next_thread, 1);
}

// As a device does: 1 (cudaErrorInvalidValue) or 9 (cudaErrorInvalidConfiguration) beyond limits.
template <class... Parameters, class... Arguments>
int cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                       Arguments... arguments) {
    const dim3 grid = config->gridDim, block = config->blockDim;
    const unsigned threads = block.x * block.y;
    if (threads < 1 || threads > 1024 || block.z != 1) return 9;
    if (grid.x < 1 || grid.x > 2147483647u || grid.y < 1 || grid.y > 65535u || grid.z != 1)
        return 9;
    gridDim = grid;
    blockDim = block;
    static unsigned thread;  // not local: longjmp would spoil it
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x)
            for (const bool to_the_end : {false, true}) {
                if (to_the_end && emulated::waits == 0) break;
                emulated::to_the_end = to_the_end;
                emulated::waits = 0;
                for (thread = threads; thread-- > 0;) {
                    threadIdx = dim3(thread % block.x, thread / block.x);
                    if (setjmp(emulated::to_the_next_thread) == 0) kernel(arguments...);
                }
                if (emulated::waits != 0 && emulated::waits != threads) std::abort();
            }
    return 0;
}
