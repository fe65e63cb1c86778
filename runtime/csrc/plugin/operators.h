// The three operators. Shapes and meaning: export/bodies.py.
#pragma once

#include <initializer_list>

#include "operator.h"

namespace sonomime::plugin {

inline int size_of(const nvinfer1::Dims& dims, int axis) noexcept {
    return static_cast<int>(dims.d[axis]);
}

inline const float* floats(const void* pointer) noexcept {
    return static_cast<const float*>(pointer);
}

// Whether a tensor has this shape; 0 is any number.
inline bool shaped(const nvinfer1::Dims& dims, std::initializer_list<int64_t> shape) noexcept {
    if (dims.nbDims != static_cast<int32_t>(shape.size())) return false;
    int axis = 0;
    for (const int64_t size : shape)
        if (const int64_t found = dims.d[axis++]; size != 0 && found != size) return false;
    return true;
}

// (feature, deformation, occlusion) -> occluded
class WarpOcclude final : public Named<WarpOcclude> {
public:
    static constexpr char kName[] = "WarpOcclude";

    int32_t inputs() const noexcept override { return 3; }
    bool takes(nvinfer1::DataType type, nvinfer1::TensorFormat format) const noexcept override {
        using nvinfer1::TensorFormat;
        return Operator::takes(type, format) ||
               (type == nvinfer1::DataType::kHALF &&
                (format == TensorFormat::kLINEAR || format == TensorFormat::kHWC8));
    }
    const char* complaint(const InputDims& dims) const noexcept override {
        if (!shaped(dims[0], {1, 0, 0, 0})) return "the feature is not (1, C, H, W)";
        if (!shaped(dims[1], {1, 0, 0, 2})) return "the deformation is not (1, h, w, 2)";
        if (!shaped(dims[2], {1, 1, 0, 0})) return "the occlusion is not (1, 1, h, w)";
        return nullptr;
    }
    bool make_shape(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs& out,
                    nvinfer1::IExprBuilder&) const noexcept override {
        out = in[0];
        return true;
    }
    int32_t launch(const InputDims& dims, const nvinfer1::PluginTensorDesc& first,
                   const void* const* inputs, void* output,
                   cudaStream_t stream) const noexcept override {
        const bool half = first.type == nvinfer1::DataType::kHALF;
        const bool eight = first.format == nvinfer1::TensorFormat::kHWC8;
        return sonomime_warp_occlude(
            inputs[0], floats(inputs[1]), floats(inputs[2]), output, size_of(dims[0], 1),
            size_of(dims[0], 2), size_of(dims[0], 3), size_of(dims[1], 1), size_of(dims[1], 2),
            size_of(dims[2], 2), size_of(dims[2], 3), half_pixel(),
            half ? SONOMIME_FLOAT16 : SONOMIME_FLOAT32, eight ? SONOMIME_HWC8 : SONOMIME_LINEAR,
            stream);
    }
};

// An operator on a map and the keypoints and jacobians of source and driving.
template <class Self>
class OnKeypoints : public Named<Self> {
public:
    int32_t inputs() const noexcept override { return 5; }
    const char* complaint(const InputDims& dims) const noexcept override {
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
};

// (source_small, source_value, source_jacobian, driving_value, driving_jacobian) -> sparse
class SparseMotion final : public OnKeypoints<SparseMotion> {
public:
    static constexpr char kName[] = "SparseMotion";

    bool has_variance() const noexcept override { return true; }
    bool make_shape(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs& out,
                    nvinfer1::IExprBuilder& builder) const noexcept override {
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
    int32_t launch(const InputDims& dims, const nvinfer1::PluginTensorDesc&,
                   const void* const* in, void* output,
                   cudaStream_t stream) const noexcept override {
        return sonomime_sparse_motion(
            floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
            static_cast<float*>(output), size_of(dims[0], 1), size_of(dims[0], 2),
            size_of(dims[0], 3), size_of(dims[1], 1), attributes.variance, half_pixel(), stream);
    }
};

// (mask_logits, source_value, source_jacobian, driving_value, driving_jacobian) -> deformation
class ComposeMotion final : public OnKeypoints<ComposeMotion> {
public:
    static constexpr char kName[] = "ComposeMotion";

    const char* complaint(const InputDims& dims) const noexcept override {
        const char* wrong = OnKeypoints::complaint(dims);
        if (wrong == nullptr && dims[0].d[1] != dims[1].d[1] + 1)
            return "there is not one mask per keypoint and one more";
        return wrong;
    }
    bool make_shape(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs& out,
                    nvinfer1::IExprBuilder& builder) const noexcept override {
        out.nbDims = 4;
        out.d[0] = in[0].d[0];
        out.d[1] = in[0].d[2];
        out.d[2] = in[0].d[3];
        out.d[3] = builder.constant(2);
        return out.d[3] != nullptr;
    }
    int32_t launch(const InputDims& dims, const nvinfer1::PluginTensorDesc&,
                   const void* const* in, void* output,
                   cudaStream_t stream) const noexcept override {
        return sonomime_compose_motion(
            floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
            static_cast<float*>(output), size_of(dims[0], 2), size_of(dims[0], 3),
            size_of(dims[1], 1), half_pixel(), stream);
    }
};

}  // namespace sonomime::plugin
