// An operator as a TensorRT plugin (IPluginV3).
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>

static_assert(NV_TENSORRT_MAJOR >= 10, "IPluginV3 needs the headers of TensorRT 10 or newer");

namespace sonomime::plugin {

constexpr char kNamespace[] = "sonomime";
constexpr char kVersion[] = "1";

// The attributes of the nodes, by the names in the ONNX files.
struct Attributes {
    float half_pixel = 1.0f;
    float variance = 0.01f;
};

// Dimensions of the inputs, as the operator's signature orders them; each is 1 or more.
using InputDims = std::array<nvinfer1::Dims, 5>;

// In what operators differ. Each has one output, of the first input's type and format; all other
// inputs are float32 and linear.
struct Kind {
    const char* name;
    int32_t inputs;
    bool has_variance;
    bool takes_half;  // as the first input: linear, or eight channels side by side
    // What is wrong with the inputs' shapes, or nullptr.
    const char* (*complaint)(const InputDims& dims);
    // The output's shape, made from those of the inputs; the first has four dimensions.
    bool (*make_shape)(const nvinfer1::DimsExprs* in, nvinfer1::DimsExprs& out,
                       nvinfer1::IExprBuilder& builder);
    int32_t (*launch)(const Attributes& attributes, const InputDims& dims,
                      const nvinfer1::PluginTensorDesc& first, const void* const* in, void* out,
                      cudaStream_t stream);
};

// Errors go to stderr: a plugin that links no TensorRT library has no logger.
class Operator final : public nvinfer1::IPluginV3,
                       public nvinfer1::IPluginV3OneCore,
                       public nvinfer1::IPluginV3OneBuild,
                       public nvinfer1::IPluginV3OneRuntime {
public:
    Operator(const Kind& kind, const Attributes& attributes) noexcept
        : kind_(kind), attributes_(attributes) {}

    nvinfer1::IPluginCapability* getCapabilityInterface(
        nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;
    char const* getPluginName() const noexcept override { return kind_.name; }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }
    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, int32_t count,
                            nvinfer1::DynamicPluginTensorDesc const* out,
                            int32_t outputs) noexcept override;
    int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t outputs,
                               nvinfer1::DataType const* in, int32_t count) const noexcept override;
    int32_t getOutputShapes(nvinfer1::DimsExprs const* in, int32_t count,
                            nvinfer1::DimsExprs const* shapes, int32_t shape_count,
                            nvinfer1::DimsExprs* out, int32_t outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, nvinfer1::DynamicPluginTensorDesc const* tensors,
                                   int32_t count, int32_t outputs) noexcept override;
    int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, int32_t count,
                          nvinfer1::PluginTensorDesc const* out, int32_t outputs) noexcept override;
    int32_t enqueue(nvinfer1::PluginTensorDesc const* in, nvinfer1::PluginTensorDesc const* out,
                    void const* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
        return clone();
    }
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    bool takes(nvinfer1::DataType type, nvinfer1::TensorFormat format) const noexcept;
    bool accepts(const InputDims& dims) const noexcept;

    const Kind& kind_;
    Attributes attributes_;
    std::array<nvinfer1::PluginField, 2> fields_;
    nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace sonomime::plugin
