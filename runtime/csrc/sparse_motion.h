// SparseMotion: the dense motion network's input, slot by slot; no grid is ever stored.
#pragma once

#include "keypoint_motion.h"

namespace sonomime {

struct SparseSizes {
    int channels, height, width, slots;
    float variance, half_pixel;
};

SONOMIME_HD float heat(Point at, Point keypoint, float variance) {
    const float x = at.x - keypoint.x, y = at.y - keypoint.y;
    return expf(-(x * x + y * y) / (2.0f * variance));
}

// One slot at one pixel: the heatmap of driving minus source, then every channel, warped.
SONOMIME_HD void sparse_slot(const SparseSizes& sizes, const float* source_small,
                             const SlotMotion& motion, float* output, int pixel, int slot) {
    const int plane = sizes.height * sizes.width;
    float* result = output + slot * (sizes.channels + 1) * plane + pixel;
    result[0] = 0.0f;
    if (slot == 0 && sizes.half_pixel != 0.0f) {  // pixel centres read at pixel centres
        for (int channel = 0; channel < sizes.channels; ++channel)
            result[(channel + 1) * plane] = source_small[channel * plane + pixel];
        return;
    }
    const Point at = {centre(pixel % sizes.width, sizes.width, sizes.half_pixel),
                      centre(pixel / sizes.width, sizes.height, sizes.half_pixel)};
    if (slot != 0)
        result[0] = heat(at, motion.driving, sizes.variance) -
                    heat(at, motion.source, sizes.variance);
    const Point from = moved(motion, at);
    const Taps taps = taps_at(from.x, from.y, sizes.height, sizes.width);
    for (int channel = 0; channel < sizes.channels; ++channel)
        result[(channel + 1) * plane] = read(source_small + channel * plane, taps);
}

}  // namespace sonomime
