/* The program (frozen): makes two matrices from AUTORESEARCH_SEED, multiplies them with the kernel,
 * and writes the product to product.bin. score.py makes the same matrices. */
#include "kernel.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static float a[SIZE * SIZE], b[SIZE * SIZE], c[SIZE * SIZE];
static uint64_t state;

/* A number in [-0.5, 0.5), from Knuth's MMIX generator. */
static float draw(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state >> 40) / 16777216.0 - 0.5);
}

int main(void) {
    const char *seed = getenv("AUTORESEARCH_SEED");
    state = strtoull(seed ? seed : "0", NULL, 10);
    for (int i = 0; i < SIZE * SIZE; i++) a[i] = draw();
    for (int i = 0; i < SIZE * SIZE; i++) b[i] = draw();
    multiply(a, b, c);
    FILE *file = fopen("product.bin", "wb");
    return file == NULL || fwrite(c, sizeof c, 1, file) != 1 || fclose(file) != 0;
}
