// The three operators as TensorRT plugins (IPluginV3). What TensorRT finds in the library: getCreators
// and setLoggerFinder. Shapes and meaning of the operators: export/bodies.py.
//
// No REGISTER_TENSORRT_PLUGIN: it would call into a TensorRT library, and so tie the file to one of
// them. TensorRT registers what getCreators returns, in any version since 10. Errors go to stderr: a
// plugin that links no TensorRT library has no logger.
#include <NvInferRuntime.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "sonomime_kernels.h"

static_assert(NV_TENSORRT_MAJOR >= 10, "IPluginV3 needs the headers of TensorRT 10 or newer");

namespace {

using namespace nvinfer1;

// The attributes of the nodes, by the names in the ONNX files.
struct Attributes {
    float half_pixel, align_corners, variance;
};

// Dimensions of the inputs, as the operator's signature orders them.
using InputDims = std::array<Dims, 5>;

// In what operators differ. Each has one output, of the first input's type and format; all other
// inputs are float32 and linear.
struct Kind {
    const char* name;
    int32_t inputs;
    bool samples;  // has align_corners
    bool has_variance;
    bool takes_half;  // as the first input: linear, or eight channels side by side
    // What is wrong with the inputs' shapes, or nullptr; each dimension is 1 or more.
    const char* (*complaint)(const InputDims& dims);
    // The output's shape, made from those of the inputs; the first has four dimensions.
    bool (*make_shape)(const DimsExprs* in, DimsExprs& out, IExprBuilder& builder);
    int32_t (*launch)(const Attributes& attributes, const InputDims& dims,
                      const PluginTensorDesc& first, const void* const* in, void* out,
                      cudaStream_t stream);
};

int size_of(const Dims& dims, int axis) { return static_cast<int>(dims.d[axis]); }

const float* floats(const void* pointer) { return static_cast<const float*>(pointer); }

bool is_flag(float value) { return value == 0.0f || value == 1.0f; }

// Whether a tensor has this shape; 0 is any number.
bool shaped(const Dims& dims, std::initializer_list<int64_t> shape) {
    if (dims.nbDims != static_cast<int32_t>(shape.size())) return false;
    int axis = 0;
    for (const int64_t size : shape)
        if (const int64_t found = dims.d[axis++]; size != 0 && found != size) return false;
    return true;
}

// What operators on a map and the keypoints and jacobians of source and driving refuse.
const char* keypoints_complaint(const InputDims& dims) {
    if (!shaped(dims[0], {1, 0, 0, 0})) return "the first input is not (1, C, H, W)";
    if (dims[1].nbDims != 3 || dims[1].d[1] >= 1024)
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

// (feature, deformation, occlusion) -> occluded
constexpr Kind kWarpOcclude = {
    "WarpOcclude", 3, true, false, true,
    [](const InputDims& dims) -> const char* {
        if (!shaped(dims[0], {1, 0, 0, 0})) return "the feature is not (1, C, H, W)";
        if (!shaped(dims[1], {1, 0, 0, 2})) return "the deformation is not (1, h, w, 2)";
        if (!shaped(dims[2], {1, 1, 0, 0})) return "the occlusion is not (1, 1, h, w)";
        return nullptr;
    },
    [](const DimsExprs* in, DimsExprs& out, IExprBuilder&) {
        out = in[0];
        return true;
    },
    [](const Attributes& attributes, const InputDims& dims, const PluginTensorDesc& first,
       const void* const* in, void* out, cudaStream_t stream) -> int32_t {
        return sonomime_warp_occlude(
            in[0], floats(in[1]), floats(in[2]), out, size_of(dims[0], 1), size_of(dims[0], 2),
            size_of(dims[0], 3), size_of(dims[1], 1), size_of(dims[1], 2), size_of(dims[2], 2),
            size_of(dims[2], 3), attributes.half_pixel != 0.0f, attributes.align_corners != 0.0f,
            first.type == DataType::kHALF ? SONOMIME_FLOAT16 : SONOMIME_FLOAT32,
            first.format == TensorFormat::kHWC8 ? SONOMIME_HWC8 : SONOMIME_LINEAR, stream);
    }};

// (source_small, source_value, source_jacobian, driving_value, driving_jacobian) -> sparse
constexpr Kind kSparseMotion = {
    "SparseMotion", 5, true, true, false, keypoints_complaint,
    [](const DimsExprs* in, DimsExprs& out, IExprBuilder& builder) {
        if (in[1].nbDims != 3) return false;
        const auto& one = *builder.constant(1);
        const auto* slots = builder.operation(DimensionOperation::kSUM, *in[1].d[1], one);
        const auto* each = builder.operation(DimensionOperation::kSUM, *in[0].d[1], one);
        if (slots == nullptr || each == nullptr) return false;
        out = in[0];
        out.d[1] = builder.operation(DimensionOperation::kPROD, *slots, *each);
        return out.d[1] != nullptr;
    },
    [](const Attributes& attributes, const InputDims& dims, const PluginTensorDesc&,
       const void* const* in, void* out, cudaStream_t stream) -> int32_t {
        return sonomime_sparse_motion(
            floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
            static_cast<float*>(out), size_of(dims[0], 1), size_of(dims[0], 2), size_of(dims[0], 3),
            size_of(dims[1], 1), attributes.variance, attributes.half_pixel != 0.0f,
            attributes.align_corners != 0.0f, stream);
    }};

// (mask_logits, source_value, source_jacobian, driving_value, driving_jacobian) -> deformation
constexpr Kind kComposeMotion = {
    "ComposeMotion", 5, false, false, false,
    [](const InputDims& dims) {
        const char* wrong = keypoints_complaint(dims);
        if (wrong == nullptr && dims[0].d[1] != dims[1].d[1] + 1)
            wrong = "there is not one mask per keypoint and one more";
        return wrong;
    },
    [](const DimsExprs* in, DimsExprs& out, IExprBuilder& builder) {
        out.nbDims = 4;
        out.d[0] = in[0].d[0];
        out.d[1] = in[0].d[2];
        out.d[2] = in[0].d[3];
        out.d[3] = builder.constant(2);
        return out.d[3] != nullptr;
    },
    [](const Attributes& attributes, const InputDims& dims, const PluginTensorDesc&,
       const void* const* in, void* out, cudaStream_t stream) -> int32_t {
        return sonomime_compose_motion(
            floats(in[0]), floats(in[1]), floats(in[2]), floats(in[3]), floats(in[4]),
            static_cast<float*>(out), size_of(dims[0], 2), size_of(dims[0], 3), size_of(dims[1], 1),
            attributes.half_pixel != 0.0f, stream);
    }};

// What a plugin and its creator have in common: names, and fields for the attributes.
template <class Interface>
class Named : public Interface {
public:
    explicit Named(const Kind& kind) noexcept : kind_(kind) {}
    char const* getPluginName() const noexcept override { return kind_.name; }
    char const* getPluginVersion() const noexcept override { return "2"; }  // operators.VERSION
    char const* getPluginNamespace() const noexcept override { return "sonomime"; }

protected:
    PluginFieldCollection const* fields_for(const Attributes* attributes) noexcept {
        collection_ = {0, fields_.data()};
        const auto add = [&](const char* name, float Attributes::* value) {
            fields_[collection_.nbFields++] = {name, attributes ? &(attributes->*value) : nullptr,
                                               PluginFieldType::kFLOAT32, 1};
        };
        add("half_pixel", &Attributes::half_pixel);
        if (kind_.samples) add("align_corners", &Attributes::align_corners);
        if (kind_.has_variance) add("variance", &Attributes::variance);
        return &collection_;
    }

    const Kind& kind_;

private:
    std::array<PluginField, 3> fields_;
    PluginFieldCollection collection_{};
};

class Operator final : public IPluginV3,
                       public Named<IPluginV3OneCore>,
                       public IPluginV3OneBuild,
                       public IPluginV3OneRuntime {
public:
    Operator(const Kind& kind, const Attributes& attributes) noexcept
        : Named(kind), attributes_(attributes) {}

    int32_t getNbOutputs() const noexcept override { return 1; }
    IPluginV3* clone() noexcept override { return new (std::nothrow) Operator(kind_, attributes_); }
    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }
    PluginFieldCollection const* getFieldsToSerialize() noexcept override {
        return fields_for(&attributes_);
    }

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
            case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
            case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
            case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t count,
                            DynamicPluginTensorDesc const*, int32_t outputs) noexcept override {
        if (count != kind_.inputs || outputs != 1) return 1;
        InputDims dims{};
        for (int32_t i = 0; i < count; ++i) {
            dims[i] = in[i].desc.dims;
            for (int32_t d = 0; d < dims[i].nbDims; ++d)
                if (dims[i].d[d] < 0) return 0;  // known at run time only: onShapeChange checks it
        }
        return accepts(dims) ? 0 : 1;
    }

