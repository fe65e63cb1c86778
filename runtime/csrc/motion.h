// The affine motion of a keypoint, T_k(z) = p_k^S + J_k^S (J_k^D)^-1 (z - p_k^D) (FOMM Eq. 4), and the
// two operators made of it. Slot 0 is the identity, slot k the motion of keypoint k - 1; no grid is
// ever stored.
#pragma once

#include "geometry.h"

namespace sonomime {

struct Keypoints {
    const float *source_value, *source_jacobian, *driving_value, *driving_jacobian;
};

struct Point {
    float x, y;
};

// Aligned so that shared memory gives four numbers at a time.
struct alignas(16) SlotMotion {
    float xx, xy, yx, yy;
    Point source, driving;
};

// Of either operator; ComposeMotion has no channels and no variance, and samples nothing.
struct MotionSizes {
    int channels, height, width, slots;
    float variance, half_pixel, align_corners;
};

// a d - b c, every product rounded. A fused multiply-add would keep what the other product lost: a
// singular matrix would get a determinant beside zero, of either sign.
SONOMIME_HD float determinant_of(const float* matrix) {
#ifdef __CUDA_ARCH__
    return __fsub_rn(__fmul_rn(matrix[0], matrix[3]), __fmul_rn(matrix[1], matrix[2]));
#else
    const volatile float ad = matrix[0] * matrix[3], bc = matrix[1] * matrix[2];
    return ad - bc;
#endif
}

SONOMIME_HD SlotMotion slot_motion(const Keypoints& keypoints, int slot) {
    if (slot == 0) return {1.0f, 0.0f, 0.0f, 1.0f, {0.0f, 0.0f}, {0.0f, 0.0f}};
    const float* s = keypoints.source_jacobian + 4 * (slot - 1);
    const float* d = keypoints.driving_jacobian + 4 * (slot - 1);
    const float* source = keypoints.source_value + 2 * (slot - 1);
    const float* driving = keypoints.driving_value + 2 * (slot - 1);
    const float determinant = determinant_of(d);
    // Held at .001 or more, the sign kept; written so that NaN stays NaN.
    const float size = fabsf(determinant);
    const float held = size < 0.001f ? 0.001f : size;
    const float safe = determinant < 0.0f ? -held : held;
    return {(s[0] * d[3] - s[1] * d[2]) / safe, (s[1] * d[0] - s[0] * d[1]) / safe,
            (s[2] * d[3] - s[3] * d[2]) / safe, (s[3] * d[0] - s[2] * d[1]) / safe,
            {source[0], source[1]}, {driving[0], driving[1]}};
}

SONOMIME_HD Point moved(const SlotMotion& motion, Point at) {
    const float x = at.x - motion.driving.x, y = at.y - motion.driving.y;
    return {motion.xx * x + motion.source.x + motion.xy * y,
            motion.yx * x + motion.source.y + motion.yy * y};
}

SONOMIME_HD Point place_of_pixel(const MotionSizes& sizes, int pixel) {
    return {centre(pixel % sizes.width, sizes.width, sizes.half_pixel),
            centre(pixel / sizes.width, sizes.height, sizes.half_pixel)};
}

SONOMIME_HD float heat(Point at, Point keypoint, float variance) {
    const float x = at.x - keypoint.x, y = at.y - keypoint.y;
    return expf(-(x * x + y * y) / (2.0f * variance));
}

// SparseMotion, one slot at one pixel: the heatmap of driving minus source, then every channel, warped.
SONOMIME_HD void sparse_slot(const MotionSizes& sizes, const float* source_small,
                             const SlotMotion& motion, float* output, int pixel, int slot) {
    const int plane = sizes.height * sizes.width;
    float* result = output + slot * (sizes.channels + 1) * plane + pixel;
    result[0] = 0.0f;
    if (slot == 0 && sizes.half_pixel != sizes.align_corners) {  // centres read at centres
        for (int channel = 0; channel < sizes.channels; ++channel)
            result[(channel + 1) * plane] = source_small[channel * plane + pixel];
        return;
    }
    const Point at = place_of_pixel(sizes, pixel);
    if (slot != 0)
        result[0] = heat(at, motion.driving, sizes.variance) -
                    heat(at, motion.source, sizes.variance);
    const Point from = moved(motion, at);
    const Taps taps = taps_at(from.x, from.y, sizes.height, sizes.width, sizes.align_corners);
    for (int channel = 0; channel < sizes.channels; ++channel)
        result[(channel + 1) * plane] = read(source_small + channel * plane, taps);
}

// ComposeMotion, one pixel: the motions of all slots, weighted by the softmax of their logits. At most
// `kMost` logits are held, in registers; 0: any number of them, read twice.
template <int kMost>
SONOMIME_HD Point composed(const MotionSizes& sizes, const float* logits,
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
    const Point at = place_of_pixel(sizes, pixel);
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
