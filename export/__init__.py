"""From a checkpoint to a bundle of ONNX stages, proved against the model that it came from."""
