"""Networks: backbones, tracing, pruning, fake quantization."""
