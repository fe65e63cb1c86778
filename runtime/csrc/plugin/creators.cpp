// What TensorRT finds in the plugin library: getCreators and setLoggerFinder.
//
// No REGISTER_TENSORRT_PLUGIN: it would call into a TensorRT library, and so tie the file to one of
// them. TensorRT registers what getCreators returns, in any version since 10.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <new>

#include "operators.h"

namespace sonomime::plugin {

using namespace nvinfer1;

namespace {

class Creator final : public IPluginCreatorV3One {
public:
    explicit Creator(const Kind& kind) noexcept : kind_(kind) {
        fields_[0] = PluginField("half_pixel", nullptr, PluginFieldType::kFLOAT32, 1);
        fields_[1] = PluginField("variance", nullptr, PluginFieldType::kFLOAT32, 1);
        collection_ = {kind.has_variance ? 2 : 1, fields_.data()};
    }
    char const* getPluginName() const noexcept override { return kind_.name; }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }
    PluginFieldCollection const* getFieldNames() noexcept override { return &collection_; }

    // From a node's attributes, or from what getFieldsToSerialize put into an engine.
    IPluginV3* createPlugin(char const* name, PluginFieldCollection const* given,
                            TensorRTPhase) noexcept override {
        Attributes attributes;
        bool has_half_pixel = false, has_variance = false;
        for (int32_t i = 0; given != nullptr && i < given->nbFields; ++i) {
            const PluginField& field = given->fields[i];
            if (!read(field, "half_pixel", attributes.half_pixel, has_half_pixel) ||
                !read(field, "variance", attributes.variance, has_variance))
                return refuse(name, "half_pixel and variance have to be one float each");
        }
        if (!has_half_pixel) return refuse(name, "the attribute half_pixel is missing");
        if (attributes.half_pixel != 0.0f && attributes.half_pixel != 1.0f)
            return refuse(name, "half_pixel is neither 0.0 nor 1.0");
        if (kind_.has_variance && !has_variance)
            return refuse(name, "the attribute variance is missing");
        if (!(attributes.variance > 0.0f) || std::isinf(attributes.variance))
            return refuse(name, "variance is not above 0 and finite");
        return new (std::nothrow) Operator(kind_, attributes);
    }

private:
    // False if the field is the one named and is not a float.
    static bool read(const PluginField& field, const char* name, float& value,
                     bool& found) noexcept {
        if (field.name == nullptr || std::strcmp(field.name, name) != 0) return true;
        if (field.type != PluginFieldType::kFLOAT32 || field.length != 1 || field.data == nullptr)
            return false;
        std::memcpy(&value, field.data, sizeof value);
        found = true;
        return true;
    }

    IPluginV3* refuse(char const* name, char const* why) const noexcept {
        std::fprintf(stderr, "sonomime plugin: %s %s: %s\n", kind_.name, name ? name : "", why);
        return nullptr;
    }

    const Kind& kind_;
    std::array<PluginField, 2> fields_;
    PluginFieldCollection collection_{};
};

}  // namespace

}  // namespace sonomime::plugin

extern "C" {

SONOMIME_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) noexcept {
    using namespace sonomime::plugin;
    static Creator warp_occlude(kWarpOcclude), sparse_motion(kSparseMotion),
        compose_motion(kComposeMotion);
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&warp_occlude, &sparse_motion,
                                                                  &compose_motion};
    count = 3;
    return creators;
}

// TensorRT calls it while loading the library; there is nothing to do.
SONOMIME_API void setLoggerFinder(nvinfer1::ILoggerFinder*) noexcept {}
}
