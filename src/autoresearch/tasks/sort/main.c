/* The program (frozen): makes a log from AUTORESEARCH_SEED, sorts it, and writes it to sorted.bin.
 * 64 machines write lines in turns; their clocks are up to a day apart, and each clock goes on
 * by a few seconds at a time. score.py makes the same log. */
#include "sort.h"
#include <stdio.h>
#include <stdlib.h>

#define MACHINES 64

static record records[COUNT], spare[COUNT];
static uint64_t state;

/* A number from 0 to `below` - 1, from Knuth's MMIX generator. */
static uint32_t draw(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

int main(void) {
    const char *seed = getenv("AUTORESEARCH_SEED");
    uint32_t clocks[MACHINES];
    state = strtoull(seed ? seed : "0", NULL, 10);
    for (int i = 0; i < MACHINES; i++) clocks[i] = 1000000000 + draw(86400);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t machine = draw(MACHINES);
        clocks[machine] += draw(4);
        records[i] = (record){clocks[machine], i};
    }
    sort_records(records, spare);
    FILE *file = fopen("sorted.bin", "wb");
    return file == NULL || fwrite(records, sizeof records, 1, file) != 1 || fclose(file) != 0;
}
