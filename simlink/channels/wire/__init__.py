"""The wire format of transports without a frame of their own: frames as columns, and how a byte stream is cut."""
