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

// (feature, deformation, occlusion) -> occluded
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
    const char* complaint(const InputDims& dims) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t count,
                            nvinfer1::DimsExprs const* shapes, int32_t shape_count,
                            nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    int32_t launch(const InputDims& dims, int dtype, int layout, const void* const* inputs,
                   void* output, cudaStream_t stream) const noexcept override;
};

// (source_small, source_value, source_jacobian, driving_value, driving_jacobian) -> sparse
class SparseMotion final : public Named<SparseMotion> {
public:
    static constexpr char kName[] = "SparseMotion";

    int32_t inputs() const noexcept override { return 5; }
    bool has_variance() const noexcept override { return true; }
    nvinfer1::DataType output_type(nvinfer1::DataType first) const noexcept override {
        return first;
    }
    const char* complaint(const InputDims& dims) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t count,
                            nvinfer1::DimsExprs const* shapes, int32_t shape_count,
                            nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    int32_t launch(const InputDims& dims, int dtype, int layout, const void* const* inputs,
                   void* output, cudaStream_t stream) const noexcept override;
};

// (mask_logits, source_value, source_jacobian, driving_value, driving_jacobian) -> deformation
class ComposeMotion final : public Named<ComposeMotion> {
public:
    static constexpr char kName[] = "ComposeMotion";

    int32_t inputs() const noexcept override { return 5; }
    nvinfer1::DataType output_type(nvinfer1::DataType) const noexcept override {
        return nvinfer1::DataType::kFLOAT;
    }
    const char* complaint(const InputDims& dims) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t count,
                            nvinfer1::DimsExprs const* shapes, int32_t shape_count,
                            nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    int32_t launch(const InputDims& dims, int dtype, int layout, const void* const* inputs,
                   void* output, cudaStream_t stream) const noexcept override;
};

}  // namespace sonomime::plugin
