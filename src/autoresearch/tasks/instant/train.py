"""Eight constants with a known optimum. Edit the constants; the lower `loss`, the better."""

from problem import loss, print_summary

X = 0.8  # in [0, 1]
Y = 0.2  # in [0, 1]
RATE = 0.1  # in [0.0001, 1]
MOMENTUM = 0.5  # in [0, 0.99]
DEPTH = 2  # in [1, 8]
WIDTH = 16  # one of: 16, 32, 64, 128
CENTRED = False
SCHEDULE = "linear"  # one of: linear, cosine, step

print_summary(loss(X, Y, RATE, MOMENTUM, DEPTH, WIDTH, CENTRED, SCHEDULE))
