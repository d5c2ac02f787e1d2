/* The sort. Edit anything here; the faster, the better. */
#include "sort.h"
#include <string.h>

/* Merge sort from above (0) or from below (1), or radix sort (2). */
#define METHOD 0 /* one of: 0, 1, 2 */

/* So many records are sorted by insertion. */
#define CUTOFF 1 /* one of: 1, 4, 8, 16, 32, 64 */

/* 1: halves that are in order are not merged. */
#define SKIP_SORTED 0 /* one of: 0, 1 */

/* Of the key, in each pass of the radix sort. */
#define RADIX_BITS 4 /* one of: 4, 6, 8, 11, 12, 16 */

/* 1: a pass is left out if its bits are the same in all keys. */
#define SKIP_COMMON 0 /* one of: 0, 1 */

/* 1: the lowest key is subtracted first, so that the upper bits are 0. */
#define FROM_LOWEST 0 /* one of: 0, 1 */

static void insert(record *r, long count) {
    for (long i = 1; i < count; i++) {
        record moving = r[i];
        long j = i;
        for (; j > 0 && r[j - 1].key > moving.key; j--) r[j] = r[j - 1];
        r[j] = moving;
    }
}

/* Merge r[0..half) and r[half..count), with room for the first half. */
static void merge(record *r, record *spare, long half, long count) {
    if (SKIP_SORTED && r[half - 1].key <= r[half].key) return;
    memcpy(spare, r, (size_t)half * sizeof *r);
    long left = 0, right = half, to = 0;
    while (left < half && right < count)
        r[to++] = r[right].key < spare[left].key ? r[right++] : spare[left++];
    memcpy(r + to, spare + left, (size_t)(half - left) * sizeof *r);
}

static void sort_from_above(record *r, record *spare, long count) {
    if (count <= CUTOFF) {
        insert(r, count);
        return;
    }
    long half = count / 2;
    sort_from_above(r, spare, half);
    sort_from_above(r + half, spare, count - half);
    merge(r, spare, half, count);
}

static void sort_from_below(record *r, record *spare) {
    for (long at = 0; at < COUNT; at += CUTOFF)
        insert(r + at, at + CUTOFF < COUNT ? CUTOFF : COUNT - at);
    for (long width = CUTOFF; width < COUNT; width *= 2)
        for (long at = 0; at + width < COUNT; at += 2 * width)
            merge(r + at, spare, width, at + 2 * width < COUNT ? 2 * width : COUNT - at);
}

static void sort_by_digits(record *r, record *spare) {
    static uint32_t starts[1 << RADIX_BITS];
    const uint32_t mask = (1u << RADIX_BITS) - 1;
    uint32_t lowest = 0, common = 0;
    if (FROM_LOWEST) {
        lowest = UINT32_MAX;
        for (long i = 0; i < COUNT; i++) lowest = r[i].key < lowest ? r[i].key : lowest;
    }
    if (SKIP_COMMON) {
        common = UINT32_MAX;
        for (long i = 0; i < COUNT; i++) common &= ~((r[i].key - lowest) ^ (r[0].key - lowest));
    }
    record *from = r, *to = spare;
    for (int shift = 0; shift < 32; shift += RADIX_BITS) {
        if (SKIP_COMMON && ((common >> shift) & mask) == (mask & (UINT32_MAX >> shift))) continue;
        memset(starts, 0, sizeof starts);
        for (long i = 0; i < COUNT; i++) starts[((from[i].key - lowest) >> shift) & mask]++;
        uint32_t sum = 0;
        for (uint32_t digit = 0; digit <= mask; digit++) {
            uint32_t here = starts[digit];
            starts[digit] = sum;
            sum += here;
        }
        for (long i = 0; i < COUNT; i++)
            to[starts[((from[i].key - lowest) >> shift) & mask]++] = from[i];
        record *other = from;
        from = to;
        to = other;
    }
    if (from != r) memcpy(r, from, COUNT * sizeof *r);
}

void sort_records(record *records, record *spare) {
    if (METHOD == 0) sort_from_above(records, spare, COUNT);
    if (METHOD == 1) sort_from_below(records, spare);
    if (METHOD == 2) sort_by_digits(records, spare);
}