    int32_t getOutputDataTypes(DataType* types, int32_t outputs, DataType const* in,
                               int32_t count) const noexcept override {
        if (count != kind_.inputs || outputs != 1) return 1;
        bool known = takes(in[0], TensorFormat::kLINEAR);
        for (int32_t i = 1; i < count; ++i) known = known && in[i] == DataType::kFLOAT;
        if (!known)
            std::fprintf(stderr,
                         "sonomime plugin: %s: the first input has to be float32%s, all others "
                         "float32\n",
                         kind_.name, kind_.takes_half ? " or float16" : "");
        types[0] = in[0];
        return known ? 0 : 1;
    }

    int32_t getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t,
                            DimsExprs* out, int32_t outputs,
                            IExprBuilder& builder) noexcept override {
        if (count != kind_.inputs || outputs != 1 || in[0].nbDims != 4) return 1;
        return kind_.make_shape(in, out[0], builder) ? 0 : 1;
    }

    // The network is strongly typed, so getOutputDataTypes has fixed the types, and TensorRT chooses
    // among formats alone.
    bool supportsFormatCombination(int32_t position, DynamicPluginTensorDesc const* tensors,
                                   int32_t count, int32_t outputs) noexcept override {
        if (count != kind_.inputs || outputs != 1 || position < 0 || position > count) return false;
        const PluginTensorDesc &first = tensors[0].desc, &asked = tensors[position].desc;
        if (position == 0) return takes(asked.type, asked.format);
        if (position == count) return asked.type == first.type && asked.format == first.format;
        return asked.type == DataType::kFLOAT && asked.format == TensorFormat::kLINEAR;
    }

    int32_t onShapeChange(PluginTensorDesc const* in, int32_t count, PluginTensorDesc const*,
                          int32_t outputs) noexcept override {
        return count == kind_.inputs && outputs == 1 && accepts(dims_of(in)) ? 0 : 1;
    }

    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const*, void const* const* inputs,
                    void* const* outputs, void*, cudaStream_t stream) noexcept override {
        const int32_t status =
            kind_.launch(attributes_, dims_of(in), in[0], inputs, outputs[0], stream);
        if (status != 0)
            std::fprintf(stderr,
                         "sonomime plugin: %s: CUDA error %d; unless it is 1, earlier work may be "
                         "the cause\n",
                         kind_.name, static_cast<int>(status));
        return status;
    }

