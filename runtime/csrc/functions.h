// The C functions of sonomime_kernels.h: they check their arguments, then compute. The file that
// includes this says how: in loops (host.cpp) or by launches (launch.cu).
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>

#include "compose_frame.h"
#include "compose_motion.h"
#include "sonomime_kernels.h"
#include "sparse_motion.h"
#include "warp_occlude.h"

namespace sonomime {

template <class Value, bool kEight>
static int warp_occlude(const WarpSizes& sizes, const void* feature, const float* deformation,
                        const float* occlusion, void* output, CUstream_st* stream);
static int sparse_motion(const SparseSizes& sizes, const float* source_small,
                         const Keypoints& keypoints, float* output, CUstream_st* stream);
static int compose_motion(const ComposeSizes& sizes, const float* logits, const Keypoints& keypoints,
                          float* output, CUstream_st* stream);
static int compose_frame(const FrameSizes& sizes, const FrameLayers& layers, const float* low,
                         const std::uint8_t* picture, float* base, std::uint8_t* frame,
                         CUstream_st* stream);

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int kMostSlots = 1024;  // the motions of all slots have to fit into shared memory
// Offsets are ints, and the last block of a grid reaches beyond the end.
constexpr int kMostElements = INT_MAX - 1024;
// A float32 coordinate beyond 2^24 skips pixels, and might reach outside.
constexpr int kLongestSide = 1 << 24;

template <class... Pointers>
inline bool all_given(const Pointers*... pointers) {
    return (... && (pointers != nullptr));
}

// Counts of 1 or more, with no more elements than can be indexed.
template <class... Counts>
inline bool fits(Counts... counts) {
    std::int64_t product = 1;
    for (const std::int64_t count : {static_cast<std::int64_t>(counts)...}) {
        if (count < 1 || count > kMostElements / product) return false;
        product *= count;
    }
    return true;
}

inline bool sides_fit(int height, int width) {
    return height <= kLongestSide && width <= kLongestSide;
}

inline bool aligned(const void* pointer, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

inline bool sound(const WarpSizes& sizes) {
    if (sizes.channels < 1 || sizes.channels > INT_MAX - kEightGroup) return false;
    const int stored = (sizes.channels + kEightGroup - 1) / kEightGroup * kEightGroup;
    return sides_fit(sizes.height, sizes.width) && fits(stored, sizes.height, sizes.width) &&
           fits(2, sizes.map_height, sizes.map_width) &&
           fits(sizes.occlusion_height, sizes.occlusion_width);
}

inline bool sound(const SparseSizes& sizes) {
    return sizes.slots >= 2 && sizes.slots <= kMostSlots && sizes.channels >= 1 &&
           sizes.channels < INT_MAX && sides_fit(sizes.height, sizes.width) &&
           std::isfinite(sizes.variance) && sizes.variance > 0.0f &&
           fits(sizes.slots, sizes.channels + 1, sizes.height, sizes.width);
}

inline bool sound(const ComposeSizes& sizes) {
    return sizes.slots >= 2 && sizes.slots <= kMostSlots &&
           fits(sizes.slots, sizes.height, sizes.width);
}

inline bool sound(const FrameSizes& sizes) {
    if (sizes.channels != 1 && sizes.channels != 3) return false;
    for (const int channels : {sizes.gain_channels, sizes.offset_channels, sizes.gate_channels})
        if (channels != 1 && channels != sizes.channels) return false;
    // A box lies in the square, and the frame in the enlarged picture.
    const auto within = [](int start, int length, int end, int times) {
        return start >= 0 && length >= 1 &&
               times * (static_cast<std::int64_t>(start) + length) <= end;
    };
    return fits(3, sizes.map_height, sizes.map_width) &&
           fits(kFiner * kFiner * sizes.channels, sizes.size / 2, sizes.size / 2) &&
           fits(sizes.channels, sizes.height, sizes.width) &&
           fits(sizes.channels, sizes.picture_height, sizes.picture_width) &&
           sides_fit(sizes.picture_height, sizes.picture_width) &&
           within(sizes.box_x, sizes.box_width, sizes.size, 1) &&
           within(sizes.box_y, sizes.box_height, sizes.size, 1) &&
           within(sizes.left, sizes.width, sizes.picture_width, kFiner) &&
           within(sizes.above, sizes.height, sizes.picture_height, kFiner);
}

inline float as_flag(int half_pixel) { return half_pixel != 0 ? 1.0f : 0.0f; }

// The slots of that many keypoints; 0, which is refused, for a count that makes no sense.
inline int slots_of(int keypoints) { return keypoints > 0 && keypoints < kMostSlots ? keypoints + 1 : 0; }

}  // namespace sonomime

int sonomime_warp_occlude(const void* feature, const float* deformation, const float* occlusion,
                          void* output, int channels, int height, int width, int map_height,
                          int map_width, int occlusion_height, int occlusion_width, int half_pixel,
                          int dtype, int layout, CUstream_st* stream) {
    using namespace sonomime;
    const WarpSizes sizes = {channels,         height,          width,
                             map_height,       map_width,       occlusion_height,
                             occlusion_width,  as_flag(half_pixel)};
    if (!all_given(feature, deformation, occlusion, output) || !sound(sizes)) return kInvalidValue;
    const bool half = dtype == SONOMIME_FLOAT16, eight = layout == SONOMIME_HWC8;
    if (!half && dtype != SONOMIME_FLOAT32) return kInvalidValue;
    if (!eight && layout != SONOMIME_LINEAR) return kInvalidValue;
    if (eight && (!half || !aligned(feature, 16) || !aligned(output, 16))) return kInvalidValue;
    const auto make = eight  ? warp_occlude<Half, true>
                      : half ? warp_occlude<Half, false>
                             : warp_occlude<float, false>;
    return make(sizes, feature, deformation, occlusion, output, stream);
}

int sonomime_sparse_motion(const float* source_small, const float* source_value,
                           const float* source_jacobian, const float* driving_value,
                           const float* driving_jacobian, float* output, int channels, int height,
                           int width, int keypoints, float variance, int half_pixel,
                           CUstream_st* stream) {
    using namespace sonomime;
    const SparseSizes sizes = {channels, height, width, slots_of(keypoints), variance,
                               as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(source_small, source_value, source_jacobian, driving_value, driving_jacobian,
                   output) ||
        !sound(sizes))
        return kInvalidValue;
    return sparse_motion(sizes, source_small, points, output, stream);
}

int sonomime_compose_motion(const float* mask_logits, const float* source_value,
                            const float* source_jacobian, const float* driving_value,
                            const float* driving_jacobian, float* output, int height, int width,
                            int keypoints, int half_pixel, CUstream_st* stream) {
    using namespace sonomime;
    const ComposeSizes sizes = {height, width, slots_of(keypoints), as_flag(half_pixel)};
    const Keypoints points = {source_value, source_jacobian, driving_value, driving_jacobian};
    if (!all_given(mask_logits, source_value, source_jacobian, driving_value, driving_jacobian,
                   output) ||
        !sound(sizes) || !aligned(output, 8))
        return kInvalidValue;
    return compose_motion(sizes, mask_logits, points, output, stream);
}

int sonomime_compose_frame(const float* deformation, const float* stiff, const float* gain,
                           const float* offset, const float* gate, const float* low,
                           const unsigned char* picture, float* base, unsigned char* frame,
                           int channels, int map_height, int map_width, int gain_channels,
                           int offset_channels, int gate_channels, int size, int box_x, int box_y,
                           int box_width, int box_height, int height, int width, int above,
                           int left, int picture_height, int picture_width, CUstream_st* stream) {
    using namespace sonomime;
    const FrameSizes sizes = {channels,        map_height,    map_width, gain_channels,
                              offset_channels, gate_channels, size,      box_x,
                              box_y,           box_width,     box_height, height,
                              width,           above,         left,      picture_height,
                              picture_width};
    const FrameLayers layers = {deformation, stiff, gain, offset, gate};
    if (!all_given(deformation, stiff, gain, offset, gate, low, base, picture, frame) ||
        !sound(sizes))
        return kInvalidValue;
    return compose_frame(sizes, layers, low, picture, base, frame, stream);
}
