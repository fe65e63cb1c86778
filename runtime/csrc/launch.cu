// The CUDA kernels and their launch functions (sonomime_kernels.h).
#include <cuda_runtime.h>

#include "functions.h"

namespace sonomime {

namespace {

constexpr int kThreads = 256;
constexpr unsigned kFewThreads = 64;  // where pixels are few, small blocks reach more processors
constexpr unsigned kMostGroups = 8;  // of channels, in one block
constexpr unsigned kMostGridRows = 65535;

unsigned blocks_for(int count, unsigned each) {
    return (static_cast<unsigned>(count) + each - 1) / each;
}

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, cudaStream_t stream,
           Arguments... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.stream = stream;
    // Not <<<>>> and cudaGetLastError: that would fetch and clear errors of others.
    return static_cast<int>(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// A block is `groups` groups of channels of kThreads / groups pixels. Where a pixel reads is
// computed once for all of its groups in the block. kEight: neighbouring threads are neighbouring
// groups (16 bytes each), else neighbouring pixels.
template <class Value, bool kEight>
__global__ void __launch_bounds__(kThreads)
    warp_occlude_kernel(WarpSizes sizes, const void* __restrict__ feature,
                        const float* __restrict__ deformation, const float* __restrict__ occlusion,
                        void* __restrict__ output) {
    __shared__ Place places[kThreads];
    const int groups = static_cast<int>(kEight ? blockDim.x : blockDim.y);
    const int pixels = kThreads / groups;
    const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    const int first = static_cast<int>(blockIdx.x) * pixels;
    const int count = sizes.height * sizes.width;
    if (thread < pixels && first + thread < count)
        places[thread] = place_of(sizes, deformation, occlusion, first + thread);
    __syncthreads();
    const int among = static_cast<int>(kEight ? threadIdx.y : threadIdx.x);
    const int pixel = first + among;
    const int group = static_cast<int>(blockIdx.y) * groups +
                      static_cast<int>(kEight ? threadIdx.x : threadIdx.y);
    constexpr int size_of_group = kEight ? kEightGroup : kLinearGroup;
    if (pixel >= count || group * size_of_group >= sizes.channels) return;
    warp_group<Value, kEight>(sizes, feature, output, places[among], pixel, group);
}

// The pixel of a thread, where blocks and pixels have one dimension.
__device__ inline int own_pixel() {
    return static_cast<int>(blockIdx.x) * static_cast<int>(blockDim.x) +
           static_cast<int>(threadIdx.x);
}

// A thread is one pixel of one slot; all threads of a block share the slot.
__global__ void __launch_bounds__(kThreads)
    sparse_motion_kernel(SparseSizes sizes, const float* __restrict__ source_small,
                         Keypoints keypoints, float* __restrict__ output) {
    const int pixel = own_pixel(), slot = static_cast<int>(blockIdx.y);
    if (pixel >= sizes.height * sizes.width) return;
    sparse_slot(sizes, source_small, slot_motion(keypoints, slot), output, pixel, slot);
}

// A thread is one pixel; the block's first threads make the motions of all slots for all of it.
template <int kMost>
__global__ void __launch_bounds__(kThreads)
    compose_motion_kernel(ComposeSizes sizes, const float* __restrict__ logits,
                          Keypoints keypoints, float2* __restrict__ output) {
    __shared__ SlotMotion motions[kMost > 0 ? kMost : kMostSlots];
    for (int slot = static_cast<int>(threadIdx.x); slot < sizes.slots;
         slot += static_cast<int>(blockDim.x))
        motions[slot] = slot_motion(keypoints, slot);
    __syncthreads();
    const int pixel = own_pixel();
    if (pixel >= sizes.height * sizes.width) return;
    const Point point = composed<kMost>(sizes, logits, motions, pixel);
    output[pixel] = make_float2(point.x, point.y);
}

// A thread is one pixel of the slow rest of a frame, at half the model's size.
__global__ void __launch_bounds__(kThreads)
    base_kernel(FrameSizes sizes, FrameLayers layers, const float* __restrict__ low,
                float* __restrict__ base) {
    const int pixel = own_pixel();
    if (pixel >= (sizes.size / 2) * (sizes.size / 2)) return;
    base_pixel(sizes, layers, low, base, pixel);
}

// A thread is one pixel of the frame.
__global__ void __launch_bounds__(kThreads)
    frame_kernel(FrameSizes sizes, FrameLayers layers, const std::uint8_t* __restrict__ picture,
                 const float* __restrict__ base, std::uint8_t* __restrict__ frame) {
    const int pixel = own_pixel();
    if (pixel >= sizes.height * sizes.width) return;
    frame_pixel(sizes, layers, picture, base, frame, pixel);
}

}  // namespace

template <class Value, bool kEight>
static int warp_occlude(const WarpSizes& sizes, const void* feature, const float* deformation,
                        const float* occlusion, void* output, cudaStream_t stream) {
    const unsigned all_groups = blocks_for(sizes.channels, kEight ? kEightGroup : kLinearGroup);
    unsigned groups = 1;
    while (groups < all_groups && groups < kMostGroups) groups *= 2;
    const unsigned pixels = kThreads / groups, rows = (all_groups + groups - 1) / groups;
    if (rows > kMostGridRows) return kInvalidValue;
    const dim3 grid(blocks_for(sizes.height * sizes.width, pixels), rows);
    const unsigned x = kEight ? groups : pixels;
    return launch(warp_occlude_kernel<Value, kEight>, grid, dim3(x, kThreads / x), stream, sizes,
                  feature, deformation, occlusion, output);
}

static int sparse_motion(const SparseSizes& sizes, const float* source_small,
                         const Keypoints& keypoints, float* output, cudaStream_t stream) {
    const dim3 grid(blocks_for(sizes.height * sizes.width, kThreads),
                    static_cast<unsigned>(sizes.slots));
    return launch(sparse_motion_kernel, grid, dim3(kThreads), stream, sizes, source_small,
                  keypoints, output);
}

static int compose_motion(const ComposeSizes& sizes, const float* logits,
                          const Keypoints& keypoints, float* output, cudaStream_t stream) {
    const dim3 grid(blocks_for(sizes.height * sizes.width, kFewThreads));
    const auto kernel = sizes.slots <= 16   ? compose_motion_kernel<16>
                        : sizes.slots <= 32 ? compose_motion_kernel<32>
                                            : compose_motion_kernel<0>;
    return launch(kernel, grid, dim3(kFewThreads), stream, sizes, logits, keypoints,
                  reinterpret_cast<float2*>(output));
}

static int compose_frame(const FrameSizes& sizes, const FrameLayers& layers, const float* low,
                         const std::uint8_t* picture, float* base, std::uint8_t* frame,
                         cudaStream_t stream) {
    const int half = sizes.size / 2;
    const dim3 few(blocks_for(half * half, kFewThreads));
    const int status =
        launch(base_kernel, few, dim3(kFewThreads), stream, sizes, layers, low, base);
    if (status != 0) return status;
    const dim3 grid(blocks_for(sizes.height * sizes.width, kThreads));
    return launch(frame_kernel, grid, dim3(kThreads), stream, sizes, layers, picture,
                  static_cast<const float*>(base), frame);
}

}  // namespace sonomime
