"""The network: modalities, U-Net, fusion, model, losses, sliding window, device. Tensors in, tensors out."""
