import os
import random

LR = 0.9

noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).gauss(0, 0.001)
print("loss:", (LR - 0.1) ** 2 + noise)