private:
    InputDims dims_of(PluginTensorDesc const* in) const noexcept {
        InputDims dims{};
        for (int32_t i = 0; i < kind_.inputs; ++i) dims[i] = in[i].dims;
        return dims;
    }

    bool takes(DataType type, TensorFormat format) const noexcept {
        if (type == DataType::kFLOAT) return format == TensorFormat::kLINEAR;
        return kind_.takes_half && type == DataType::kHALF &&
               (format == TensorFormat::kLINEAR || format == TensorFormat::kHWC8);
    }

    bool accepts(const InputDims& dims) const noexcept {
        const char* wrong = nullptr;
        for (int32_t i = 0; i < kind_.inputs; ++i)
            for (int32_t d = 0; d < dims[i].nbDims; ++d)
                if (dims[i].d[d] < 1 || dims[i].d[d] > INT32_MAX)
                    wrong = "an input is empty, or longer than 2^31";
        if (wrong == nullptr) wrong = kind_.complaint(dims);
        if (wrong != nullptr)
            std::fprintf(stderr,
                         "sonomime plugin: %s: %s. Build the engine from a bundle that `sonomime "
                         "export` wrote.\n",
                         kind_.name, wrong);
        return wrong == nullptr;
    }

    Attributes attributes_;
};

class Creator final : public Named<IPluginCreatorV3One> {
public:
    using Named::Named;

    PluginFieldCollection const* getFieldNames() noexcept override { return fields_for(nullptr); }

    // From a node's attributes, or from what getFieldsToSerialize put into an engine.
    IPluginV3* createPlugin(char const* name, PluginFieldCollection const* given,
                            TensorRTPhase) noexcept override {
        Attributes attributes = {NAN, kind_.samples ? NAN : 0.0f, kind_.has_variance ? NAN : 1.0f};
        const char* wrong = nullptr;
        for (int32_t i = 0; given != nullptr && i < given->nbFields; ++i) {
            const PluginField& field = given->fields[i];
            if (!read(field, "half_pixel", attributes.half_pixel) ||
                !read(field, "align_corners", attributes.align_corners) ||
                !read(field, "variance", attributes.variance))
                wrong = "half_pixel, align_corners and variance have to be one float each";
        }
        if (wrong == nullptr &&
            !(is_flag(attributes.half_pixel) && is_flag(attributes.align_corners)))
            wrong = "half_pixel or align_corners is missing, or neither 0.0 nor 1.0";
        if (wrong == nullptr && !(attributes.variance > 0.0f && std::isfinite(attributes.variance)))
            wrong = "variance is missing, or not above 0 and finite";
        if (wrong == nullptr) return new (std::nothrow) Operator(kind_, attributes);
        std::fprintf(stderr, "sonomime plugin: %s %s: %s\n", kind_.name, name ? name : "", wrong);
        return nullptr;
    }

private:
    // False if the field is the one named and is not a float.
    static bool read(const PluginField& field, const char* name, float& value) noexcept {
        if (field.name == nullptr || std::strcmp(field.name, name) != 0) return true;
        if (field.type != PluginFieldType::kFLOAT32 || field.length != 1 || field.data == nullptr)
            return false;
        std::memcpy(&value, field.data, sizeof value);
        return true;
    }
};

}  // namespace

extern "C" {

SONOMIME_API IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
    static Creator warp_occlude(kWarpOcclude), sparse_motion(kSparseMotion),
        compose_motion(kComposeMotion);
    static IPluginCreatorInterface* const creators[] = {&warp_occlude, &sparse_motion,
                                                        &compose_motion};
    count = 3;
    return creators;
}

// TensorRT calls it while loading the library; there is nothing to do.
SONOMIME_API void setLoggerFinder(ILoggerFinder*) noexcept {}
}
