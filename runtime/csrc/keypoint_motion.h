// The affine motion of a keypoint: T_k(z) = p_k^S + J_k^S (J_k^D)^-1 (z - p_k^D), FOMM Eq. 4.
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

// Slot 0 is the identity, slot k the motion of keypoint k - 1.
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
    return {(s[0] * d[3] - s[1] * d[2]) / safe,
            (s[1] * d[0] - s[0] * d[1]) / safe,
            (s[2] * d[3] - s[3] * d[2]) / safe,
            (s[3] * d[0] - s[2] * d[1]) / safe,
            {source[0], source[1]},
            {driving[0], driving[1]}};
}

SONOMIME_HD Point moved(const SlotMotion& motion, Point at) {
    const float x = at.x - motion.driving.x, y = at.y - motion.driving.y;
    return {motion.xx * x + motion.source.x + motion.xy * y,
            motion.yx * x + motion.source.y + motion.yy * y};
}

}  // namespace sonomime
