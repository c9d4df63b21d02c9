"""Networks: configuration, registry, A2FSeg and what it is made of, losses, device, memory. Tensors in, tensors out."""
