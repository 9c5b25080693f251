"""Read and write files: atomic writes, arrays, images, label formats."""
