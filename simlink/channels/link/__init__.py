"""The brokerless link without any I/O: what its ends know of each other's positions, whatever carries the frames."""
