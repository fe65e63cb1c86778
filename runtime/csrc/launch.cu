// The C functions of sonomime_kernels.h: they check their arguments, then launch the CUDA kernels.
#include <cuda_runtime.h>

#include <climits>
#include <cmath>
#include <cstdint>

#include "compose_frame.h"
#include "motion.h"
#include "sonomime_kernels.h"
#include "warp_occlude.h"

namespace sonomime {

namespace {

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int kMostSlots = 1024;  // the motions of all slots have to fit into shared memory
// Offsets are ints, and the last block of a grid reaches beyond the end.
constexpr int kMostElements = INT_MAX - 1024;
// A float32 coordinate beyond 2^24 skips pixels, and might reach outside.
constexpr int kLongestSide = 1 << 24;

constexpr unsigned kThreads = 256;
constexpr unsigned kFewThreads = 64;  // where pixels are few, small blocks reach more processors
constexpr unsigned kMostGroups = 8;  // of channels, in one block
constexpr unsigned kMostGridRows = 65535;

template <class... Pointers>
bool all_given(const Pointers*... pointers) {
    return (... && (pointers != nullptr));
}

// Counts of 1 or more, with no more elements than can be indexed.
template <class... Counts>
bool fits(Counts... counts) {
    std::int64_t product = 1;
    for (const std::int64_t count : {static_cast<std::int64_t>(counts)...}) {
        if (count < 1 || count > kMostElements / product) return false;
        product *= count;
    }
    return true;
}

bool sides_fit(int height, int width) { return height <= kLongestSide && width <= kLongestSide; }

// Whether `times` a part, of that length from `start` on, lies in what ends at `end`.
bool within(int start, int length, int end, int times) {
    return start >= 0 && length >= 1 && times * (static_cast<std::int64_t>(start) + length) <= end;
}

bool aligned(const void* pointer, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

float as_flag(int value) { return value != 0 ? 1.0f : 0.0f; }

// The slots of that many keypoints; 0, which is refused, for a count that makes no sense.
int slots_of(int keypoints) { return keypoints > 0 && keypoints < kMostSlots ? keypoints + 1 : 0; }

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

// The pixel of a thread, where blocks and pixels have one dimension.
__device__ inline int own_pixel() {
    return static_cast<int>(blockIdx.x) * static_cast<int>(blockDim.x) +
           static_cast<int>(threadIdx.x);
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
    const int pixels = static_cast<int>(kThreads) / groups;
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
    if constexpr (kEight)
        warp_eight(sizes, static_cast<const Eight*>(feature), static_cast<Eight*>(output),
                   places[among], pixel, group);
    else
        warp_linear(sizes, static_cast<const Value*>(feature), static_cast<Value*>(output),
                    places[among], pixel, group);
}

// A thread is one pixel of one slot; all threads of a block share the slot.
__global__ void __launch_bounds__(kThreads)
    sparse_motion_kernel(MotionSizes sizes, const float* __restrict__ source_small,
                         Keypoints keypoints, float* __restrict__ output) {
    const int pixel = own_pixel(), slot = static_cast<int>(blockIdx.y);
    if (pixel >= sizes.height * sizes.width) return;
    sparse_slot(sizes, source_small, slot_motion(keypoints, slot), output, pixel, slot);
}

// A thread is one pixel; the block's first threads make the motions of all slots for all of it.
template <int kMost>
__global__ void __launch_bounds__(kThreads)
    compose_motion_kernel(MotionSizes sizes, const float* __restrict__ logits,
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
    if (pixel < (sizes.size / 2) * (sizes.size / 2)) base_pixel(sizes, layers, low, base, pixel);
}

// A thread is one pixel of the frame.
__global__ void __launch_bounds__(kThreads)
    frame_kernel(FrameSizes sizes, FrameLayers layers, const std::uint8_t* __restrict__ picture,
                 const float* __restrict__ base, std::uint8_t* __restrict__ frame) {
    const int pixel = own_pixel();
    if (pixel < sizes.height * sizes.width)
        frame_pixel(sizes, layers, picture, base, frame, pixel);
}

template <class Value, bool kEight>
int warp_occlude(const WarpSizes& sizes, const void* feature, const float* deformation,
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

}  // namespace

}  // namespace sonomime

using namespace sonomime;

int sonomime_warp_occlude(const void* feature, const float* deformation, const float* occlusion,
                          void* output, int channels, int height, int width, int map_height,
                          int map_width, int occlusion_height, int occlusion_width, int half_pixel,
                          int align_corners, int dtype, int layout, CUstream_st* stream) {
    const bool half = dtype == SONOMIME_FLOAT16, eight = layout == SONOMIME_HWC8;
    if (!all_given(feature, deformation, occlusion, output) ||
        (!half && dtype != SONOMIME_FLOAT32) || (!eight && layout != SONOMIME_LINEAR) ||
        (eight && (!half || !aligned(feature, 16) || !aligned(output, 16))) ||
        channels < 1 || channels > INT_MAX - kEightGroup || !sides_fit(height, width) ||
        !fits((channels + kEightGroup - 1) / kEightGroup * kEightGroup, height, width) ||
        !fits(2, map_height, map_width) || !fits(occlusion_height, occlusion_width))
        return kInvalidValue;
    const WarpSizes sizes = {channels,        height,          width,
                             map_height,      map_width,       occlusion_height,
                             occlusion_width, as_flag(half_pixel), as_flag(align_corners)};
    const auto make = eight  ? warp_occlude<Half, true>
                      : half ? warp_occlude<Half, false>
                             : warp_occlude<float, false>;
    return make(sizes, feature, deformation, occlusion, output, stream);
}

int sonomime_sparse_motion(const float* source_small, const float* source_value,
                           const float* source_jacobian, const float* driving_value,
                           const float* driving_jacobian, float* output, int channels, int height,
                           int width, int keypoints, float variance, int half_pixel,
                           int align_corners, CUstream_st* stream) {
    const int slots = slots_of(keypoints);
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(source_small, source_value, source_jacobian, driving_value, driving_jacobian,
                   output) ||
        channels < 1 || channels == INT_MAX || !fits(slots, channels + 1, height, width) ||
        !sides_fit(height, width) || !std::isfinite(variance) || !(variance > 0.0f))
        return kInvalidValue;
    const MotionSizes sizes = {channels, height,   width, slots,
                               variance, as_flag(half_pixel), as_flag(align_corners)};
    const dim3 grid(blocks_for(height * width, kThreads), static_cast<unsigned>(slots));
    return launch(sparse_motion_kernel, grid, dim3(kThreads), stream, sizes, source_small, points,
                  output);
}

int sonomime_compose_motion(const float* mask_logits, const float* source_value,
                            const float* source_jacobian, const float* driving_value,
                            const float* driving_jacobian, float* output, int height, int width,
                            int keypoints, int half_pixel, CUstream_st* stream) {
    const int slots = slots_of(keypoints);
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(mask_logits, source_value, source_jacobian, driving_value, driving_jacobian,
                   output) ||
        !fits(slots, height, width) || !aligned(output, 8))
        return kInvalidValue;
    const MotionSizes sizes = {0, height, width, slots, 0.0f, as_flag(half_pixel), 0.0f};
    const auto kernel = slots <= 16   ? compose_motion_kernel<16>
                        : slots <= 32 ? compose_motion_kernel<32>
                                      : compose_motion_kernel<0>;
    return launch(kernel, dim3(blocks_for(height * width, kFewThreads)), dim3(kFewThreads), stream,
                  sizes, mask_logits, points, reinterpret_cast<float2*>(output));
}

