"""What the network and its handler must agree on."""

CHANNELS = 3  # acceleration along x, y, z
SAMPLES = 256  # one window
BANDS = ("low", "middle", "high")
