"""What ONNX files take on a device: on this machine, over SSH, or on an NVIDIA GPU."""