int sonomime_compose_frame(const float* deformation, const float* stiff, const float* gain,
                           const float* offset, const float* gate, const float* low,
                           const unsigned char* picture, float* base, unsigned char* frame,
                           int channels, int map_height, int map_width, int gain_channels,
                           int offset_channels, int gate_channels, int size, int box_x, int box_y,
                           int box_width, int box_height, int height, int width, int above,
                           int left, int picture_height, int picture_width, CUstream_st* stream) {
    for (const int count : {gain_channels, offset_channels, gate_channels})
        if (count != 1 && count != channels) return kInvalidValue;
    // The box lies in the square, and the frame in the enlarged picture.
    if (!all_given(deformation, stiff, gain, offset, gate, low, base, picture, frame) ||
        (channels != 1 && channels != 3) || !fits(3, map_height, map_width) ||
        !fits(kFiner * kFiner * channels, size / 2, size / 2) || !fits(channels, height, width) ||
        !fits(channels, picture_height, picture_width) ||
        !sides_fit(picture_height, picture_width) || !within(box_x, box_width, size, 1) ||
        !within(box_y, box_height, size, 1) || !within(left, width, picture_width, kFiner) ||
        !within(above, height, picture_height, kFiner))
        return kInvalidValue;
    const FrameSizes sizes = {channels,        map_height,    map_width,  gain_channels,
                              offset_channels, gate_channels, size,       box_x,
                              box_y,           box_width,     box_height, height,
                              width,           above,         left,       picture_height,
                              picture_width};
    const FrameLayers layers = {deformation, stiff, gain, offset, gate};
    const dim3 few(blocks_for((size / 2) * (size / 2), kFewThreads));
    const int status =
        launch(base_kernel, few, dim3(kFewThreads), stream, sizes, layers, low, base);
    if (status != 0) return status;
    return launch(frame_kernel, dim3(blocks_for(height * width, kThreads)), dim3(kThreads), stream,
                  sizes, layers, picture, static_cast<const float*>(base), frame);
}
