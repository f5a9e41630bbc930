"""What a device costs: profiles, fused kernels, the cost predictor."""
