// ComposeMotion: the motions of all slots, weighted by the softmax of their logits.
#pragma once

#include "keypoint_motion.h"

namespace sonomime {

struct ComposeSizes {
    int height, width, slots;
    float half_pixel;
};

// One pixel. At most `kMost` logits are held, in registers; 0: any number of them, read twice.
template <int kMost>
SONOMIME_HD Point composed(const ComposeSizes& sizes, const float* logits,
                           const SlotMotion* motions, int pixel) {
    const int plane = sizes.height * sizes.width;
    const float* column = logits + pixel;
    float held[kMost > 0 ? kMost : 1];
    float highest = -INFINITY;
    const int most = kMost > 0 ? kMost : sizes.slots;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int slot = 0; slot < most; ++slot) {
        // A condition, not a break: the loads need not wait for each other.
        if (slot < sizes.slots) {
            const float logit = column[slot * plane];
            if (kMost > 0) held[slot] = logit;
            highest = logit > highest ? logit : highest;
        }
    }
    const Point at = {centre(pixel % sizes.width, sizes.width, sizes.half_pixel),
                      centre(pixel / sizes.width, sizes.height, sizes.half_pixel)};
    float total = 0.0f;
    Point sum = {0.0f, 0.0f};
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int slot = 0; slot < most; ++slot) {
        if (slot < sizes.slots) {
            const float logit = kMost > 0 ? held[slot] : column[slot * plane];
            const float weight = expf(logit - highest);  // a logit that is NaN makes all NaN
            const Point there = moved(motions[slot], at);
            total += weight;
            sum.x += weight * there.x;
            sum.y += weight * there.y;
        }
    }
    return {sum.x / total, sum.y / total};
}

}  // namespace sonomime
