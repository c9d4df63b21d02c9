"""Images: reading and writing, geometry, resampling, labels and regions, finding patients, the phantom."""
