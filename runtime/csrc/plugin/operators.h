// The three operators. Shapes and meaning: export/bodies.py.
#pragma once

#include <initializer_list>

#include "../sonomime_kernels.h"
#include "operator.h"

namespace sonomime::plugin {

using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::IExprBuilder;
using nvinfer1::PluginTensorDesc;

inline int size_of(const Dims& dims, int axis) { return static_cast<int>(dims.d[axis]); }

inline const float* floats(const void* pointer) { return static_cast<const float*>(pointer); }

inline int half_pixel(const Attributes& attributes) { return attributes.half_pixel != 0.0f ? 1 : 0; }

// Whether a tensor has this shape; 0 is any number.
inline bool shaped(const Dims& dims, std::initializer_list<int64_t> shape) {
    if (dims.nbDims != static_cast<int32_t>(shape.size())) return false;
    int axis = 0;
    for (const int64_t size : shape)
        if (const int64_t found = dims.d[axis++]; size != 0 && found != size) return false;
    return true;
}

// (feature, deformation, occlusion) -> occluded
inline const char* warp_occlude_complaint(const InputDims& dims) {
    if (!shaped(dims[0], {1, 0, 0, 0})) return "the feature is not (1, C, H, W)";
    if (!shaped(dims[1], {1, 0, 0, 2})) return "the deformation is not (1, h, w, 2)";
    if (!shaped(dims[2], {1, 1, 0, 0})) return "the occlusion is not (1, 1, h, w)";
    return nullptr;
}

inline bool warp_occlude_shape(const DimsExprs* in, DimsExprs& out, IExprBuilder&) {
    out = in[0];
    return true;
}

inline int32_t warp_occlude_launch(const Attributes& attributes, const InputDims& dims,
                                   const PluginTensorDesc& first, const void* const* in, void* out,
                                   cudaStream_t stream) {
    const bool half = first.type == nvinfer1::DataType::kHALF;
    const bool eight = first.format == nvinfer1::TensorFormat::kHWC8;
    return sonomime_warp_occlude(
        in[0], floats(in[1]), floats(in[2]), out, size_of(dims[0], 1), size_of(dims[0], 2),
        size_of(dims[0], 3), size_of(dims[1], 1), size_of(dims[1], 2), size_of(dims[2], 2),
        size_of(dims[2], 3), half_pixel(attributes), half ? SONOMIME_FLOAT16 : SONOMIME_FLOAT32,
        eight ? SONOMIME_HWC8 : SONOMIME_LINEAR, stream);
}

// What operators on a map and the keypoints and jacobians of source and driving refuse.
inline const char* keypoints_complaint(const InputDims& dims) {
    constexpr int kMostKeypoints = 1023;
    if (!shaped(dims[0], {1, 0, 0, 0})) return "the first input is not (1, C, H, W)";
    if (dims[1].nbDims != 3 || dims[1].d[1] > kMostKeypoints)
        return "keypoints are not (1, K < 1024, 2)";
    const int64_t count = dims[1].d[1];
    for (const int value : {1, 3})
        if (!shaped(dims[value], {1, count, 2}))
            return "keypoints of source and driving are not both (1, K, 2)";
    for (const int jacobian : {2, 4})
        if (!shaped(dims[jacobian], {1, count, 2, 2}))
            return "jacobians of source and driving are not both (1, K, 2, 2)";
    return nullptr;
}

// (source_small, source_value, source_jacobian, driving_value, driving_jacobian) -> sparse
inline bool sparse_motion_shape(const DimsExprs* in, DimsExprs& out, IExprBuilder& builder) {
    using nvinfer1::DimensionOperation;
    if (in[1].nbDims != 3) return false;
    const auto& one = *builder.constant(1);
    const auto* slots = builder.operation(DimensionOperation::kSUM, *in[1].d[1], one);
    const auto* each = builder.operation(DimensionOperation::kSUM, *in[0].d[1], one);
    if (slots == nullptr || each == nullptr) return false;
    out = in[0];
    out.d[1] = builder.operation(DimensionOperation::kPROD, *slots, *each);
    return out.d[1] != nullptr;
}

inline int32_t sparse_motion_launch(const Attributes& attributes, const InputDims& dims,
                                    const PluginTensorDesc&, const void* const* in, void* out,
                                    cudaStream_t stream) {
    return sonomime_sparse_motion(
        floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
        static_cast<float*>(out), size_of(dims[0], 1), size_of(dims[0], 2), size_of(dims[0], 3),
        size_of(dims[1], 1), attributes.variance, half_pixel(attributes), stream);
}

// (mask_logits, source_value, source_jacobian, driving_value, driving_jacobian) -> deformation
inline const char* compose_motion_complaint(const InputDims& dims) {
    const char* wrong = keypoints_complaint(dims);
    if (wrong == nullptr && dims[0].d[1] != dims[1].d[1] + 1)
        return "there is not one mask per keypoint and one more";
    return wrong;
}

inline bool compose_motion_shape(const DimsExprs* in, DimsExprs& out, IExprBuilder& builder) {
    out.nbDims = 4;
    out.d[0] = in[0].d[0];
    out.d[1] = in[0].d[2];
    out.d[2] = in[0].d[3];
    out.d[3] = builder.constant(2);
    return out.d[3] != nullptr;
}

inline int32_t compose_motion_launch(const Attributes& attributes, const InputDims& dims,
                                     const PluginTensorDesc&, const void* const* in, void* out,
                                     cudaStream_t stream) {
    return sonomime_compose_motion(
        floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
        static_cast<float*>(out), size_of(dims[0], 2), size_of(dims[0], 3), size_of(dims[1], 1),
        half_pixel(attributes), stream);
}

constexpr Kind kWarpOcclude = {"WarpOcclude", 3, false, true, warp_occlude_complaint,
                               warp_occlude_shape, warp_occlude_launch};
constexpr Kind kSparseMotion = {"SparseMotion", 5, true, false, keypoints_complaint,
                                sparse_motion_shape, sparse_motion_launch};
constexpr Kind kComposeMotion = {"ComposeMotion", 5, false, false, compose_motion_complaint,
                                 compose_motion_shape, compose_motion_launch};

}  // namespace sonomime::plugin
