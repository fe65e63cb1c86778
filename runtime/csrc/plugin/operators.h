// The three operators. Shapes and meaning: export/bodies.py.
#pragma once

#include "operator.h"

namespace sonomime::plugin {

inline int size_of(const nvinfer1::Dims& dims, int axis) noexcept {
    return static_cast<int>(dims.d[axis]);
}

inline const float* floats(const void* pointer) noexcept {
    return static_cast<const float*>(pointer);
}

// (feature, deformation, occlusion) -> occluded, of the feature's type and format
class WarpOcclude final : public Named<WarpOcclude> {
public:
    static constexpr char kName[] = "WarpOcclude";

    int32_t inputs() const noexcept override { return 3; }
    bool takes(nvinfer1::DataType type, nvinfer1::TensorFormat format) const noexcept override {
        return Operator::takes(type, format) || (type == nvinfer1::DataType::kHALF &&
                                                 format == nvinfer1::TensorFormat::kHWC8);
    }
    nvinfer1::DataType output_type(nvinfer1::DataType first) const noexcept override {
        return first;
    }
    nvinfer1::TensorFormat output_format(nvinfer1::TensorFormat first) const noexcept override {
        return first;
    }
    const char* complaint(const InputDims& dims) const noexcept override {
        if (dims[0].nbDims != 4 || dims[0].d[0] != 1) return "the feature is not (1, C, H, W)";
        if (dims[1].nbDims != 4 || dims[1].d[0] != 1 || dims[1].d[3] != 2)
            return "the deformation is not (1, h, w, 2)";
        if (dims[2].nbDims != 4 || dims[2].d[0] != 1 || dims[2].d[1] != 1)
            return "the occlusion is not (1, 1, h, w)";
        return nullptr;
    }
    bool make_shape(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs& out,
                    nvinfer1::IExprBuilder&) const noexcept override {
        out = in[0];
        return true;
    }
    int32_t launch(const InputDims& dims, int dtype, int layout, const void* const* inputs,
                   void* output, cudaStream_t stream) const noexcept override {
        return sonomime_warp_occlude(
            inputs[0], floats(inputs[1]), floats(inputs[2]), output, size_of(dims[0], 1),
            size_of(dims[0], 2), size_of(dims[0], 3), size_of(dims[1], 1), size_of(dims[1], 2),
            size_of(dims[2], 2), size_of(dims[2], 3), half_pixel(), dtype, layout, stream);
    }
};

// An operator on a map and the keypoints and jacobians of source and driving.
template <class Self>
class OnKeypoints : public Named<Self> {
public:
    int32_t inputs() const noexcept override { return 5; }
    nvinfer1::DataType output_type(nvinfer1::DataType) const noexcept override {
        return nvinfer1::DataType::kFLOAT;
    }
    const char* complaint(const InputDims& dims) const noexcept override {
        constexpr int kMostKeypoints = 1023;
        if (dims[0].nbDims != 4 || dims[0].d[0] != 1) return "the first input is not (1, C, H, W)";
        const int64_t count = dims[1].d[1];
        if (dims[1].nbDims != 3 || count > kMostKeypoints)
            return "keypoints are not (1, K < 1024, 2)";
        for (const int value : {1, 3})
            if (dims[value].nbDims != 3 || dims[value].d[0] != 1 || dims[value].d[1] != count ||
                dims[value].d[2] != 2)
                return "keypoints of source and driving are not both (1, K, 2)";
        for (const int jacobian : {2, 4})
            if (dims[jacobian].nbDims != 4 || dims[jacobian].d[0] != 1 ||
                dims[jacobian].d[1] != count || dims[jacobian].d[2] != 2 ||
                dims[jacobian].d[3] != 2)
                return "jacobians of source and driving are not both (1, K, 2, 2)";
        return nullptr;
    }
};

// (source_small, source_value, source_jacobian, driving_value, driving_jacobian) -> sparse
class SparseMotion final : public OnKeypoints<SparseMotion> {
public:
    static constexpr char kName[] = "SparseMotion";

    bool has_variance() const noexcept override { return true; }
    // The body puts the float32 heatmaps and the warped source into one tensor: there is no half.
    bool takes(nvinfer1::DataType type, nvinfer1::TensorFormat format) const noexcept override {
        return Operator::takes(type, format) && type == nvinfer1::DataType::kFLOAT;
    }
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
    int32_t launch(const InputDims& dims, int dtype, int, const void* const* inputs, void* output,
                   cudaStream_t stream) const noexcept override {
        return sonomime_sparse_motion(
            inputs[0], floats(inputs[1]), floats(inputs[2]), floats(inputs[3]), floats(inputs[4]),
            output, size_of(dims[0], 1), size_of(dims[0], 2), size_of(dims[0], 3),
            size_of(dims[1], 1), attributes.variance, half_pixel(), dtype, stream);
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
    int32_t launch(const InputDims& dims, int dtype, int, const void* const* inputs, void* output,
                   cudaStream_t stream) const noexcept override {
        return sonomime_compose_motion(
            inputs[0], floats(inputs[1]), floats(inputs[2]), floats(inputs[3]), floats(inputs[4]),
            static_cast<float*>(output), size_of(dims[0], 2), size_of(dims[0], 3),
            size_of(dims[1], 1), half_pixel(), dtype, stream);
    }
};

}  // namespace sonomime::plugin
