// What both libraries refuse.
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

constexpr int kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int kMostSlots = 1024;  // the motions of all slots have to fit into shared memory
// Offsets are ints, and the last block of a grid reaches beyond what there is.
constexpr int kMostElements = INT_MAX - 1024;
// Where a pixel reads is a float32, which beyond 2^24 skips pixels, and might reach outside.
constexpr int kLongestSide = 1 << 24;

template <class... Pointers>
inline bool all_given(const Pointers*... pointers) {
    return (... && (pointers != nullptr));
}

// Counts of 1 or more, with no more elements than can be indexed.
template <class... Counts>
inline bool fits(Counts... counts) {
    std::int64_t product = 1;
    bool sound = true;
    for (const std::int64_t count : {static_cast<std::int64_t>(counts)...}) {
        sound = sound && count >= 1;
        if (sound) product *= count;
        sound = sound && product <= kMostElements;
    }
    return sound;
}

inline bool sides_fit(int height, int width) {
    return height <= kLongestSide && width <= kLongestSide;
}

inline bool known_dtype(int dtype) {
    return dtype == SONOMIME_FLOAT32 || dtype == SONOMIME_FLOAT16;
}

inline bool aligned(const void* pointer, std::uintptr_t bytes) {
    return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

inline bool sound(const WarpSizes& sizes, const void* feature, const void* output, int dtype,
                  int layout) {
    const bool eight = layout == SONOMIME_HWC8;
    if (eight && (dtype != SONOMIME_FLOAT16 || !aligned(feature, 16) || !aligned(output, 16)))
        return false;
    if (!eight && layout != SONOMIME_LINEAR) return false;
    if (sizes.channels > INT_MAX - kEightGroup) return false;
    const int stored = eight ? (sizes.channels + 7) / 8 * 8 : sizes.channels;
    return known_dtype(dtype) && sizes.channels >= 1 && sides_fit(sizes.height, sizes.width) &&
           fits(stored, sizes.height, sizes.width) &&
           fits(2, sizes.map_height, sizes.map_width) &&
           fits(sizes.occlusion_height, sizes.occlusion_width);
}

inline bool sound(const SparseSizes& sizes, int keypoints, int dtype) {
    return known_dtype(dtype) && keypoints >= 1 && keypoints < kMostSlots &&
           sizes.channels >= 1 && sizes.channels < INT_MAX && sides_fit(sizes.height, sizes.width) &&
           std::isfinite(sizes.variance) && sizes.variance > 0.0f &&
           fits(keypoints + 1, sizes.channels + 1, sizes.height, sizes.width);
}

inline bool sound(const ComposeSizes& sizes, const void* output, int dtype) {
    return known_dtype(dtype) && aligned(output, 8) && sizes.slots >= 2 && sizes.slots <= kMostSlots &&
           fits(sizes.slots, sizes.height, sizes.width);
}

inline bool sound(const FrameSizes& sizes) {
    if (sizes.channels != 1 && sizes.channels != 3) return false;
    for (const int channels : {sizes.gain_channels, sizes.offset_channels, sizes.gate_channels})
        if (channels != 1 && channels != sizes.channels) return false;
    const int least = sizes.channels > 2 ? sizes.channels : 2;
    if (!fits(least, sizes.map_height, sizes.map_width)) return false;
    if (!fits(kFiner * kFiner * sizes.channels, sizes.size / 2, sizes.size / 2)) return false;
    if (!fits(sizes.channels, sizes.height, sizes.width)) return false;
    if (!fits(sizes.channels, sizes.picture_height, sizes.picture_width)) return false;
    if (!sides_fit(sizes.picture_height, sizes.picture_width)) return false;
    // The box lies in the square, the frame in the enlarged picture.
    const auto within = [](int start, int length, int end, int times) {
        return start >= 0 && length >= 1 &&
               times * (static_cast<std::int64_t>(start) + length) <= end;
    };
    return within(sizes.box_x, sizes.box_width, sizes.size, 1) &&
           within(sizes.box_y, sizes.box_height, sizes.size, 1) &&
           within(sizes.left, sizes.width, sizes.picture_width, kFiner) &&
           within(sizes.above, sizes.height, sizes.picture_height, kFiner);
}

}  // namespace sonomime
