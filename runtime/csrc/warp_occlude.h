// WarpOcclude: a feature read where the deformation says, times the occlusion map.
#pragma once

#include "geometry.h"

namespace sonomime {

struct WarpSizes {
    int channels, height, width;
    int map_height, map_width, occlusion_height, occlusion_width;
    float half_pixel, align_corners;
};

// What all channels of an output pixel share.
struct Place {
    Taps taps;
    float seen;
};

// Channels that one thread makes: in the linear layout, and in the one of eight side by side.
constexpr int kLinearGroup = 4;
constexpr int kEightGroup = 8;

SONOMIME_HD float seen_at(const WarpSizes& sizes, const float* occlusion, int x, int y) {
    const int width = sizes.occlusion_width;
    if (sizes.height == sizes.occlusion_height && sizes.width == width)
        return occlusion[y * width + x];
    return mixed_at(occlusion, width, 1, resized(y, sizes.occlusion_height, sizes.height),
                    resized(x, width, sizes.width));
}

// Half-pixel geometry resizes displacements, so that translations stay exact up to the border;
// FOMM's resizes the coordinates themselves.
SONOMIME_HD void point_at(const WarpSizes& sizes, const float* deformation, int x, int y,
                          float point[2]) {
    const int width = sizes.map_width, height = sizes.map_height;
    if (sizes.height == height && sizes.width == width) {
        point[0] = deformation[2 * (y * width + x)];
        point[1] = deformation[2 * (y * width + x) + 1];
        return;
    }
    const Line<2> row = resized(y, height, sizes.height), column = resized(x, width, sizes.width);
    const bool displaces = sizes.half_pixel != 0.0f;
    for (int axis = 0; axis < 2; ++axis) {
        float sum = 0.0f;
        for (int i = 0; i < 2; ++i) {
            float across = 0.0f;
            for (int j = 0; j < 2; ++j) {
                const float own = axis == 0 ? centre(column.index[j], width, 1.0f)
                                            : centre(row.index[i], height, 1.0f);
                const float read = deformation[2 * (row.index[i] * width + column.index[j]) + axis];
                across += column.share[j] * (displaces ? read - own : read);
            }
            sum += row.share[i] * across;
        }
        const float to = axis == 0 ? centre(x, sizes.width, 1.0f) : centre(y, sizes.height, 1.0f);
        point[axis] = displaces ? to + sum : sum;
    }
}

SONOMIME_HD Place place_of(const WarpSizes& sizes, const float* deformation, const float* occlusion,
                           int pixel) {
    const int x = pixel % sizes.width, y = pixel / sizes.width;
    float point[2];
    point_at(sizes, deformation, x, y, point);
    return {taps_at(point[0], point[1], sizes.height, sizes.width, sizes.align_corners),
            seen_at(sizes, occlusion, x, y)};
}

// One group of channels of one pixel, layout (C, H, W).
template <class Value>
SONOMIME_HD void warp_linear(const WarpSizes& sizes, const Value* feature, Value* output,
                             const Place& place, int pixel, int group) {
    const int plane = sizes.height * sizes.width, first = group * kLinearGroup;
    const int last = sizes.channels - 1;
    float value[kLinearGroup];
    // All reads before the first write, and without a condition (beyond the last channel that one is
    // read again), so that a GPU makes all of them at once.
    for (int i = 0; i < kLinearGroup; ++i) {
        const int channel = first + i < last ? first + i : last;
        value[i] = read(feature + channel * plane, place.taps);
    }
    for (int i = 0; i < kLinearGroup && first + i <= last; ++i)
        output[(first + i) * plane + pixel] = from_float<Value>(value[i] * place.seen);
}

// The same, layout (H, W, groups of eight); padding channels of the output become zeros.
SONOMIME_HD void warp_eight(const WarpSizes& sizes, const Eight* feature, Eight* output,
                            const Place& place, int pixel, int group) {
    const int groups = (sizes.channels + kEightGroup - 1) / kEightGroup;
    float sum[kEightGroup] = {};
    for (int i = 0; i < 4; ++i) {
        const int offset = place.taps.offset[i];
        const float weight = place.taps.weight[i];
        Eight tap = {};
        if (offset >= 0) tap = feature[offset * groups + group];
        for (int lane = 0; lane < kEightGroup; ++lane)
            sum[lane] += weight * to_float(tap.lane[lane]);
    }
    Eight result;
    for (int lane = 0; lane < kEightGroup; ++lane) {
        const bool real = group * kEightGroup + lane < sizes.channels;
        result.lane[lane] = from_float<Half>(real ? sum[lane] * place.seen : 0.0f);
    }
    output[pixel * groups + group] = result;
}

}  // namespace sonomime
